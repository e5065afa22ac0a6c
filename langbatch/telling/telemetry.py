"""Events as OpenTelemetry's metrics and traces, through its API alone: SDK and exporters are the user's.

Names follow the semantic conventions for generative AI where there are any (in development:
https://github.com/open-telemetry/semantic-conventions-genai); all others begin with `langbatch.`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args
from weakref import WeakKeyDictionary, WeakSet

from langbatch.errors import JobNotFound, LangBatchError
from langbatch.events import BatchCreated, BatchEnded, Event, JobFinished, QuotaWait, ShardFinished
from langbatch.extras import require_extra
from langbatch.providers.error_table import Verb
from langbatch.records import OUTCOMES, Attempt, EndpointKind, Job
from langbatch.store import following

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

    from langbatch.providers.base import Provider
    from langbatch.store.store import JobStore

_R = TypeVar("_R")
Attributes = dict[str, str | int]

_SCOPE: Final = "langbatch"
_OPERATIONS: Final[Mapping[EndpointKind, str]] = {
    "chat_completions": "chat",
    "responses": "chat",
    "embeddings": "embeddings",
    "completions": "text_completion",
}
_PROVIDERS: Final = {"azure": "azure.ai.openai", "openai": "openai"}
#: A batch takes from seconds, on the emulator, to a day.
_DURATIONS: Final = [1, 10, 60, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 64_800, 86_400]
#: Why an attempt that brought results is no error.
_FINE: Final = "harvested"


class Telemetry:
    """A consumer of one store's events. Of several processes, one counts each event.

    Without providers of its own it uses those that the program has set for all. `SetupError` where the API is
    not installed."""

    name = "opentelemetry"
    one_by_one = False
    described = "OpenTelemetry"

    def __init__(
        self,
        store: JobStore,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        trace = require_extra("opentelemetry.trace", "otel", "metrics and traces")
        metrics = require_extra("opentelemetry.metrics", "otel", "metrics and traces")
        self._store = store
        self._trace = trace
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter_provider = meter_provider or metrics.get_meter_provider()
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._requests = meter.create_counter(
            "langbatch.requests", "{request}", "Requests that ended, by what this attempt brought them"
        )
        self._batches = meter.create_counter("langbatch.batches", "{batch}", "Batches created or found")
        self._jobs = meter.create_counter("langbatch.jobs", "{job}", "Jobs that finished")
        self._quota_waits = meter.create_counter(
            "langbatch.quota.waits", "{wait}", "Shards that began to wait for token quota, or were sent back"
        )
        self._input_tokens = meter.create_counter(
            "gen_ai.client.inference.usage.input_tokens", "{token}", "Input tokens that rows report"
        )
        self._output_tokens = meter.create_counter(
            "gen_ai.client.inference.usage.output_tokens", "{token}", "Output tokens that rows report"
        )
        self._seconds = meter.create_histogram(
            "langbatch.batch.duration",
            "s",
            "From the create to the batch's end, as seen from here",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self._calls = meter.create_counter(
            "langbatch.calls", "{call}", "Calls to the service; those of get_batch and list_batches are polls"
        )
        meter.create_observable_gauge(
            "langbatch.shards",
            [_counted_shards(_watch(store, meter_provider), metrics.Observation)],
            "{shard}",
            "Shards of all jobs by state; active ones have a batch that runs",
        )

    # ------------------------------------------------------------ events

    def take(self, events: Sequence[Event]) -> None:
        """Count these events, and trace the jobs that finished with one of them."""
        for event in events:
            try:
                self._count(event)
                if isinstance(event, JobFinished):
                    self._trace_job(event)
            except JobNotFound:
                pass  # purged since the event was read

    def _count(self, event: Event) -> None:
        match event:
            case ShardFinished():
                about = self._about(event)
                for outcome in OUTCOMES:
                    if number := getattr(event.counts, outcome):
                        self._requests.add(number, {**about, "langbatch.outcome": outcome})
                # The service does not tell text from other tokens.
                of_tokens = {**about, "gen_ai.token.modality": "unknown"}
                if event.input_tokens is not None:
                    self._input_tokens.add(event.input_tokens, of_tokens)
                if event.output_tokens is not None:
                    self._output_tokens.add(event.output_tokens, of_tokens)
            case BatchCreated():
                self._batches.add(1, self._about(event))
            case BatchEnded():
                about = {**self._about(event), "langbatch.batch.status": event.status or "unknown"}
                if event.seconds is not None:
                    self._seconds.record(event.seconds, about)
                if event.move == "quota_bounced":
                    self._quota_waits.add(1, self._about(event))
            case QuotaWait():
                self._quota_waits.add(1, self._about(event))
            case JobFinished():
                about = {**self._about(event), "langbatch.job.state": event.to or ""}
                self._jobs.add(1, about)

    def _about(self, event: Event) -> Attributes:
        job = self._store.find(event.job)
        attempt = None
        if event.shard is not None and event.attempt is not None:
            attempt = following.attempt(self._store, job.key, event.shard, event.attempt)
        return about(job, attempt, following.model_of(self._store, job.key, event.shard))

    # ------------------------------------------------------------ traces

    def _trace_job(self, event: JobFinished) -> None:
        """The job's span with one for each attempt, from the times that are stored. Made at the end, because
        a span has one maker, and a job may have had many processes."""
        job = self._store.find(event.job)
        course = following.course(self._store, job.key, event.n)
        trace = self._trace
        root = self._tracer.start_span(
            "langbatch.job",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            kind=trace.SpanKind.INTERNAL,
            attributes={
                **self._about(event),
                "langbatch.job.id": job.id,
                "langbatch.job.state": event.to or "",
                "langbatch.job.requests": event.requests,
                **{f"langbatch.job.{name}": getattr(event.counts, name) for name in OUTCOMES},
                **_usage(event),
            },
            start_time=_nanos(course.began_at),
        )
        inside = trace.set_span_in_context(root)
        for attempt, model in course.attempts:
            told = [e for e in course.events if (e.shard, e.attempt) == (attempt.shard, attempt.number)]
            self._trace_attempt(job, attempt, model, told, inside)
        if event.to == "failed":
            self._fail(root, "job_failed")
        root.end(_nanos(event.at))

    def _trace_attempt(
        self, job: Job, attempt: Attempt, model: str | None, told: Sequence[Event], inside: Any
    ) -> None:
        finished = next((event for event in told if isinstance(event, ShardFinished)), None)
        span = self._tracer.start_span(
            "langbatch.attempt",
            context=inside,
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                **about(job, attempt, model),
                "langbatch.job.id": job.id,
                "langbatch.shard": attempt.shard,
                "langbatch.attempt": attempt.number,
                "langbatch.attempt.requests": attempt.requests,
                **({"langbatch.batch.id": attempt.batch_id} if attempt.batch_id else {}),
                **({"langbatch.batch.status": attempt.batch_status} if attempt.batch_status else {}),
                **({} if finished is None else _usage(finished)),
            },
            start_time=_nanos(attempt.opened_at),
        )
        for event in told:
            attributes = {} if event.note is None else {"langbatch.note": event.note}
            span.add_event(event.move, attributes, _nanos(event.at))
        if attempt.ended_as != _FINE or attempt.batch_status == "failed":
            self._fail(span, attempt.fault_code or attempt.ended_as or "unfinished")
        span.end(_nanos(attempt.ended_at or max((event.at for event in told), default=attempt.opened_at)))

    def _fail(self, span: Any, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.StatusCode.ERROR, kind)

    # ------------------------------------------------------------ calls

    def counted(self, provider: Provider, job: Job, place: int) -> Provider:
        """The provider, whose calls are counted from now on."""
        target = about(job, model=following.model_of(self._store, job.key, None), place=place)

        def count(verb: str, error_type: str | None) -> None:
            failed = {} if error_type is None else {"error.type": error_type}
            self._calls.add(1, {**target, "langbatch.call": verb, **failed})

        return cast("Provider", _Counted(provider, count))


class _Counted:
    """A provider whose verbs are told of; everything else about it is its own."""

    def __init__(self, provider: Provider, count: Callable[[str, str | None], None]) -> None:
        self._provider = provider
        self._count = count

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._provider, name)
        return self._told(name, value) if name in _VERBS else value

    def _told(self, verb: str, call: Callable[..., _R]) -> Callable[..., _R]:
        def told(*arguments: Any, **named: Any) -> _R:
            try:
                answer = call(*arguments, **named)
            except LangBatchError as error:
                self._count(verb, error.code)
                raise
            self._count(verb, None)
            return answer

        return told


_VERBS: Final[frozenset[str]] = frozenset(get_args(Verb))


def about(
    job: Job, attempt: Attempt | None = None, model: str | None = None, *, place: int = 0
) -> Attributes:
    """What is said of every measurement: where it was sent. `model` is the one that the lines name."""
    target = job.targets[place if attempt is None else attempt.target]
    name, _, port = target.host.rpartition(":")
    if not port.isdigit() or name.endswith(":"):
        name, port = target.host, ""
    attributes: Attributes = {
        "gen_ai.operation.name": _OPERATIONS[target.kind],
        "gen_ai.provider.name": _PROVIDERS.get(target.provider, target.provider),
        "server.address": name.strip("[]"),
        "server.port": int(port) if port else 443,
    }
    if named := target.model or model:
        attributes["gen_ai.request.model"] = named
    return attributes


def _usage(event: JobFinished | ShardFinished) -> Attributes:
    told = {
        "gen_ai.usage.input_tokens": event.input_tokens,
        "gen_ai.usage.output_tokens": event.output_tokens,
    }
    return {name: number for name, number in told.items() if number is not None}


def _nanos(at: float) -> int:
    return int(at * 1_000_000_000)


#: The open stores whose shards are counted, by the provider that asks. An instrument is made once in a
#: program, whatever number of managers it has.
_WATCHED: WeakKeyDictionary[object, WeakSet[JobStore]] = WeakKeyDictionary()


def _watch(store: JobStore, provider: object) -> WeakSet[JobStore]:
    watched = _WATCHED.setdefault(provider, WeakSet())
    watched.add(store)
    return watched


def _counted_shards(
    watched: WeakSet[JobStore], observation: Callable[..., Observation]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        counts: Counter[str] = Counter()
        for store in {store.store_id: store for store in watched}.values():
            with suppress(LangBatchError):
                counts.update(following.shards_by_state(store))
        return [observation(number, {"langbatch.shard.state": state}) for state, number in counts.items()]

    return observe
