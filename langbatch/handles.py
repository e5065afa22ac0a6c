"""Handles on a job, in the form LangBatch's users know. All they do is done by `JobManager`."""

from __future__ import annotations

import itertools
import json
import logging
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from langbatch import ids
from langbatch.awaiting import AwaitForms
from langbatch.clock import SystemClock
from langbatch.config.resolving import reopen_target, resolve_target
from langbatch.errors import BatchInitializationError, BatchStateError, JobNotFound
from langbatch.manager import JobManager
from langbatch.outputs import Outputs
from langbatch.providers.sign_in import CREDENTIAL_ARGUMENTS
from langbatch.publish import private_folder, publishing
from langbatch.records import ENDPOINT_PATHS, EndpointKind, OnProgress
from langbatch.requests.validation import Intake, refusal

if TYPE_CHECKING:
    from langbatch.compat.storages import BatchStorage
    from langbatch.lifecycle import BatchWord
    from langbatch.providers.credentials import Credentials
    from langbatch.records import Target
    from langbatch.results.result import Result
    from langbatch.status import JobStatus

_log = logging.getLogger("langbatch")

#: HTTP statuses of rows that a later attempt may well answer; any 5xx counts too.
_PASSING_STATUSES = frozenset({0, 408, 409, 429})


class Batch(Outputs, AwaitForms):
    """A job made of one file of requests.

    Making a handle validates the whole file and resolves the target; nothing is sent or stored.
    Raises `BatchValidationError` with every problem, `SetupError` without endpoint or credentials,
    `TypeError` for an unknown argument.
    """

    kind: ClassVar[EndpointKind]
    default_provider: ClassVar[str] = "azure"
    #: The body's key that `create` puts each item under.
    item_key: ClassVar[str]

    def __init__(
        self,
        file: str | os.PathLike[str],
        provider: str | None = None,
        *,
        model: str | None = None,
        skip_invalid: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        manager: JobManager | None = None,
        **target: Any,
    ) -> None:
        self._manager = manager or JobManager()
        self._file: Path | None = Path(file)
        self._target, self._credentials = resolve_target(
            provider or self.default_provider, self.kind, model=model, **target
        )
        self.id = ids.new_job_id(SystemClock().now())
        self._stored = False
        self._skip_invalid, self._dedupe, self._cache = skip_invalid, dedupe, cache
        self._intake: Intake | None = self._manager.validate(
            self._file, self._target.provider, kind=self.kind, model=self._target.model
        )
        if self._intake.problems and not skip_invalid:
            raise refusal(self._intake)

    def __repr__(self) -> str:
        if not hasattr(self, "_stored"):  # an error reporter looks at one whose making failed
            return f"<{type(self).__name__}, not made>"
        started = "" if self._stored else ", not started"
        return f"<{type(self).__name__} {self.id} on {self._target.label}{started}>"

    # ------------------------------------------------------------ making

    @classmethod
    def create(
        cls,
        data: Iterable[Any],
        request_kwargs: Mapping[str, Any] | None = None,
        batch_kwargs: Mapping[str, Any] | None = None,
        *,
        custom_ids: Iterable[str] | None = None,
        response_format: Any = None,
        text_format: Any = None,
        **target: Any,
    ) -> Self:
        """A job with one request per item of `data` (messages, texts, inputs or prompts by kind), or a
        dict that is part of its body; `request_kwargs` goes into every body, `batch_kwargs` and the rest
        to the constructor. `custom_ids`: as many as items; `request-0`, `request-1`, … without.
        `response_format` or `text_format`, there or here: a pydantic model that answers shall fit."""
        if isinstance(data, (str, bytes, Mapping)):
            raise BatchInitializationError(
                f"data is one {type(data).__name__}, not a list of items", hint="give [data]"
            )
        common = dict(request_kwargs or {})
        wanted = text_format if response_format is None else response_format
        if wanted is not None or not common.keys().isdisjoint(("response_format", "text_format")):
            from langbatch.building.strict_schema import add_format, answer_format, with_answer_format

            common = with_answer_format(cls.kind, common)
            if wanted is not None:
                add_format(common, answer_format(cls.kind, wanted))
        names = (f"request-{number}" for number in itertools.count()) if custom_ids is None else custom_ids
        return cls.create_from_requests(
            (
                {
                    "custom_id": custom_id,
                    "method": "POST",
                    "url": "/v1" + ENDPOINT_PATHS[cls.kind],
                    "body": {**common, **(item if cls._is_part(item) else {cls.item_key: item})},
                }
                for item, custom_id in _named(data, names)
            ),
            batch_kwargs,
            **target,
        )

    @classmethod
    def _is_part(cls, item: Any) -> bool:
        """Whether an item of `create` names its own key, as LangBatch's documentation writes them."""
        return isinstance(item, Mapping) and cls.item_key in item

    @classmethod
    def create_from_requests(
        cls,
        requests: Iterable[Mapping[str, Any]],
        batch_kwargs: Mapping[str, Any] | None = None,
        **target: Any,
    ) -> Self:
        """A job from request objects (`custom_id`, `method`, `url`, `body`), streamed to a private file. A
        pydantic model under a body's `response_format` or `text_format` becomes its JSON schema."""
        from langbatch.building.strict_schema import requests_with_answer_formats

        arguments = {**dict(batch_kwargs or {}), **target}
        manager = arguments.pop("manager", None) or JobManager()
        folder = manager.home / "created"
        private_folder(manager.home)
        private_folder(folder)
        path = folder / f"{ids.new_job_id(SystemClock().now())}.jsonl"
        try:
            with publishing(path) as out:
                for request in requests_with_answer_formats(cls.kind, requests):
                    out.write(_line_of(request, left_out=bool(arguments.get("skip_invalid"))))
        except (TypeError, ValueError) as error:
            raise BatchInitializationError(
                f"a request cannot be written as JSON: {error}", hint="Use strings, numbers, lists and dicts."
            ) from error
        try:
            batch = cls(path, manager=manager, **arguments)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        # The snapshot taken by `start` is what counts; this copy goes with the handle.
        weakref.finalize(batch, path.unlink, missing_ok=True)
        return batch

    @classmethod
    def load(
        cls,
        id: str,  # noqa: A002 - LangBatch's word
        storage: BatchStorage | None = None,
        batch_kwargs: Mapping[str, Any] | None = None,
        *,
        manager: JobManager | None = None,
        **credentials: Any,
    ) -> Self:
        """The handle of a stored job, by its id or a unique prefix. Credentials come from the arguments,
        from `batch_kwargs`, or from the environment; the target's other settings come back with the job.

        A job that this store does not know is looked up in `storage`: one saved by LangBatch itself goes
        on as a job of ours."""
        arguments = dict(batch_kwargs or {})
        manager = manager or arguments.pop("manager", None) or JobManager()
        credentials = {**{k: v for k, v in arguments.items() if k in CREDENTIAL_ARGUMENTS}, **credentials}
        try:
            target = manager.target_of(id)
        except JobNotFound:
            if storage is None:
                raise
            from langbatch.compat.saved import open_saved

            return open_saved(cls, id, storage, manager, {**arguments, **credentials})
        chosen = cls if getattr(cls, "kind", None) == target.kind else _CLASSES[target.kind]
        batch = object.__new__(chosen)
        batch._manager, batch._target, batch._file, batch._intake = manager, target, None, None
        batch._stored, batch._skip_invalid, batch._dedupe, batch._cache = True, False, False, False
        batch.id = manager.status(id, offline=True).id
        if credentials:
            batch._credentials = reopen_target(target, **credentials)
            manager.use_credentials(batch.id, batch._credentials)
        return batch  # type: ignore[return-value]

    # ------------------------------------------------------------ running

    def start(
        self,
        *,
        new: bool = False,
        skip_invalid: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Keep a private snapshot, and send what fits now. On a job that was started before, this is a
        no-op that says so; `new` sends (and pays) again.

        `dedupe` and `cache` leave out what need not be sent; each request has its result all the same.
        `max_cost` and `max_tokens` limit what the job may use in all; given again, they replace what was
        given before, and the job goes on. See `JobManager.submit`."""
        if self._make_ready(
            new=new,
            skip_invalid=skip_invalid,
            dedupe=dedupe,
            cache=cache,
            max_cost=max_cost,
            max_tokens=max_tokens,
        ):
            self._manager.start(self.id)

    def _make_ready(
        self,
        *,
        new: bool = False,
        skip_invalid: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
    ) -> bool:
        """The part of `start` that sends nothing; whether there is something to start."""
        if self._stored and not new and (max_cost is not None or max_tokens is not None):
            self._manager.set_budget(self.id, max_cost=max_cost, max_tokens=max_tokens)
            return True
        if self._stored and not new:
            if self._manager.status(self.id, offline=True).state == "draft":
                return True
            _log.warning("job %s was started before; nothing was sent (new=True pays again)", self.id)
            return False
        if not self._store(
            new=new,
            skip_invalid=skip_invalid,
            dedupe=dedupe or self._dedupe,
            cache=cache or self._cache,
            max_cost=max_cost,
            max_tokens=max_tokens,
        ):
            _log.warning(
                "the same file on the same target is job %s; using it (new=True pays again)", self.id
            )
        return True

    def save(self, storage: BatchStorage | None = None) -> str:
        """Store the job as a draft without sending anything, and put a copy of its requests into `storage`
        where one is given; the job's id, for `load`."""
        if not self._stored:
            self._store(draft=True, dedupe=self._dedupe, cache=self._cache)
        if storage is not None:
            from langbatch.compat.saved import keep_in

            keep_in(storage, self, self._manager)
        return self.id

    def _store(
        self,
        *,
        new: bool = False,
        skip_invalid: bool = False,
        draft: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
    ) -> bool:
        if self._file is None:
            raise BatchStateError(
                "a loaded job has no input file any more", hint="Make a new handle from the file."
            )
        job_id = ids.new_job_id(SystemClock().now()) if self._stored else self.id
        submission = self._manager.store_job(
            self._file,
            self._target,
            skip_invalid=skip_invalid or self._skip_invalid,
            new=new,
            draft=draft,
            dedupe=dedupe,
            cache=cache,
            max_cost=max_cost,
            max_tokens=max_tokens,
            job_id=job_id,
        )
        for warning in submission.warnings:
            _log.warning(warning)
        self.id, self._stored = submission.id, True
        self._manager.use_credentials(self.id, self._credentials)
        return submission.created

    @property
    def platform_batch_id(self) -> str | None:
        """The provider's id of the first shard's batch, None before there is one; `status()` has all."""
        if not self._stored:
            return None
        shards = self._manager.status(self.id, offline=True).shards
        return shards[0].batch_id if shards else None

    def wait(self, timeout: float | None = None, progress: OnProgress | None = None) -> JobStatus:
        """Advance the job until every request has a result; a progress bar on a terminal.

        Ctrl-C leaves the job as it is: it goes on with the next `wait`, here or elsewhere. Raises as
        `JobManager.wait`.
        """
        self._require_stored()
        if progress is not None:
            return self._manager.wait(self.id, timeout, progress)
        from langbatch.progress import terminal_progress

        with terminal_progress() as bars:
            return self._manager.wait(self.id, timeout, bars)

    def status(self) -> JobStatus:
        """A snapshot with a fresh look at the service; of a handle never stored, a draft."""
        if self._stored:
            return self._manager.status(self.id)
        return self._manager.draft_status(self.id, self._target, self._intake)

    def get_status(self) -> BatchWord:
        """One of OpenAI's eight words. `completed` only once results can be read."""
        self._require_stored()
        status = self.status()
        if status.state == "draft":
            raise BatchStateError("this batch was saved, but not started", hint="Call start() first.")
        return status.status

    def cancel(self) -> bool:
        """Ask the service to stop. Finished rows are kept. False where the job had ended already."""
        self._require_stored()
        return self._manager.cancel(self.id)

    def retry(self, *, force: bool = False) -> None:
        """Send the requests without success again. Successes are kept."""
        self._require_stored()
        self._manager.retry(self.id, force=force)

    def is_retryable_failure(self) -> bool:
        """Whether the job has ended with requests that another attempt may well answer."""
        self._require_stored()
        if not self._manager.status(self.id, offline=True).finished:
            return False
        unknown = set()
        for failure in self._manager.failures(self.id):
            known = failure.explanation
            if failure.outcome != "errored" or (known and known.retry in ("by itself", "worth it")):
                return True
            if known is None:
                unknown.add(failure.code)
        # Services have more words than anybody has written down; then the row's status tells.
        return bool(unknown) and any(
            result.error is not None and result.error.code in unknown and _may_pass(result.status_code)
            for result in self.results()
        )

    def _require_stored(self) -> None:
        if not self._stored:
            raise BatchStateError("this batch was not started", hint="Call start() first.")

    # ------------------------------------------------------------ results

    def results(self, *, with_request: bool = False, partial: bool = False) -> Iterator[Result]:
        """One `Result` per request in input order, streamed. `partial`: those there are so far."""
        self._require_stored()
        return self._manager.results(self.id, with_request=with_request, partial=partial)

    def get_results(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """LangBatch's form: successful and unsuccessful as two lists of dicts, whole in memory."""
        from langbatch.results.result import langbatch_pairs

        self._require_stored()
        return langbatch_pairs(self.results())

    def get_results_file(self) -> Path:
        """The joined results as a JSONL file in the job's folder."""
        self._require_stored()
        return self._manager.results_file(self.id)

    def get_unsuccessful_requests(self) -> list[dict[str, Any]]:
        """The request objects that have no success, in input order."""
        self._require_stored()
        wanted = {item.ordinal for item in self._manager.unsuccessful(self.id)}
        snapshot = self._manager.snapshot(self.id)
        lines = enumerate(snapshot.lines(0, snapshot.total))
        return [json.loads(line) for ordinal, line in lines if ordinal in wanted]

    def get_requests_by_custom_ids(self, custom_ids: Iterable[str]) -> list[dict[str, Any]]:
        """The request objects with these ids, in input order; unknown ids are passed over."""
        wanted = set(custom_ids)
        if self._file is not None and not self._stored:
            return [request for request in _requests_in(self._file) if request.get("custom_id") in wanted]
        snapshot = self._manager.snapshot(self.id)
        found = []
        for first in range(0, snapshot.total, 10_000):
            count = min(10_000, snapshot.total - first)
            pairs = zip(snapshot.ids(first, count), snapshot.lines(first, count), strict=True)
            found += [json.loads(line) for custom_id, line in pairs if custom_id in wanted]
        return found

    _target: Target
    _credentials: Credentials


def _may_pass(status_code: int | None) -> bool:
    return status_code in _PASSING_STATUSES or (status_code is not None and status_code >= 500)


def _line_of(request: Mapping[str, Any], *, left_out: bool) -> bytes:
    """A request's line. Where faulty requests are `left_out`, one that JSON cannot hold becomes a line that
    validation refuses, so that the others go on without it."""
    try:
        return json.dumps(request, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        if not left_out:
            raise
        name = request.get("custom_id") if isinstance(request, Mapping) else None
        what = json.dumps(f"{name}: {error}")
        return f"{what} is no request\n".encode()


def _requests_in(file: Path) -> Iterator[dict[str, Any]]:
    """The request objects of a file that was validated; lines to be skipped as invalid are passed over."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                request = json.loads(line.decode("utf-8-sig"))
            except ValueError:
                continue
            if isinstance(request, dict):
                yield request


def _named(data: Iterable[Any], custom_ids: Iterable[str]) -> Iterator[tuple[Any, str]]:
    names = iter(custom_ids)
    for item in data:
        name = next(names, None)
        if name is None:
            raise BatchInitializationError(
                "there are more items than custom_ids", hint="Give each item an id of its own."
            )
        yield item, name


class ChatCompletionBatch(Batch):
    """A job of chat completions; `create` takes lists of messages."""

    kind = "chat_completions"
    item_key = "messages"


class EmbeddingBatch(Batch):
    """A job of embeddings; `create` takes texts."""

    kind = "embeddings"
    item_key = "input"


class ResponseBatch(Batch):
    """A job for `/responses`; `create` takes inputs."""

    kind = "responses"
    item_key = "input"


class CompletionBatch(Batch):
    """A job of legacy completions; `create` takes prompts."""

    kind = "completions"
    item_key = "prompt"


_CLASSES: dict[EndpointKind, type[Batch]] = {
    cls.kind: cls for cls in (ChatCompletionBatch, EmbeddingBatch, ResponseBatch, CompletionBatch)
}


def chat_completion_batch(
    file: str | os.PathLike[str], provider: str, *, model: str | None = None, **target: Any
) -> ChatCompletionBatch:
    """A handle for a file of chat completion requests; validates it, sends and stores nothing.

    `provider`: "azure" or "openai". `target`: `azure_endpoint`, `api_key`, `api_version`, … or
    `client=`; what is not given is taken from the environment. `skip_invalid`, `dedupe` and `cache` may be
    said here instead of at `start`.
    """
    return ChatCompletionBatch(file, provider, model=model, **target)


def embedding_batch(
    file: str | os.PathLike[str], provider: str, *, model: str | None = None, **target: Any
) -> EmbeddingBatch:
    """As `chat_completion_batch`, for embeddings."""
    return EmbeddingBatch(file, provider, model=model, **target)


def response_batch(
    file: str | os.PathLike[str], provider: str, *, model: str | None = None, **target: Any
) -> ResponseBatch:
    """As `chat_completion_batch`, for `/responses`."""
    return ResponseBatch(file, provider, model=model, **target)


def completion_batch(
    file: str | os.PathLike[str], provider: str, *, model: str | None = None, **target: Any
) -> CompletionBatch:
    """As `chat_completion_batch`, for legacy `/completions`."""
    return CompletionBatch(file, provider, model=model, **target)
