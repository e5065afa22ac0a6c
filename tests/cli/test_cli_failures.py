"""Exit codes, error blocks and the crash report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import langbatch
from langbatch.errors import BatchValidationError
from langbatch.results.result import results_damaged
from langbatch_cli import exits
from langbatch_cli.exits import Exit
from langbatch_cli.failures import report
from langbatch_cli.session import Detached, Session
from running import CommandLine

PROMPT = "a prompt that nobody else may read"


def tree(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(one for child in root.__subclasses__() for one in tree(child))]


def made(kind: type[Exception]) -> langbatch.LangBatchError:
    error = kind("text")
    assert isinstance(error, langbatch.LangBatchError)
    return error


def test_only_the_roots_and_unreadable_results_are_unexpected() -> None:
    unexpected = {
        k.__name__ for k in tree(langbatch.LangBatchError) if exits.of_error(made(k)) is Exit.UNEXPECTED
    }
    assert unexpected == {"LangBatchError", "BatchError", "BatchResultsError", "UnfitAnswer"}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (langbatch.BatchValidationError, 3),
        (langbatch.SetupError, 5),
        (langbatch.AccessRefused, 5),
        (langbatch.Unreachable, 6),
        (langbatch.Throttled, 6),
        (langbatch.Refused, 6),
        (langbatch.JobNotFound, 2),
        (langbatch.BatchStateError, 2),
        (langbatch.JobNotFinished, 7),
        (langbatch.WaitTimeout, 7),
        (langbatch.NeedsOperator, 8),
    ],
)
def test_each_kind_of_error_has_its_exit_code(kind: type[langbatch.LangBatchError], code: int) -> None:
    assert exits.of_error(kind("text")) == code


def test_the_worst_of_several_jobs_decides() -> None:
    assert exits.worst([]) is Exit.DONE
    assert exits.worst([Exit.DONE, Exit.UNSUCCESSFUL]) is Exit.UNSUCCESSFUL
    assert exits.worst([Exit.UNSUCCESSFUL, Exit.PROVIDER, Exit.OPERATOR]) is Exit.OPERATOR


def crash() -> Exception:
    try:
        try:
            raise KeyError(PROMPT)
        except KeyError as cause:
            raise RuntimeError(f"while handling {PROMPT}") from cause
    except RuntimeError as error:
        return error


def test_a_crash_report_holds_places_and_types_but_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(Session(reports=tmp_path), crash(), "submit") == 1
    seen = capsys.readouterr()
    (path,) = tmp_path.iterdir()
    written = path.read_text()
    assert "RuntimeError" in written
    assert "KeyError" in written
    assert "test_cli_failures.py" in written
    assert PROMPT not in written
    assert PROMPT not in seen.err
    assert seen.err.count("\n") == 1
    assert str(path) in seen.err
    assert "Traceback" not in seen.err
    assert str(Path(__file__).parent) not in written
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_crash_before_the_home_is_known_leaves_no_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Session(json=True), crash()) == 1
    seen = capsys.readouterr()
    assert json.loads(seen.out)["error"]["message"] == "unexpected RuntimeError"
    assert PROMPT not in seen.out + seen.err


def test_an_error_document_keeps_the_stored_job(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(json=True, stored={"id": "job_1"})
    assert report(session, langbatch.Unreachable("no connection", hint="later")) == 6
    document = json.loads(capsys.readouterr().out)
    assert document["id"] == "job_1"
    assert document["error"] == {
        "code": "unreachable",
        "message": "no connection",
        "hint": "later",
        "problems": [],
    }


def test_detaching_prints_the_command_to_come_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(home=tmp_path / "my home", stored={"id": "job_1"})
    assert report(session, Detached(session.command("watch", "job_1"))) == 130
    told = capsys.readouterr().err
    assert f"langbatch watch job_1 --home '{tmp_path}/my home'" in told


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (langbatch.SetupError("no endpoint", hint="set AZURE_API_BASE"), "langbatch doctor"),
        (langbatch.AccessRefused("HTTP 401"), "langbatch doctor"),
        (langbatch.Unreachable("no connection"), "langbatch resume job_1"),
        (langbatch.JobNotFinished("not yet"), "langbatch watch job_1"),
        (langbatch.JobNotFound("no such job"), "langbatch status"),
        (langbatch.Refused("HTTP 400"), "langbatch doctor"),
        (langbatch.BatchStateError("it is running"), "langbatch status job_1"),
        (PermissionError(13, "Permission denied", "f"), "langbatch resume job_1"),
    ],
)
def test_an_error_ends_with_the_command_that_gets_on(
    error: Exception, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report(Session(stored={"id": "job_1"}), error)
    assert capsys.readouterr().err.endswith(f"\nNext: {command}\n")


def test_doctor_is_to_look_at_the_service_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    report(Session(provider="openai"), langbatch.SetupError("no key"))
    assert "Next: langbatch doctor --provider openai" in capsys.readouterr().err
    report(Session(provider="gcp"), langbatch.SetupError("no such provider", code="unknown_provider"))
    assert "Next:" not in capsys.readouterr().err


def test_a_table_is_for_build(capsys: pytest.CaptureFixture[str]) -> None:
    report(Session(table="my rows.csv"), BatchValidationError("not JSON", []))
    assert "Next: langbatch build 'my rows.csv' --prompt" in capsys.readouterr().err


def test_an_error_is_told_where_standard_output_takes_nothing(tmp_path: Path) -> None:
    words = ["-m", "langbatch_cli", "status", "--json", "--home", str(tmp_path)]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == Exit.SETUP
    assert ran.stderr.startswith("Error: No space left on device")
    assert "Traceback" not in ran.stderr


def test_a_command_that_was_named_is_not_followed_by_another(capsys: pytest.CaptureFixture[str]) -> None:
    report(Session(), langbatch.Unreachable("gone", hint="`langbatch resume job_1 --wait` goes on."))
    assert "Next:" not in capsys.readouterr().err


def test_a_next_command_keeps_to_the_store_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(Session(home=tmp_path), langbatch.JobNotFound("no such job"))
    assert capsys.readouterr().err.endswith(f"Next: langbatch status --home {tmp_path}\n")


def test_a_fault_of_the_whole_file_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    problem = langbatch.Problem(0, 0, None, "empty_file", "the file holds no requests")
    assert report(Session(), BatchValidationError("the file holds no requests", [problem])) == 3
    assert capsys.readouterr().err.count("no requests") == 1


def test_trouble_with_a_file_is_no_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = PermissionError(13, "Permission denied", "some/file")
    assert report(Session(reports=tmp_path), error) == 5
    assert "Permission denied some/file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_before_anything_is_stored_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(home=tmp_path)
    with pytest.raises(Detached) as caught, session.manager():
        raise KeyboardInterrupt
    assert report(session, caught.value) == 130
    assert capsys.readouterr().err.startswith("Stopped.")


def test_results_that_were_damaged_on_the_disk_are_the_setups_as_a_full_disk_is() -> None:
    assert exits.of_error(results_damaged(Path("joined"))) is Exit.SETUP


# ---------------------------------------------------------------- files of another form


@pytest.mark.parametrize("text", ['[{"custom_id": "a"}]\n', '[\n  {"custom_id": "a"}\n]\n'])
@pytest.mark.parametrize("command", ["validate", "submit"])
def test_an_array_instead_of_lines_is_told_how_to_become_lines(
    command: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(text)
    variables = {"AZURE_API_BASE": "http://127.0.0.1:9", "AZURE_API_KEY": "any"}
    ran = CommandLine(tmp_path, variables).here(command, "a.json")
    assert ran.code == 3
    assert "Try: write one request, a JSON object, per line: `jq -c '.[]' FILE`" in ran.err
    assert "--skip-invalid" not in ran.err
