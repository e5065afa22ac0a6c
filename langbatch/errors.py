"""Everything that langbatch raises, split by what the caller can do about it.

LangBatchError
├── SetupError                  credentials or configuration: mend the setup
├── BatchError                  LangBatch's root, kept for its users
│   ├── BatchInitializationError    the data given cannot become a job
│   ├── BatchValidationError        the input is at fault: fix the lines in `.problems`
│   ├── BatchStateError             not now: the job is in another state
│   │   ├── JobNotFinished          wait, then ask again
│   │   │   └── WaitTimeout                 `wait` was given so long; the job goes on
│   │   └── NeedsOperator           a person must settle a shard (`langbatch reconcile`)
│   ├── JobNotFound                 no such job in this store
│   ├── BatchStartError             the job could not be started
│   ├── BatchStorageError           disk or database: free space, unlock, restore
│   └── BatchResultsError           results are unreadable or may not be overwritten
│       └── UnfitAnswer                 an answer is not what was to be made of it
└── ProviderError               the service's answer, by what is known of the call's effect
    ├── AccessRefused               401 or 403: nothing happened; mend access and go on
    ├── Unreachable                 the request never left: nothing happened; try later
    ├── Throttled                   429: nothing happened; try after `.retry_after_seconds`
    ├── QuotaFull                   enqueued-token quota is full: nothing happened; try later
    ├── RemoteNotFound              404 for this file, batch or path
    ├── Refused                     any other definite refusal; trying again is useless
    ├── FateUnknown                 it may or may not have happened: look before acting again
    └── BadDownload                 the body is not the file that was asked for
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langbatch.records import Problem


class LangBatchError(Exception):
    """Root of the tree. `code` is stable and for programs, `hint` says what to do next."""

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"Try: {hint}")  # a traceback shows it, too
        if code is not None:
            self.code = code


class SetupError(LangBatchError):
    """Credentials or configuration are missing or contradict each other."""

    code = "setup"


class BatchError(LangBatchError):
    """Root of LangBatch's own names."""

    code = "batch"


class BatchInitializationError(BatchError):
    """The data given cannot be made into a job."""

    code = "initialization"


class BatchValidationError(BatchError):
    """The input was refused before anything was sent; `problems` lists every fault found."""

    code = "input_invalid"

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems: list[Problem] = list(problems)


class BatchStateError(BatchError):
    """The job's present state does not allow this."""

    code = "state"


class JobNotFinished(BatchStateError):
    """Results were asked for before every request had one."""

    code = "not_finished"


class WaitTimeout(JobNotFinished, TimeoutError):
    """`wait` reached its timeout; the job goes on."""

    code = "timeout"


class NeedsOperator(BatchStateError):
    """A shard's truth cannot be found from here; the message holds the commands that settle it."""

    code = "needs_operator"


class JobNotFound(BatchError):
    """No job, or more than one, in this store answers to the given id."""

    code = "unknown_job"


class BatchStartError(BatchError):
    """The job could not be started."""

    code = "start"


class BatchStorageError(BatchError):
    """Disk or database did not do what was asked."""

    code = "storage"


class BatchResultsError(BatchError):
    """Results cannot be read, or would overwrite a file."""

    code = "results"


class UnfitAnswer(BatchResultsError):
    """An answer cannot be made into the type asked for. It is kept as it came, in `Result.text`.

    `code`: `not_succeeded`, `refusal`, `content_filter`, `truncated`, `no_text`, `not_json` or
    `does_not_fit`; `fields` are the paths that do not fit, dotted, never the values.
    """

    code = "does_not_fit"

    def __init__(
        self, message: str, *, fields: Sequence[str] = (), hint: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.fields: tuple[str, ...] = tuple(fields)


class ProviderError(LangBatchError):
    """A service's answer. `status` is the HTTP status, None where there was no answer.

    Messages come masked and cut (`langbatch.redaction`): they may be shown, logged and stored.
    """

    code = "provider"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status


class AccessRefused(ProviderError):
    """401 or 403, or no token could be had. Nothing happened remotely."""

    code = "access_refused"


class Unreachable(ProviderError):
    """No connection could be made, so the request never left. Nothing happened remotely."""

    code = "unreachable"


class Throttled(ProviderError):
    """429. Nothing happened remotely; `retry_after_seconds` is the service's own advice, if any."""

    code = "throttled"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        status: int | None = 429,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class QuotaFull(ProviderError):
    """`token_limit_exceeded` or `quotaExceeded`: room must free up first. Nothing happened remotely.

    `limit_tokens`: the deployment's quota, where the reply's headers named it."""

    code = "quota_full"

    def __init__(
        self,
        message: str,
        *,
        limit_tokens: int | None = None,
        status: int | None = None,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, hint=hint)
        self.limit_tokens = limit_tokens


class RemoteNotFound(ProviderError):
    """404. `code` tells a missing object (`notFound`) from a wrong path or api-version (`404`)."""

    code = "not_found"


class Refused(ProviderError):
    """Any other definite refusal (4xx): nothing happened, and the same call will be refused again."""

    code = "refused"


class FateUnknown(ProviderError):
    """Timeout, reset, 408, 409, 5xx, redirect or a garbled 2xx: it may or may not have happened.

    For calls that only read, this is plain trouble: try again later.
    """

    code = "fate_unknown"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        status: int | None = None,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class BadDownload(ProviderError):
    """The body is truncated, an HTML page, or not what the file's record promised. Nothing was kept."""

    code = "bad_download"
