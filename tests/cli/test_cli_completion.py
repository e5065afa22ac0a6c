"""Shell completion, asked for as a shell asks: words so far in, candidates out."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup as Group

from langbatch_cli.app import app
from running import CommandLine


def candidates(langbatch: CommandLine, *words: object) -> list[str]:
    """What bash is offered for the last of the words."""
    line = " ".join(["langbatch", *map(str, words)])
    # As a process: the parser ends it as soon as it has answered.
    ran = langbatch(_LANGBATCH_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    assert ran.err == ""
    return ran.out.split()


def test_commands_are_completed(langbatch: CommandLine) -> None:
    assert candidates(langbatch, "wat") == ["watch"]


@pytest.mark.parametrize("command", ["status", "watch", "fetch"])
def test_ids_of_jobs_are_completed_the_newest_first(
    command: str, langbatch: CommandLine, requests_file: Path, mixed_file: Path
) -> None:
    jobs = [langbatch.here("submit", path, "--name", "n").job_id for path in (requests_file, mixed_file)]
    assert candidates(langbatch, command, "job_") == jobs[::-1]
    assert candidates(langbatch, command, jobs[0]) == [jobs[0]]
    assert candidates(langbatch, command, "x") == []


def test_every_command_on_a_job_completes_it() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    found = {
        name: [option for option in command.params if option.name in ("job", "jobs")]
        for name, command in group.commands.items()
    }
    on_jobs = {name: options[0] for name, options in found.items() if options}
    assert {"cancel", "purge", "reconcile", "resume", "retry"} < set(on_jobs)
    assert all(getattr(option, "_custom_shell_complete", None) for option in on_jobs.values())


def test_jobs_of_another_home_are_completed_where_it_is_named(
    langbatch: CommandLine, requests_file: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    job = langbatch.here("submit", requests_file, "--home", there).job_id
    assert candidates(langbatch, "fetch", "--home", there, "job_") == [job]
    assert candidates(langbatch, "fetch", "job_") == []


def test_completing_makes_no_store_and_hides_what_is_wrong_with_one(langbatch: CommandLine) -> None:
    assert candidates(langbatch, "fetch", "job_") == []
    assert not langbatch.home.exists()
    langbatch.home.mkdir()
    (langbatch.home / "langbatch.db").write_bytes(b"no database" * 1000)
    assert candidates(langbatch, "fetch", "job_") == []


def test_codes_are_completed_for_explain(langbatch: CommandLine) -> None:
    assert candidates(langbatch, "explain", "token_") == ["token_limit_exceeded"]


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --")]
)
def test_the_script_for_each_shell_can_be_shown(langbatch: CommandLine, shell: str, word: str) -> None:
    # Its own knob: which shell a test is run from is nobody's business.
    ran = langbatch("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ran.code == 0
    assert word in ran.out
    assert "langbatch" in ran.out
