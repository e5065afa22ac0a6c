"""What `watch` shows, as lines: no terminal, no clock, no store."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from job_statuses import NOON, a_job, a_shard
from langbatch import JobStatus, Progress, ShardStatus
from langbatch.status import Counts, UsageSums
from langbatch_cli.live import LiveView
from langbatch_cli.pace import Pace
from langbatch_cli.render import Line, cells
from langbatch_cli.view import Scene, Window, view_lines, waits_for

STATES = ("done", "harvesting", "active", "uncertain", "uploaded", "waiting", "needs_operator")


def drawn(scene: Scene, width: int = 80, height: int = 24) -> list[str]:
    return text(view_lines(scene, Window(width, height)))


def text(lines: Sequence[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines]


def many_shards(count: int) -> tuple[ShardStatus, ...]:
    return tuple(a_shard(index, STATES[index % len(STATES)]) for index in range(count))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize("jobs", [1, 3, 40])
def test_the_view_is_never_wider_or_higher_than_its_window(jobs: int, height: int, width: int) -> None:
    shards = (*many_shards(30), a_shard(30, "waiting", attention="waiting for token quota: " + "x" * 300))
    found = tuple(
        a_job(*shards, number=n, name="数据" * 60, attention="the service is in trouble " * 20)
        for n in range(jobs)
    )
    lines = drawn(Scene(found, now=NOON), width, height)
    assert len(lines) < height
    assert max(cells(line) for line in lines) <= width


def test_one_job_tells_all_that_is_known_of_it() -> None:
    job = a_job(a_shard(0, "done"), a_shard(1), usage=UsageSums(1200, 300, None, None), name="nightly")
    pace = Pace(((0, 100), (10, 120), (20, 140)))
    told = "\n".join(drawn(Scene((job,), {job.id: pace}, now=NOON)))
    assert "running (in_progress)" in told
    assert "nightly: requests.jsonl to azure/x.openai.azure.com/gpt" in told
    assert "  70 %" in told
    assert "140 of 200 requests   2/s   under a minute left" in told
    assert "100 succeeded, 100 pending" in told
    assert "1,200 in, 300 out" in told
    assert "gpt: 20,000 of 30,000 tokens taken, 10,000 free" in told
    assert "waits for  the service to run 1 batch\n" in told
    assert "shards     1 active, 1 done" in told
    assert "Next look in 42 s. Ctrl-C detaches, the job goes on" in told


def test_the_time_left_is_unknown_as_long_as_it_is() -> None:
    assert any("time left: unknown" in line for line in drawn(Scene((a_job(),), now=NOON)))


def test_a_hundred_percent_is_said_only_at_the_end() -> None:
    job = a_job(a_shard(0, "active", done=99, requests=100))
    assert any(line.endswith("  99 %") for line in drawn(Scene((job,))))
    done = a_job(a_shard(0, "done"))
    assert any(line.endswith("  100 %") for line in drawn(Scene((done,))))


def test_shards_under_way_are_shown_first_and_the_others_counted() -> None:
    quiet = [a_shard(index, "done") for index in range(50)] + [a_shard(n, "waiting") for n in range(50, 90)]
    job = a_job(*quiet, a_shard(90, "needs_operator"), a_shard(91), quotas=())
    told = drawn(Scene((job,), now=NOON))
    assert any(line.startswith("  90  needs_operator") for line in told)
    assert any(line.startswith("  91  active") for line in told)
    rest = next(line for line in told if " more: " in line)
    shown = sum(" waiting " in line for line in told if line[:4].strip().isdigit())
    assert f"{40 - shown} waiting, 50 done" in rest


def test_a_shard_says_why_it_stands_still() -> None:
    job = a_job(a_shard(0, attention="HTTP 500: \x1b[31mserver_error", attempt=2), a_shard(1))
    (line,) = [line for line in drawn(Scene((job,))) if line.startswith("  0  ")]
    assert line.endswith("40/100  attempt 2, HTTP 500: [31mserver_error")


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (a_job(a_shard(batch_status="validating"), a_shard(1, batch_status="validating")), "the service to check 2 batches"),
        (a_job(a_shard(), a_shard(1, "waiting")), "the service to run 1 batch; 1 shard to be sent"),
        (a_job(a_shard(0, "uploaded")), "the service to take in 1 file"),
        (a_job(a_shard(0, "uncertain")), "the truth about 1 batch"),
        (a_job(a_shard(), cancel_requested=True), "the service to stop what is running"),
        (a_job(a_shard(), attention="waiting for token quota: 9 tokens needed"), "token quota: 9 tokens needed"),
        (a_job(a_shard(0, "done"), state="completed"), None),
    ],
)  # fmt: skip
def test_what_a_job_waits_for_is_said_in_words(job: JobStatus, expected: str | None) -> None:
    assert waits_for(job) == expected


def test_trouble_is_told_as_trouble_and_not_as_something_to_wait_for() -> None:
    told = "\n".join(drawn(Scene((a_job(attention="trouble while polling: HTTP 500"),))))
    assert "  attention  trouble while polling: HTTP 500" in told
    assert "waits for" not in told


def test_several_jobs_are_shown_together_with_a_sum() -> None:
    ended = a_job(
        a_shard(0, "done"),
        state="completed",
        counts=Counts(90, 10, 0, 0, 0, 0, 0),
        quotas=(),
        next_look_at=None,
    )
    running = a_job(a_shard(), number=1, attention="waiting for token quota")
    told = drawn(Scene((ended, running), now=NOON))
    assert told[1] == "140 of 200 requests   1 of 2 jobs finished"
    assert f"{ended.id}  completed  requests.jsonl" in told
    assert "  90 succeeded, 10 errored" in told
    assert "  waiting for token quota" in told
    assert sum("quota  gpt: 20,000 of 30,000" in line for line in told) == 1
    assert told[-1] == "Next look in 42 s. Ctrl-C detaches, the jobs go on"


def test_of_too_many_jobs_those_that_need_somebody_are_shown_first() -> None:
    jobs = [a_job(a_shard(0, "done"), number=n, state="completed", quotas=()) for n in range(30)]
    stuck = a_job(a_shard(0, "needs_operator"), number=30, state="needs_operator", quotas=())
    told = drawn(Scene((*jobs, stuck), now=NOON), height=14)
    assert any(line.startswith(stuck.id) for line in told)
    assert any("more: " in line and "completed" in line for line in told)


def test_a_step_under_way_is_told_in_the_last_line() -> None:
    step = Progress("upload", 30, 120, "bytes", "some-file.jsonl")
    assert drawn(Scene((a_job(),), step=step))[-1].startswith("Uploading 25 %. Ctrl-C")


def test_a_look_that_is_due_is_no_countdown() -> None:
    assert drawn(Scene((a_job(),), now=NOON + 100))[-1].startswith("Looking. ")
    assert drawn(Scene((a_job(next_look_at=None),), now=NOON))[-1].startswith("Looking. ")


# ---------------------------------------------------------------- the live view


def live(screen: io.StringIO, times: list[float], **options: str) -> LiveView:
    console = Console(file=screen, force_terminal=True, width=60, height=24, **options)  # type: ignore[arg-type]
    return LiveView(console, now=lambda: NOON, monotonic=lambda: times.pop(0))


def test_a_live_view_is_drawn_and_leaves_nothing_behind() -> None:
    screen = io.StringIO()
    view = live(screen, [0.0])
    view.begin([a_job()])
    view.seen(a_job())
    view.clear()
    assert "40 of 100 requests" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K")
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back


def test_the_pace_begins_with_the_first_look_not_with_what_was_stored() -> None:
    view = live(io.StringIO(), [0.0, 10.0, 20.0])
    view.begin([a_job(a_shard(done=0))])
    for done in (40, 50, 60):
        view.seen(a_job(a_shard(done=done)))
    shown = io.StringIO()
    Console(file=shown, width=60).print(view.picture())
    view.clear()
    assert "60 of 100 requests   1/s   under a minute left" in shown.getvalue()


def test_nothing_is_drawn_before_there_is_a_job() -> None:
    screen = io.StringIO()
    view = live(screen, [])
    view(Progress("upload", 1, 2, "bytes"))
    view.clear()
    assert screen.getvalue() == ""
