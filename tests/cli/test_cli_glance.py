"""The plain list of jobs comes quickly, and says what the long way says."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import langbatch
from langbatch.running import journal
from langbatch_cli.glance import listed
from running import CommandLine
from support import requests_file

QUICK = ("status", "--offline")


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """A store of three jobs: named, unnamed, and with something to say."""
    cli = CommandLine(tmp_path)
    with langbatch.JobManager(home=cli.home) as manager:
        for number, name in enumerate(("näme  \u202e\x1b[1m", None, None)):
            source = requests_file(tmp_path / f"in {number}.jsonl", [f"r{n}" for n in range(number + 1)])
            endpoint = "https://x.openai.azure.com"
            manager.submit(source, name=name, start=False, azure_endpoint=endpoint, api_key="any")
    change(cli, "UPDATE jobs SET attention = 'waits for quota', succeeded = 2 WHERE key = 3")
    return cli


def change(cli: CommandLine, statement: str) -> None:
    with closing(sqlite3.connect(cli.home / "langbatch.db")) as connection, connection:
        connection.execute(statement)


def test_the_quick_list_is_the_long_ways_list(cli: CommandLine) -> None:
    long = cli.here(*QUICK)
    for words in (QUICK, (*QUICK, "--home", str(cli.home)), ("status", "--home", str(cli.home), "--offline")):
        assert cli(*words) == long
    assert long.err.count("\n") == 3
    assert "2 succeeded, 1 pending (waits for quota)" in long.err


def test_the_quick_list_needs_neither_the_parser_nor_sqlalchemy(cli: CommandLine) -> None:
    code = (
        f"import sys; from langbatch_cli.glance import listed; assert len(listed({QUICK!r})) == 3;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=cli.environment(), capture_output=True, text=True, check=True
    )
    assert not {"sqlalchemy", "typer", "pydantic", "rich", "openai"} & set(loaded.stdout.split())


def test_an_empty_store_is_told_of_as_ever(tmp_path: Path) -> None:
    cli = CommandLine(tmp_path)
    assert cli(*QUICK) == cli.here(*QUICK)
    assert cli(*QUICK) == cli.here(*QUICK)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "--offline", "--json"),
        ("status", "--offline", "job_0"),
        ("status", "--offline", "--home"),
        ("status", "--offline", "--home", ""),
        ("status", "--home", "--offline", "--offline"),
        ("watch", "--offline"),
    ],
)
def test_whatever_asks_for_more_goes_the_long_way(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("LANGBATCH_HOME", str(cli.home))
    assert listed(QUICK) is not None
    assert listed(words) is None


@pytest.mark.parametrize(
    "trouble",
    [
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE shards SET state = 'needs_operator' WHERE job = 2",
        "DROP TABLE shards",
    ],
)
def test_what_is_not_plain_in_the_database_goes_the_long_way(cli: CommandLine, trouble: str) -> None:
    assert langbatch.glance(cli.home) is not None
    change(cli, trouble)
    assert langbatch.glance(cli.home) is None


def test_a_crash_s_journal_is_read_the_long_way(cli: CommandLine) -> None:
    (cli.home / journal.NAME).mkdir()
    assert langbatch.glance(cli.home) is not None
    (cli.home / journal.NAME / "1-0-1-ab.json").touch()
    assert langbatch.glance(cli.home) is None


def test_another_database_and_a_profile_go_the_long_way(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cli.home / "profiles.toml").write_text(
        "[[two.targets]]\nazure_endpoint = 'https://x.openai.azure.com'\n"
    )
    with monkeypatch.context() as patched:
        patched.setenv("LANGBATCH_PROFILE", "two")
        assert langbatch.glance(cli.home) is None
    monkeypatch.setenv("LANGBATCH_DATABASE_URL", f"sqlite:///{cli.home}/langbatch.db")
    assert langbatch.glance(cli.home) is None
