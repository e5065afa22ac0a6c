"""Batch inference jobs on Azure OpenAI and OpenAI.

A file of requests goes in; exactly one result per request comes out, in input order, paid for once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langbatch.building.compose import Built, build_requests, write_requests
    from langbatch.compat.batches import OpenAIChatCompletionBatch, OpenAIEmbeddingBatch
    from langbatch.compat.dispatcher import BatchDispatcher
    from langbatch.compat.handler import BatchHandler
    from langbatch.error_codes import Explanation, FailureCount, explain, explanations
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
        UnfitAnswer,
        Unreachable,
        WaitTimeout,
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
    from langbatch.manager import JobManager
    from langbatch.money.prices import Price, PriceList
    from langbatch.progress import terminal_progress
    from langbatch.records import InputWarning, Problem, Progress
    from langbatch.requests.validation import Intake
    from langbatch.results.answers import Answer
    from langbatch.results.result import Result, ResultError
    from langbatch.shards.admission import Submission
    from langbatch.shards.preview import Preview
    from langbatch.status import JobStatus, ShardStatus
    from langbatch.store.glance import JobGlance, glance
    from langbatch.upkeep.cleanup import Cleanup
    from langbatch.upkeep.findings import Diagnosis, Finding
    from langbatch.upkeep.recovery import Recovery

# LangBatch's import paths (`langbatch.openai`, `langbatch.BatchHandler`, …) keep a folder of their own.
__path__.append(f"{__path__[0]}/compat/import_paths")

#: Where each public name lives. Modules are imported when a name is first used: `import langbatch`
#: costs nothing, and the command line answers before the SDK could even be loaded.
_HOMES = {
    "building.compose": ("Built", "build_requests", "write_requests"),
    "compat.batches": ("OpenAIChatCompletionBatch", "OpenAIEmbeddingBatch"),
    "compat.dispatcher": ("BatchDispatcher",),
    "compat.handler": ("BatchHandler",),
    "money.prices": ("Price", "PriceList"),
    "shards.admission": ("Submission",),
    "shards.preview": ("Preview",),
    "upkeep.cleanup": ("Cleanup",),
    "error_codes": ("Explanation", "FailureCount", "explain", "explanations"),
    "errors": (
        "AccessRefused", "BadDownload", "BatchError", "BatchInitializationError", "BatchResultsError",
        "BatchStartError", "BatchStateError", "BatchStorageError", "BatchValidationError", "FateUnknown",
        "JobNotFinished", "JobNotFound", "LangBatchError", "NeedsOperator", "ProviderError", "QuotaFull",
        "Refused", "RemoteNotFound", "SetupError", "Throttled", "UnfitAnswer",
        "Unreachable", "WaitTimeout",
    ),
    "upkeep.findings": ("Diagnosis", "Finding"),
    "handles": (
        "Batch", "ChatCompletionBatch", "CompletionBatch", "EmbeddingBatch", "ResponseBatch",
        "chat_completion_batch", "completion_batch", "embedding_batch", "response_batch",
    ),
    "manager": ("JobManager",),
    "progress": ("terminal_progress",),
    "records": ("InputWarning", "Problem", "Progress"),
    "upkeep.recovery": ("Recovery",),
    "requests.validation": ("Intake",),
    "results.answers": ("Answer",),
    "results.result": ("Result", "ResultError"),
    "status": ("JobStatus", "ShardStatus"),
    "store.glance": ("JobGlance", "glance"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessRefused",
    "Answer",
    "BadDownload",
    "Batch",
    "BatchDispatcher",
    "BatchError",
    "BatchHandler",
    "BatchInitializationError",
    "BatchResultsError",
    "BatchStartError",
    "BatchStateError",
    "BatchStorageError",
    "BatchValidationError",
    "Built",
    "ChatCompletionBatch",
    "Cleanup",
    "CompletionBatch",
    "Diagnosis",
    "EmbeddingBatch",
    "Explanation",
    "FailureCount",
    "FateUnknown",
    "Finding",
    "InputWarning",
    "Intake",
    "JobGlance",
    "JobManager",
    "JobNotFinished",
    "JobNotFound",
    "JobStatus",
    "LangBatchError",
    "NeedsOperator",
    "OpenAIChatCompletionBatch",
    "OpenAIEmbeddingBatch",
    "Preview",
    "Price",
    "PriceList",
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
    "UnfitAnswer",
    "Unreachable",
    "WaitTimeout",
    "build_requests",
    "chat_completion_batch",
    "completion_batch",
    "embedding_batch",
    "explain",
    "explanations",
    "glance",
    "response_batch",
    "terminal_progress",
    "write_requests",
]


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # LangBatch has modules and classes of one name. Importing `langbatch.Batch` as a module must not
        # turn the class `langbatch.Batch` into that module; sys.modules knows the module all the same.
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


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
