"""The await forms: what their namesakes do, without holding up the event loop, and let go at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from langbatch import (
    BatchStateError,
    ChatCompletionBatch,
    JobManager,
    JobNotFinished,
    Progress,
    WaitTimeout,
)
from langbatch.emulator import EmulatorConfig, RowError, RunningServer, Timing, running_server
from langbatch.errands import WORKERS
from support import requests_file

#: Longer than any test here takes, so that what waits for it waits for ever.
FOR_EVER = Timing("seconds", file_pending=0, validating=0, running=1e6, finalizing=0, cancelling=0)


def made(server: RunningServer, path: Path, *ids: str, **options: Any) -> ChatCompletionBatch:
    """A handle on requests with these ids, not started."""
    file = requests_file(path / f"{'-'.join(ids)[:40]}.jsonl", ids)
    return ChatCompletionBatch(file, azure_endpoint=server.azure_endpoint, api_key="any", **options)


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("langbatch_")]


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not reached():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(*tasks: asyncio.Task[Any]) -> AsyncIterator[None]:
    """The tasks are cancelled at the block's end, and what they raise is for nobody."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---------------------------------------------------------------- as their namesakes


def test_a_job_is_started_waited_for_and_read(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    batch = made(langbatch_emulator, tmp_path, *(f"r{number}" for number in range(200)))

    async def go() -> list[str]:
        await batch.start_async()
        status = await batch.wait_async()
        assert status.all_succeeded
        assert (await batch.status_async()).id == status.id
        return [f"{result.custom_id} {result.text}" async for result in batch.results_async()]

    assert asyncio.run(go()) == [f"{result.custom_id} {result.text}" for result in batch.results()]
    assert len(list(batch.results())) == 200


def test_requests_come_with_their_results(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    batch = made(langbatch_emulator, tmp_path, "a")

    async def go() -> list[Any]:
        await batch.start_async()
        await batch.wait_async()
        return [result.request async for result in batch.results_async(with_request=True)]

    assert [request["model"] for request in asyncio.run(go())] == ["dep"]


def test_what_failed_is_retried(home: Path, tmp_path: Path) -> None:
    def answer(_: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(500, "InternalServerError") if failing and custom_id == "b" else "yes"

    failing = True
    with running_server(config=EmulatorConfig.instant(answer=answer)) as server:
        batch = made(server, tmp_path, "a", "b")

        async def go() -> None:
            nonlocal failing
            await batch.start_async()
            assert not (await batch.wait_async()).all_succeeded
            failing = False
            await batch.retry_async()
            assert (await batch.wait_async()).all_succeeded
            assert [result.attempt async for result in batch.results_async()] == [1, 2]

        asyncio.run(go())
        assert server.emulator.payments().max_paid == 1


def test_a_job_is_cancelled(home: Path, tmp_path: Path) -> None:
    with running_server(config=EmulatorConfig(timing=FOR_EVER)) as server:
        batch = made(server, tmp_path, "a")

        async def go() -> str:
            await batch.start_async()
            assert await batch.cancel_async()
            return (await batch.wait_async()).state

        assert asyncio.run(go()) == "cancelled"


def test_errors_are_those_of_the_namesakes(home: Path, tmp_path: Path) -> None:
    with running_server(config=EmulatorConfig(timing=FOR_EVER)) as server:
        batch = made(server, tmp_path, "a")

        async def go() -> None:
            with pytest.raises(BatchStateError, match="not started"):
                await batch.wait_async()
            with pytest.raises(BatchStateError, match="not started"):
                await anext(batch.results_async())
            await batch.start_async()
            with pytest.raises(JobNotFinished):
                await anext(batch.results_async())
            with pytest.raises(WaitTimeout):
                await batch.wait_async(timeout=0.1)

        asyncio.run(go())
        assert batch.status().state == "running"


def test_progress_is_told_by_the_event_loop(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    batch = made(langbatch_emulator, tmp_path, "a", "b")
    told: list[tuple[str, int]] = []
    threads: set[int] = set()

    def progress(report: Progress) -> None:
        told.append((report.step, report.done))
        threads.add(threading.get_ident())

    async def go() -> None:
        await batch.start_async()
        await batch.wait_async(progress=progress)

    asyncio.run(go())
    assert told[-1] == ("wait", 2)
    assert {"download", "join"} <= {step for step, _ in told}
    assert threads == {threading.get_ident()}


# ---------------------------------------------------------------- many at once


def test_jobs_that_are_waited_for_hold_no_thread(home: Path, tmp_path: Path) -> None:
    """More jobs than there are threads wait for ever, and one more ends all the same."""
    looked = 0

    def progress(_: Progress) -> None:
        nonlocal looked
        looked += 1

    with (
        running_server(config=EmulatorConfig(timing=FOR_EVER)) as slow,
        running_server() as quick,
        JobManager() as manager,
    ):
        sleepers = [made(slow, tmp_path, f"s{n}", manager=manager) for n in range(WORKERS + 2)]
        last = made(quick, tmp_path, "last", manager=manager)

        async def go() -> None:
            await asyncio.gather(*(batch.start_async() for batch in (*sleepers, last)))
            tasks = [asyncio.create_task(batch.wait_async(progress=progress)) for batch in sleepers]
            async with running(*tasks):
                await until(lambda: looked >= len(sleepers))
                assert (await last.wait_async()).all_succeeded
                assert len(workers()) <= WORKERS
                assert not any(task.done() for task in tasks)

        asyncio.run(go())


def test_jobs_of_one_manager_and_of_many_end_together(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    async def go(batches: list[ChatCompletionBatch]) -> list[bool]:
        await asyncio.gather(*(batch.start_async() for batch in batches))
        return [status.all_succeeded for status in await asyncio.gather(*(b.wait_async() for b in batches))]

    with JobManager() as manager:
        shared = [made(langbatch_emulator, tmp_path, f"one{n}", manager=manager) for n in range(6)]
        own = [made(langbatch_emulator, tmp_path, f"many{n}") for n in range(6)]
        assert asyncio.run(go([*shared, *own])) == [True] * 12
    assert langbatch_emulator.emulator.payments().paid_twice == 0


def test_two_tasks_may_wait_for_one_job(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    batch = made(langbatch_emulator, tmp_path, "a")

    async def go() -> None:
        await batch.start_async()
        both = await asyncio.gather(batch.wait_async(), batch.wait_async())
        assert [status.state for status in both] == ["completed", "completed"]

    asyncio.run(go())
    assert langbatch_emulator.emulator.report()["counts"]["batches"] == 1


# ---------------------------------------------------------------- leaving


def test_a_cancelled_wait_leaves_the_job_to_whoever_waits_next(home: Path, tmp_path: Path) -> None:
    # Its batch ends when an hour of the emulator's has passed.
    hour = Timing("seconds", file_pending=0, validating=0, running=3600, finalizing=0, cancelling=0)
    looked = asyncio.Event()
    with running_server(config=EmulatorConfig(timing=hour)) as server:
        batch = made(server, tmp_path, "a")

        async def leave() -> None:
            await batch.start_async()
            task = asyncio.create_task(batch.wait_async(progress=lambda _: looked.set()))
            await looked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(leave())
        before = batch.status()
        assert (before.state, before.shards[0].batch_status) == ("running", "in_progress")
        server.emulator.advance(3600)
        assert ChatCompletionBatch.load(batch.id, api_key="any").wait().all_succeeded
        assert server.emulator.report()["counts"]["batches"] == 1


def test_who_leaves_during_a_create_leaves_at_once_and_the_batchs_id_is_kept(
    home: Path, tmp_path: Path
) -> None:
    """The batch exists, and the service takes its time to say so."""
    with running_server(config=EmulatorConfig.instant(faults=("create-delay=2",))) as server:
        batch = made(server, tmp_path, "a")

        async def go() -> None:
            task = asyncio.create_task(batch.start_async())
            await until(lambda: server.emulator.report()["counts"]["batches"] == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert batch.platform_batch_id is None  # the reply is still on its way
            await until(lambda: batch.platform_batch_id is not None)

        asyncio.run(go())
        batch.wait()
        assert server.emulator.report()["calls"].get("list", 0) == 0  # nothing had to be looked for
        assert server.emulator.payments().paid_twice == 0


def test_what_progress_raises_stops_an_upload_and_ends_the_wait(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    with JobManager() as manager:
        file = requests_file(tmp_path / "r.jsonl", [f"r{n}" for n in range(4000)])
        server = langbatch_emulator.azure_endpoint
        job = manager.submit(file, azure_endpoint=server, api_key="any", start=False)
        batch = ChatCompletionBatch.load(job.id, manager=manager)

        def progress(report: Progress) -> None:
            if report.step == "upload":
                raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            asyncio.run(batch.wait_async(progress=progress))
        assert manager.wait(job.id).all_succeeded
    assert langbatch_emulator.emulator.payments().paid_twice == 0


LEAVING = """
import asyncio, sys
from langbatch import ChatCompletionBatch, JobManager

manager = JobManager()
job = manager.submit(sys.argv[1], azure_endpoint=sys.argv[2], api_key="any", start=False, max_requests_per_shard=1)
batch = ChatCompletionBatch.load(job.id, manager=manager)

async def main():
    task = asyncio.create_task(batch.wait_async())
    while not batch.platform_batch_id:
        await asyncio.sleep(0.01)
    task.cancel()

asyncio.run(main())
"""


def test_a_program_that_leaves_ends_before_the_rest_is_sent(home: Path, tmp_path: Path) -> None:
    """Thirty shards, a quarter of a second each: the thread stops after the one that it is at."""
    file = requests_file(tmp_path / "r.jsonl", [f"r{n}" for n in range(30)])
    with running_server(config=EmulatorConfig(timing=FOR_EVER, faults=("upload-delay=0.25",))) as server:
        ran = subprocess.run(
            [sys.executable, "-c", LEAVING, file, server.azure_endpoint],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        counts = server.emulator.report()["counts"]
        assert 1 <= counts["batches"] <= counts["uploads"] < 15


FORKING = """
import asyncio, os, sys
from langbatch.errands import Errand

async def main():
    with Errand() as errand:
        return await errand.run(os.getpid)

assert asyncio.run(main()) == os.getpid()
child = os.fork()
if not child:
    os._exit(0 if asyncio.run(asyncio.wait_for(main(), 30)) == os.getpid() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], check=True, timeout=60)


# ---------------------------------------------------------------- results


def open_results() -> list[str]:
    """The joined files that this process holds open."""
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return [str(link.readlink()) for link in links if link.exists() and "/joined/" in str(link.readlink())]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed in /proc")
def test_results_that_are_left_half_way_close_their_file(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    batch = made(langbatch_emulator, tmp_path, *(f"r{number}" for number in range(500)))
    batch.start()
    batch.wait()

    async def closing() -> None:
        async with aclosing(batch.results_async()) as results:
            async for _ in results:
                assert len(open_results()) == 1
                break
        assert open_results() == []

    async def leaving() -> None:
        async for _ in batch.results_async():
            break

    async def cancelled() -> None:
        async def read() -> None:
            async for _ in batch.results_async():
                reading.set()

        reading = asyncio.Event()
        task = asyncio.create_task(read())
        await reading.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: open_results() == [])

    for way in (closing, leaving, cancelled):
        asyncio.run(way())
        assert open_results() == []


def test_the_event_loop_goes_on_while_results_are_read(
    langbatch_emulator: RunningServer, home: Path, tmp_path: Path
) -> None:
    batch = made(langbatch_emulator, tmp_path, *(f"r{number}" for number in range(1000)))
    batch.start()
    batch.wait()

    async def go() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with running(asyncio.create_task(count())):
            async for _ in batch.results_async():
                pass
        return turns

    assert asyncio.run(go()) > 10
