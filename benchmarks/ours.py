"""One measurement of langbatch, in a process of its own: `python ours.py WORK ARGUMENT…`."""

from __future__ import annotations

import sys
from pathlib import Path

from data import LINE_BYTES, SHARD_LINES
from stopwatch import stopwatch


def validate(source: str, home: str) -> None:
    import pydantic_core  # noqa: F401 - as below

    from langbatch import Intake, JobManager

    assert Intake  # the import is no part of the work
    manager = JobManager(home=home)
    with stopwatch() as facts:
        facts["total"] = manager.validate(source).total


def copy_privately(source: str, folder: str) -> None:
    """The snapshot that joining needs, as `submit` writes it: read, judged, copied and on disk."""
    from langbatch.providers import limits_for
    from langbatch.records import Target
    from langbatch.requests.validation import Rules, read_requests
    from langbatch.shards.snapshot import SnapshotWriter

    rules = Rules("chat_completions", "azure", limits_for(Target("azure", "", "chat_completions", None)))
    with stopwatch() as facts, SnapshotWriter(Path(folder)) as writer:
        facts["total"] = read_requests(Path(source), rules, into=writer).total


def join(folder: str, output: str, error: str, out: str) -> None:
    """Every shard's records, on disk. The files' names have `{}` for the shard's number."""
    import langbatch.pool  # noqa: F401 - the import is no part of the work; that of its processes is
    from langbatch.publish import publishing
    from langbatch.results.join import AttemptPieces, Piece, Verdict, join_shard
    from langbatch.shards.snapshot import Snapshot

    for old in Path(out).parent.glob(f"{Path(out).name}.*"):
        old.unlink()  # else the time of deleting it is part of the work
    with stopwatch() as facts:
        snapshot = Snapshot(Path(folder))
        for index, first in enumerate(range(0, snapshot.total, SHARD_LINES)):
            count = min(SHARD_LINES, snapshot.total - first)
            pieces = (
                Piece(1, Path(output.format(index)), "output"),
                Piece(1, Path(error.format(index)), "error"),
            )
            verdict = Verdict(1, "missing", "missing", "the service's files say nothing about it")
            with (
                publishing(Path(f"{out}.{index}")) as records,
                publishing(Path(f"{out}.{index}.quarantine")) as aside,
            ):
                report = join_shard(
                    snapshot.ids(first, count),
                    snapshot.line_numbers(first, count),
                    first,
                    [AttemptPieces(1, pieces, verdict)],
                    records,
                    aside,
                )
            assert report.tally.missing == 0, report.tally
            assert report.tally.total == count
        facts["total"] = snapshot.total


def retry(home: str, job: str) -> None:
    from langbatch import ChatCompletionBatch, JobManager

    manager = JobManager(home=home)
    batch = ChatCompletionBatch.load(job, manager=manager, api_key="any")
    with stopwatch() as facts:
        facts["records"] = len(batch.get_unsuccessful_requests())


def transfer(source: str, endpoint: str, out: str) -> None:
    """Up, and down again, the same file."""
    from langbatch.config.resolving import resolve_target
    from langbatch.providers import open_provider

    target, credentials = resolve_target("azure", "chat_completions", azure_endpoint=endpoint, api_key="any")
    service = open_provider(target, credentials)
    size = Path(source).stat().st_size
    with stopwatch() as facts:
        with open(source, "rb") as stream:
            file = service.upload("input.jsonl", stream, size)
        with open(out, "wb") as sink:
            facts["bytes"] = service.download(file.id, sink)
    service.close()


def run_job(source: str, endpoint: str, home: str) -> None:
    """Everything: validate, copy, upload, create, wait, download, join. Prints the job's id, too."""
    from langbatch import JobManager

    manager = JobManager(home=home)
    with stopwatch() as facts:
        job = manager.submit(source, provider="azure", azure_endpoint=endpoint, api_key="any")
        status = manager.wait(job.id)
        facts["job"] = job.id
        facts["records"] = status.counts.errored


def store_jobs(home: str, count: str) -> None:
    """Many small jobs, stored and not sent: for the measurement of `status`."""
    from langbatch import JobManager

    manager = JobManager(home=home)
    source = Path(home) / "one.jsonl"
    for number in range(int(count)):
        source.write_text(
            f'{{"custom_id": "r{number}", "method": "POST", "url": "/chat/completions", "body": '
            '{"model": "any", "messages": [{"role": "user", "content": "Hello"}]}}\n'
        )
        manager.submit(
            source,
            provider="azure",
            azure_endpoint="https://example.openai.azure.com",
            api_key="any",
            start=False,
        )


def store_large_job(home: str, requests: str, failures_percent: str) -> None:
    """What the database keeps of one finished job of this many requests, some without success."""
    from langbatch.records import Tally, Target, Unsuccessful, Usage
    from langbatch.shards.sharding import ShardPlan
    from langbatch.store.new_jobs import NewJob
    from langbatch.store.store import JobStore

    Path(home).mkdir(mode=0o700)
    total, size = int(requests), SHARD_LINES
    plans = [
        ShardPlan(index, first, size, first * LINE_BYTES, size * LINE_BYTES)
        for index, first in enumerate(range(0, total, size))
    ]
    store = JobStore.open(Path(home))
    with stopwatch() as facts:
        target = Target("azure", "example.openai.azure.com", "chat_completions", "any", {"api_version": "v1"})
        firsts = [plan.first + 1 for plan in plans]
        new = NewJob("job_large", None, "in.jsonl", target, "0" * 64, "0" * 64, "k", total, 0, plans, firsts)
        job, _ = store.add_job(new)
        failed = size * int(failures_percent) // 100
        for plan in plans:
            claim = store.claim(job.key, plan.index)
            assert claim is not None
            places = range(plan.first, plan.first + size, size // failed)
            rows = [Unsuccessful(place, place + 1, "errored", "content_filter", 1) for place in places]
            store.finish(
                claim,
                "waiting",
                "cancelled_unsent",
                shard={"ended_as": "harvested"},
                attempt={},
                tally=Tally(succeeded=size - failed, errored=failed),
                usage=Usage(1, 1, 1, 1),
                rows_without_success=rows,
            )
        store.close()
        facts["bytes"] = sum(path.stat().st_size for path in Path(home).glob("langbatch.db*"))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
