"""Batch inference jobs on Azure OpenAI and OpenAI.

A file of requests goes in; exactly one result per request comes out, in input order, paid for once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langbatch.errors import (
        AccessRefused,
        BadDownload,
        BatchError,
        BatchInitializationError,
        BatchResultsError,
        BatchStartError,
        BatchStateError,
        BatchStorageError,
        BatchValidationError,
        FateUnknown,
        JobNotFinished,
        JobNotFound,
        LangBatchError,
        NeedsOperator,
        ProviderError,
        QuotaFull,
        Refused,
        RemoteNotFound,
        SetupError,
        Throttled,
        Unreachable,
    )
    from langbatch.handles import (
        Batch,
        ChatCompletionBatch,
        CompletionBatch,
        EmbeddingBatch,
        ResponseBatch,
        chat_completion_batch,
        completion_batch,
        embedding_batch,
        response_batch,
    )
    from langbatch.manager import JobManager, WaitTimeout
    from langbatch.progress import terminal_progress
    from langbatch.records import InputWarning, Problem, Progress
    from langbatch.requests.validation import Intake
    from langbatch.results.result import Result, ResultError
    from langbatch.shards.admission import Submission
    from langbatch.status import JobStatus, ShardStatus
    from langbatch.upkeep.cleanup import Cleanup
    from langbatch.upkeep.findings import Diagnosis, Finding
    from langbatch.upkeep.recovery import Recovery

#: Where each public name lives. Modules are imported when a name is first used: `import langbatch`
#: costs nothing, and the command line answers before the SDK could even be loaded.
_HOMES = {
    "shards.admission": ("Submission",),
    "upkeep.cleanup": ("Cleanup",),
    "errors": (
        "AccessRefused", "BadDownload", "BatchError", "BatchInitializationError", "BatchResultsError",
        "BatchStartError", "BatchStateError", "BatchStorageError", "BatchValidationError", "FateUnknown",
        "JobNotFinished", "JobNotFound", "LangBatchError", "NeedsOperator", "ProviderError", "QuotaFull",
        "Refused", "RemoteNotFound", "SetupError", "Throttled", "Unreachable",
    ),
    "upkeep.findings": ("Diagnosis", "Finding"),
    "handles": (
        "Batch", "ChatCompletionBatch", "CompletionBatch", "EmbeddingBatch", "ResponseBatch",
        "chat_completion_batch", "completion_batch", "embedding_batch", "response_batch",
    ),
    "manager": ("JobManager", "WaitTimeout"),
    "progress": ("terminal_progress",),
    "records": ("InputWarning", "Problem", "Progress"),
    "upkeep.recovery": ("Recovery",),
    "requests.validation": ("Intake",),
    "results.result": ("Result", "ResultError"),
    "status": ("JobStatus", "ShardStatus"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessRefused",
    "BadDownload",
    "Batch",
    "BatchError",
    "BatchInitializationError",
    "BatchResultsError",
    "BatchStartError",
    "BatchStateError",
    "BatchStorageError",
    "BatchValidationError",
    "ChatCompletionBatch",
    "Cleanup",
    "CompletionBatch",
    "Diagnosis",
    "EmbeddingBatch",
    "FateUnknown",
    "Finding",
    "InputWarning",
    "Intake",
    "JobManager",
    "JobNotFinished",
    "JobNotFound",
    "JobStatus",
    "LangBatchError",
    "NeedsOperator",
    "Problem",
    "Progress",
    "ProviderError",
    "QuotaFull",
    "Recovery",
    "Refused",
    "RemoteNotFound",
    "ResponseBatch",
    "Result",
    "ResultError",
    "SetupError",
    "ShardStatus",
    "Submission",
    "Throttled",
    "Unreachable",
    "WaitTimeout",
    "chat_completion_batch",
    "completion_batch",
    "embedding_batch",
    "response_batch",
    "terminal_progress",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("langbatch-manager")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'langbatch' has no attribute {name!r}")
    value = getattr(import_module(f"langbatch.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
