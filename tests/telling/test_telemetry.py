"""Metrics and traces of what is committed, through the user's own SDK."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from langbatch import JobManager
from langbatch.emulator import RowError
from langbatch.errors import ProviderError
from langbatch.store.store import JobStore
from langbatch.telling.telemetry import Telemetry
from langbatch.telling.teller import Teller
from support import SECRET_KEY, SECRET_PROMPT, World, requests_file, world

COMMON = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "azure.ai.openai",
    "gen_ai.request.model": "dep",
    "server.address": "res.openai.azure.com",
    "server.port": 443,
}


@dataclass
class Kept:
    """What an SDK of this process was given."""

    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.meters = MeterProvider([self.reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == "langbatch"
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def numbers(self, name: str, by: str) -> dict[Any, int | float]:
        found: Counter[Any] = Counter()
        for point in self.points(name):
            assert isinstance(point, NumberDataPoint)
            found[(point.attributes or {}).get(by)] += point.value  # type: ignore[assignment]
        return dict(found)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """An SDK that the program has set for all. A program can do that once, a test more often."""
    made = Kept()
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: made.meters)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made.tracers)
    yield made
    made.meters.shutdown()
    made.tracers.shutdown()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def run_a_job(here: World, folder: Path, *ids: str, **options: Any) -> str:
    with JobManager(here.home, clock=here.clock, telemetry=True) as manager:
        arguments = {**here.azure, **options}
        job = manager.submit(requests_file(folder / f"{ids[0]}.jsonl", ids), **arguments)
        manager.wait(job.id)
        return job.id


def test_what_a_job_did_is_counted(here: World, tmp_path: Path, kept: Kept) -> None:
    with JobManager(here.home, clock=here.clock, telemetry=True) as manager:
        job_id = run_a_job(here, tmp_path, "a", "b", "c", max_requests_per_shard=2)
        status = manager.status(job_id, offline=True)
        assert kept.numbers("langbatch.shards", "langbatch.shard.state") == {"done": 2}
    assert kept.numbers("langbatch.requests", "langbatch.outcome") == {"succeeded": 3}
    assert kept.numbers("langbatch.batches", "gen_ai.request.model") == {"dep": 2}
    assert kept.numbers("langbatch.jobs", "langbatch.job.state") == {"completed": 1}
    tokens = "gen_ai.client.inference.usage."
    assert kept.numbers(f"{tokens}input_tokens", "gen_ai.token.modality") == {
        "unknown": status.usage.input_tokens
    }
    assert kept.numbers(f"{tokens}output_tokens", "gen_ai.token.modality") == {
        "unknown": status.usage.output_tokens
    }
    (point,) = kept.points("langbatch.batch.duration")
    assert isinstance(point, HistogramDataPoint)
    assert point.count == 2
    assert 0 < point.sum < 120
    assert dict(point.attributes or {}) == {**COMMON, "langbatch.batch.status": "completed"}


def test_polls_and_other_calls_are_counted_with_their_errors(here: World, tmp_path: Path, kept: Kept) -> None:
    here.emulator.add_faults("poll-500@1")
    run_a_job(here, tmp_path, "a")
    calls = {
        (point.attributes["langbatch.call"], point.attributes.get("error.type")): point.value
        for point in kept.points("langbatch.calls")
    }
    assert calls["create_batch", None] == calls["upload", None] == 1
    assert calls["get_batch", "internalFailure"] == 1
    assert calls["get_batch", None] >= 2
    assert sum(calls.values()) == sum(here.emulator.report()["calls"].values())


def test_shards_are_counted_while_their_batches_run(here: World, tmp_path: Path, kept: Kept) -> None:
    with JobManager(here.home, clock=here.clock, telemetry=True) as manager:
        manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        assert kept.numbers("langbatch.shards", "langbatch.shard.state") == {"active": 1}


@pytest.mark.parametrize("where", ["create", "validation"])
def test_a_full_quota_is_counted_once_for_each_wait(where: str, tmp_path: Path, kept: Kept) -> None:
    with world(tmp_path, enqueued_token_limit=200, token_limit_at=where) as here:
        run_a_job(here, tmp_path, *(f"r{n}" for n in range(6)), max_requests_per_shard=1)
        with here.manager() as manager:
            waits = [e for e in manager.events() if e.move in ("quota_wait", "quota_bounced")]
    assert waits
    assert kept.numbers("langbatch.quota.waits", "gen_ai.request.model") == {"dep": len(waits)}


def test_a_job_is_a_trace_with_its_attempts_real_times(here: World, tmp_path: Path, kept: Kept) -> None:
    job_id = run_a_job(here, tmp_path, "a", "b", "c", max_requests_per_shard=2)
    (root,) = kept.spans("langbatch.job")
    attempts = kept.spans("langbatch.attempt")
    with here.manager() as manager:
        told = list(manager.events(job_id))
    assert len(attempts) == 2
    assert (root.parent, root.kind, root.status.status_code) == (None, SpanKind.INTERNAL, StatusCode.UNSET)
    assert {span.parent.span_id for span in attempts if span.parent} == {root.context.span_id}
    assert {span.context.trace_id for span in attempts} == {root.context.trace_id}
    assert root.start_time == int(told[0].at * 1e9)
    assert root.end_time == int(told[-1].at * 1e9)
    for span in attempts:
        assert span.attributes is not None
        mine = [e for e in told if (e.shard, e.attempt) == (span.attributes["langbatch.shard"], 1)]
        assert span.kind is SpanKind.CLIENT
        assert [(e.name, e.timestamp) for e in span.events] == [(e.move, int(e.at * 1e9)) for e in mine]
        assert span.start_time == int(mine[0].at * 1e9)
        assert span.end_time == int(mine[-1].at * 1e9)
        assert COMMON.items() <= dict(span.attributes).items()
    assert root.attributes is not None
    assert root.attributes["langbatch.job.succeeded"] == 3
    tokens: list[Any] = [(span.attributes or {})["gen_ai.usage.input_tokens"] for span in attempts]
    assert root.attributes["gen_ai.usage.input_tokens"] == sum(tokens)


def test_a_retry_is_a_trace_of_its_own(tmp_path: Path, kept: Kept) -> None:
    broken = {"bad"}

    def answer(_: object, custom_id: str) -> str | RowError:
        return RowError(500, "InternalServerError", "no") if custom_id in broken else "well"

    with world(tmp_path, answer=answer) as here:
        job_id = run_a_job(here, tmp_path, "a", "bad")
        broken.clear()
        here.clock.sleep(3600)
        with JobManager(here.home, clock=here.clock, telemetry=True) as manager:
            manager.retry(job_id)
            manager.wait(job_id)
    first, second = kept.spans("langbatch.job")
    assert first.context.trace_id != second.context.trace_id
    assert second.start_time is not None
    assert first.end_time is not None
    assert second.start_time >= first.end_time + 3600 * 10**9
    numbers = [
        (span.context.trace_id, (span.attributes or {})["langbatch.attempt"])
        for span in kept.spans("langbatch.attempt")
    ]
    assert numbers == [(first.context.trace_id, 1), (second.context.trace_id, 2)]
    assert kept.numbers("langbatch.requests", "langbatch.outcome") == {"succeeded": 2, "errored": 1}


def test_a_refused_attempt_is_an_error_of_the_services_kind(here: World, tmp_path: Path, kept: Kept) -> None:
    here.emulator.add_faults("batch-fail=model_not_found@1")
    run_a_job(here, tmp_path, "a")
    (root,), (attempt,) = kept.spans("langbatch.job"), kept.spans("langbatch.attempt")
    assert root.status.status_code is attempt.status.status_code is StatusCode.ERROR
    assert (attempt.attributes or {})["error.type"] == "model_not_found"


def test_of_processes_at_once_one_counts_each_event(here: World, tmp_path: Path, kept: Kept) -> None:
    run_a_job(here, tmp_path, "a")
    run_a_job(here, tmp_path, "b")
    with JobManager(here.home, clock=here.clock, telemetry=True) as manager:
        manager.advance()
    assert kept.numbers("langbatch.jobs", "langbatch.job.state") == {"completed": 2}
    assert len(kept.spans("langbatch.job")) == 2


def test_providers_may_be_given(here: World, tmp_path: Path) -> None:
    own = Kept()
    with here.manager() as manager:
        here.home.mkdir()
        store = JobStore.open(here.home, clock=here.clock)
        teller = Teller(store, here.clock, [], telemetry=Telemetry(store, own.tracers, own.meters))
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        manager.wait(job.id)
    teller.tell()
    store.close()
    assert len(own.spans("langbatch.job")) == 1
    assert own.numbers("langbatch.jobs", "langbatch.job.state") == {"completed": 1}


def test_no_measurement_holds_a_prompt_or_a_key(here: World, tmp_path: Path, kept: Kept) -> None:
    run_a_job(here, tmp_path, "a")
    data = kept.reader.get_metrics_data()
    told = "".join(span.to_json() for span in kept.exporter.get_finished_spans())
    told += "" if data is None else data.to_json()
    assert "langbatch.requests" in told
    assert SECRET_KEY not in told
    assert SECRET_PROMPT not in told


def test_without_the_api_the_extra_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from langbatch import JobManager, SetupError\n"
        f"manager = JobManager({str(tmp_path)!r}, telemetry=True)\n"
        "try: manager.jobs()\n"
        "except SetupError as error: print(error.hint)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == 'pip install "langbatch-manager[otel]"\n'


def test_an_error_of_the_service_is_passed_on_as_it_came(here: World, tmp_path: Path, kept: Kept) -> None:
    here.emulator.add_faults("upload-401-key@1")
    with JobManager(here.home, clock=here.clock, telemetry=True) as manager:
        with pytest.raises(ProviderError):
            manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
    assert kept.numbers("langbatch.calls", "error.type") == {"401": 1}
