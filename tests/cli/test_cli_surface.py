"""What the command line looks like from outside: names, help, options in any place, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from langbatch_cli.app import app, main
from running import CommandLine

COMMANDS = sorted(info.callback.__name__ for info in app.registered_commands if info.callback)
PROMISED = {
    "validate", "submit", "status", "watch", "fetch", "cancel", "retry", "resume", "reconcile",
    "doctor", "purge", "gc", "recover", "emulator", "demo",
}  # fmt: skip
HEAVY = {"openai", "azure", "starlette", "uvicorn", "rich"}


def test_every_promised_command_is_there() -> None:
    assert set(COMMANDS) >= PROMISED


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"Usage: langbatch {command}" in told
    assert "--json" in told
    assert "--home" in told


def test_help_lists_commands_without_cutting_their_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {command}" in told for command in COMMANDS)
    assert "..." not in told.split("Commands:")[1]


def test_no_command_is_a_usage_error_that_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["submit"], ["status", "--nonsense"], ["fetch", "x", "--format", "x"]]
)
def test_usage_errors_are_2_with_something_to_try(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith("Error: ")
    assert "\nTry: langbatch" in seen.err


def test_usage_errors_are_documents_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert set(error) == {"code", "message", "hint", "problems"}
    assert error["code"] == "usage"


@pytest.mark.parametrize("command", ["status", "fetch", "watch", "cancel", "retry", "resume", "purge"])
def test_every_command_on_a_job_refuses_an_unknown_one(
    command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "job_unknown", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unknown_job"


def test_json_and_home_may_stand_before_the_command_or_behind_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, arguments in (
        ("before", ["--json", "--home", str(tmp_path / "before"), "status"]),
        ("behind", ["status", "--json", "--home", str(tmp_path / "behind")]),
    ):
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out) == {"jobs": []}
        assert (tmp_path / place / "langbatch.db").exists()


def test_reconcile_wants_one_of_its_two_answers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--adopt", "batch_1", "--resubmit"]):
        assert main(["reconcile", "job_unknown", *arguments]) == 2
        assert "one of --adopt" in capsys.readouterr().err


def test_a_model_and_another_deployment_contradict_each_other(
    home: Path, requests_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", str(requests_file), "--model", "a", "--deployment", "b"]) == 2
    assert "differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["status", "--offline"], ["status", "--offline", "--json"]]
)
def test_light_commands_load_nothing_heavy(langbatch: CommandLine, arguments: list[str]) -> None:
    script = (
        "import json, sys\n"
        "from langbatch_cli.app import main\n"
        f"assert main({arguments!r}) == 0\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=langbatch.environment(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    unwanted = HEAVY | {"sqlalchemy", "msgspec"} if arguments == ["--help"] else HEAVY
    assert unwanted & set(json.loads(ran.stdout.splitlines()[-1])) == set()
