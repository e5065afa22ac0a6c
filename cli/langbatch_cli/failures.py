"""Errors as people and programs read them, and the crash report of an error nobody foresaw."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import langbatch
from langbatch_cli import exits
from langbatch_cli.exits import Exit
from langbatch_cli.render import TERMINAL_LIMIT, Line, error_lines, problem_lines
from langbatch_cli.session import Detached, Session, UsageError

if TYPE_CHECKING:
    from langbatch import Problem


def error_document(
    code: str, message: str, hint: str | None = None, problems: Sequence[Problem] = ()
) -> dict[str, Any]:
    """The value of `"error"` in a JSON document."""
    return {"code": code, "message": message, "hint": hint, "problems": problem_documents(problems)}


def problem_documents(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in problems]


def of_library(error: langbatch.LangBatchError) -> dict[str, Any]:
    problems = error.problems if isinstance(error, langbatch.BatchValidationError) else ()
    return error_document(error.code, error.message, error.hint, problems)


def report(session: Session, error: Exception, command: str = "") -> Exit:
    """Tell what went wrong, on both streams; the exit code that goes with it."""
    width = session.width
    lines: list[Line]
    if isinstance(error, Detached):
        text = "The job goes on; nothing is lost." if error.jobs_go_on else "Stopped."
        document = error_document("detached", text, error.come_back)
        head = "Come back with:"
        lines = [((text, ""),)]
        if width is None or len(head) + 1 + len(error.come_back) <= width:
            lines.append(((f"{head} ", ""), (error.come_back, "bold")))
        else:
            # A command to copy is not broken where it can be helped.
            lines += [((head, ""),), ((f"  {error.come_back}", "bold"),)]
        code = Exit.DETACHED
    elif isinstance(error, UsageError):
        document = error_document("usage", error.message, error.hint)
        lines = error_lines(error.message, error.hint, width)
        code = Exit.USAGE
    elif isinstance(error, langbatch.LangBatchError):
        document = of_library(error)
        lines = error_lines(error.message, error.hint, width)
        if isinstance(error, langbatch.BatchValidationError) and any(p.line for p in error.problems):
            # Logs and mails are read, too: all of them are `validate`'s to list.
            lines[1:1] = problem_lines(error.problems, width, TERMINAL_LIMIT, session.source)
        code = exits.of_error(error)
    elif isinstance(error, OSError):
        text = " ".join(filter(None, (error.strerror or type(error).__name__, error.filename)))
        hint = "make room, or allow access, and try again"
        if "id" in session.stored:
            # Its id may be what could not be written.
            text, hint = (
                f"{text}; job {session.stored['id']} is stored",
                "make room: the job need not be made anew",
            )
        document = error_document("storage", text, hint)
        lines = error_lines(text, document["hint"], width)
        code = Exit.SETUP
    else:
        kind = type(error).__name__
        path = write_crash_report(error, session.reports, command)
        where = f"A report without prompts or keys is in {path}" if path else "No report could be written"
        document = error_document("unexpected", f"unexpected {kind}", where)
        lines = error_lines(f"unexpected {kind}. {where}.", None, width)
        code = Exit.UNEXPECTED
    following = next_command(session, error)
    if following is not None:
        lines = [*lines, (("Next: ", ""), (following, "bold"))]
    if session.json:
        # Standard output may take nothing, and that be the error: standard error tells it.
        with suppress(OSError, ValueError):
            session.put_document({**session.stored, "error": document}, one_line=True)
    session.say(lines)
    return code


def next_command(session: Session, error: Exception) -> str | None:
    """The command that gets on from here; None where what was said names one already."""
    hint = getattr(error, "hint", None) or ""
    message = getattr(error, "message", "")
    if isinstance(error, Detached) or "langbatch " in f"{hint} {message}":
        return None
    job = str(session.stored.get("id", ""))
    provider = str(session.stored.get("provider") or session.provider or "azure")
    doctor = ("doctor",) if provider == "azure" else ("doctor", "--provider", provider)
    words: tuple[str, ...] | None
    match error:
        case langbatch.BatchValidationError() if session.table is not None:
            words = ("build", session.table, "--prompt", "…")
        case langbatch.JobNotFound():
            words = ("status",)
        case langbatch.JobNotFinished() if job:
            words = ("watch", job)
        case langbatch.SetupError(code="unknown_provider" | "unbounded_input"):
            words = None
        case langbatch.SetupError() | langbatch.AccessRefused():
            words = doctor
        case langbatch.Unreachable() | langbatch.FateUnknown() | langbatch.Throttled():
            words = ("resume", job) if job else doctor
        case OSError() if job:
            words = ("resume", job)
        case langbatch.ProviderError() | langbatch.BatchStorageError() | OSError():
            words = doctor
        case langbatch.BatchError() if job:
            words = ("status", job)
        case _:
            words = None
    return None if words is None else session.command(*words)


def write_crash_report(error: BaseException, home: Path | None, command: str) -> Path | None:
    """Where the report is; None where it could not be written.

    It holds types and places in the code only: messages, arguments and values may hold prompts or keys.
    """
    if home is None or not home.is_dir():
        return None
    lines = [
        f"langbatch {version()}, Python {platform.python_version()}, {platform.system()}",
        f"command: {command or 'unknown'}",
    ]
    seen: BaseException | None = error
    while seen is not None:
        lines.append(f"{type(seen).__module__}.{type(seen).__qualname__}")
        lines += [f"  {_place(frame)}" for frame in traceback.extract_tb(seen.__traceback__)]
        seen = seen.__cause__ or seen.__context__
    path = home / f"crash-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError:
        return None
    return path


def version() -> str:
    """The installed version; a source tree on the path has none."""
    try:
        return str(langbatch.__version__)
    except PackageNotFoundError:
        return "(not installed)"


def _place(frame: traceback.FrameSummary) -> str:
    # The last two parts tell the module; the rest is a user's folder names.
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
