"""Exit codes: what they mean and what leads to each. Scripts depend on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

import langbatch

if TYPE_CHECKING:
    from langbatch import JobStatus


class Exit(IntEnum):
    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    INPUT_INVALID = 3
    UNSUCCESSFUL = 4
    SETUP = 5
    PROVIDER = 6
    UNFINISHED = 7
    OPERATOR = 8
    DETACHED = 130


#: What each code says, in the words of `--help` and of the documents.
MEANINGS: Mapping[Exit, str] = MappingProxyType(
    {
        Exit.DONE: "done",
        Exit.UNEXPECTED: "unexpected",
        Exit.USAGE: "usage",
        Exit.INPUT_INVALID: "input invalid",
        Exit.UNSUCCESSFUL: "finished, but not every request succeeded",
        Exit.SETUP: "credentials or configuration",
        Exit.PROVIDER: "provider unreachable or refusing",
        Exit.UNFINISHED: "not finished yet",
        Exit.OPERATOR: "needs operator",
        Exit.DETACHED: "detached by Ctrl-C",
    }
)
#: With these any command may end; 2 is also for a job that is not there, or not in a state for it.
ALWAYS: tuple[Exit, ...] = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE, Exit.SETUP, Exit.DETACHED)
#: With these some commands may end, too. Every run of a command in the tests is held against this.
OF_COMMAND: Mapping[str, tuple[Exit, ...]] = MappingProxyType(
    {
        "build": (Exit.INPUT_INVALID,),
        "validate": (Exit.INPUT_INVALID,),
        "submit": (Exit.INPUT_INVALID, Exit.UNSUCCESSFUL, Exit.PROVIDER, Exit.OPERATOR),
        "status": (Exit.OPERATOR,),
        "watch": (Exit.UNSUCCESSFUL, Exit.PROVIDER, Exit.OPERATOR),
        "fetch": (Exit.UNSUCCESSFUL, Exit.UNFINISHED),
        "retry": (Exit.PROVIDER,),
        "resume": (Exit.UNSUCCESSFUL, Exit.PROVIDER, Exit.UNFINISHED, Exit.OPERATOR),
        "reconcile": (Exit.PROVIDER,),
        "gc": (Exit.PROVIDER,),
        "recover": (Exit.PROVIDER, Exit.OPERATOR),
    }
)


def sentence(codes: Sequence[Exit]) -> str:
    """`Exit codes: 0 done; …`, for `--help`."""
    return f"Exit codes: {'; '.join(f'{code.value} {MEANINGS[code]}' for code in codes)}."


def of_command(name: str) -> tuple[Exit, ...]:
    """Every code that the command may end with, in order."""
    return tuple(sorted({*ALWAYS, *OF_COMMAND.get(name, ())}))


def of_error(error: langbatch.LangBatchError) -> Exit:
    """The code for an error of the library, by what the caller can do about it."""
    if isinstance(error, langbatch.BatchResultsError):
        # A name that may not be written to is for the user to change, and so is a disk that lost results;
        # unreadable ones are nobody's wish.
        if error.code == "results_damaged":
            return Exit.SETUP
        return Exit.USAGE if error.code.startswith("output_") else Exit.UNEXPECTED
    if error.code == "unknown_provider":
        return Exit.USAGE
    table: tuple[tuple[type[langbatch.LangBatchError], Exit], ...] = (
        (langbatch.BatchValidationError, Exit.INPUT_INVALID),
        (langbatch.BatchInitializationError, Exit.INPUT_INVALID),
        (langbatch.JobNotFound, Exit.USAGE),
        (langbatch.NeedsOperator, Exit.OPERATOR),
        (langbatch.JobNotFinished, Exit.UNFINISHED),
        (langbatch.BatchStateError, Exit.USAGE),
        # The disk is part of the setup: mend it here, then resume.
        (langbatch.BatchStorageError, Exit.SETUP),
        (langbatch.SetupError, Exit.SETUP),
        (langbatch.AccessRefused, Exit.SETUP),
        (langbatch.BatchStartError, Exit.PROVIDER),
        (langbatch.ProviderError, Exit.PROVIDER),
    )
    return next((code for kind, code in table if isinstance(error, kind)), Exit.UNEXPECTED)


def of_results(status: JobStatus) -> Exit:
    """For commands that hand over results, or waited for them."""
    if not status.finished:
        return Exit.UNFINISHED
    return Exit.DONE if status.all_succeeded else Exit.UNSUCCESSFUL


def of_status(status: JobStatus) -> Exit:
    """For looking at a job: it could be told, unless a person must settle a shard."""
    return Exit.OPERATOR if status.state == "needs_operator" else Exit.DONE


def of_one_round(statuses: Sequence[JobStatus]) -> Exit:
    """For one `resume`: 7 as long as a later one gets further by itself; where every job that is left waits
    for a person, the code says for what, so that a loop around `resume` ends."""
    left = {status.state for status in statuses if not status.finished and status.state != "draft"}
    if left & {"running"}:
        return Exit.UNFINISHED
    if "needs_operator" in left:
        return Exit.OPERATOR
    if "paused" in left:
        return Exit.SETUP
    ended = [status for status in statuses if status.finished]
    return Exit.DONE if all(status.all_succeeded for status in ended) else Exit.UNSUCCESSFUL


#: Of several jobs' ends the first of these is the command's.
_WORST_FIRST = (
    Exit.UNEXPECTED,
    Exit.OPERATOR,
    Exit.SETUP,
    Exit.PROVIDER,
    Exit.USAGE,
    Exit.UNFINISHED,
    Exit.UNSUCCESSFUL,
)


def worst(codes: Sequence[Exit]) -> Exit:
    return next((code for code in _WORST_FIRST if code in codes), Exit.DONE)
