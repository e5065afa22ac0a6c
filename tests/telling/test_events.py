"""Events are the store's log read back: typed, in order, whoever wrote it, and without a word of a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from langbatch import events as kinds
from langbatch.emulator import RowError
from langbatch.errors import AccessRefused
from langbatch.events import (
    BatchCreated,
    BatchEnded,
    BatchStatus,
    Event,
    JobFinished,
    JobMoved,
    JobSubmitted,
    Logged,
    Noted,
    QuotaWait,
    ShardFinished,
    ShardMoved,
    Trouble,
    read_event,
)
from langbatch.lifecycle import MOVES
from langbatch.records import Tally
from support import SECRET_KEY, SECRET_PROMPT, World, requests_file, world

COMMON = ["type", "store", "n", "at", "job", "shard", "attempt", "move", "origin", "to", "note"]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def finished_job(here: World, folder: Path, ids: tuple[str, ...] = ("a", "b", "c")) -> str:
    with here.manager() as manager:
        job = manager.submit(requests_file(folder / "in.jsonl", ids), **here.azure)
        assert manager.wait(job.id).finished
        return job.id


def events_of(here: World, job_id: str | None = None) -> list[Event]:
    with here.manager() as manager:
        return list(manager.events(job_id))


def row(move: str, origin: str | None = None, to: str | None = None, note: str | None = None) -> Logged:
    return Logged(7, 1e9, 0, 1, move, origin, to, note, "job_a", None, 5, 1e9, "batch_1", 1e9 - 9.5, 40, 4)


def test_a_job_is_told_from_its_submission_to_its_end(here: World, tmp_path: Path) -> None:
    job_id = finished_job(here, tmp_path)
    told = events_of(here, job_id)
    assert [event.move for event in told if type(event) is not BatchStatus] == [
        "submitted",
        "upload_begins",
        "upload_answered",
        "create_begins",
        "create_answered",
        "batch_ended",
        "harvested",
        "job_moved",
    ]
    assert [type(event) for event in told if event.move in ("submitted", "create_answered", "job_moved")] == [
        JobSubmitted,
        BatchCreated,
        JobFinished,
    ]
    assert [event.n for event in told] == sorted({event.n for event in told})
    assert {event.job for event in told} == {job_id}


def test_the_end_of_a_job_tells_what_its_status_tells(here: World, tmp_path: Path) -> None:
    job_id = finished_job(here, tmp_path)
    with here.manager() as manager:
        status = manager.status(job_id, offline=True)
    *_, end = events_of(here, job_id)
    assert isinstance(end, JobFinished)
    assert (end.origin, end.to, end.requests) == ("running", status.state, status.total)
    assert end.counts == Tally(succeeded=3)
    assert end.input_tokens == status.usage.input_tokens
    assert end.output_tokens == status.usage.output_tokens
    created, ended, harvested = (
        next(event for event in events_of(here, job_id) if type(event) is kind)
        for kind in (BatchCreated, BatchEnded, ShardFinished)
    )
    assert isinstance(ended, BatchEnded)
    assert isinstance(harvested, ShardFinished)
    assert created.batch_id == ended.batch_id == harvested.batch_id == status.shards[0].batch_id
    assert ended.seconds is not None
    assert ended.seconds == pytest.approx(ended.at - created.at, abs=0.01)
    assert harvested.input_tokens == end.input_tokens


def test_a_retried_job_finishes_again_and_each_attempt_tells_what_it_brought(tmp_path: Path) -> None:
    broken = {"bad"}

    def answer(_: object, custom_id: str) -> str | RowError:
        return RowError(500, "InternalServerError", "no") if custom_id in broken else "well"

    with world(tmp_path, answer=answer) as here:
        job_id = finished_job(here, tmp_path, ("a", "bad", "c"))
        broken.clear()
        with here.manager() as manager:
            manager.retry(job_id)
            manager.wait(job_id)
        told = events_of(here, job_id)
        shards = [event for event in told if isinstance(event, ShardFinished)]
        jobs = [event for event in told if isinstance(event, JobMoved)]
    assert [event.counts for event in shards] == [Tally(succeeded=2, errored=1), Tally(succeeded=1)]
    assert [(event.origin, event.to, type(event)) for event in jobs] == [
        ("running", "completed", JobFinished),
        ("completed", "running", JobMoved),
        ("running", "completed", JobFinished),
    ]
    ends = [event for event in jobs if isinstance(event, JobFinished)]
    # The first end is told as it was, though the job has gone on since.
    assert [event.counts for event in ends] == [Tally(succeeded=2, errored=1), Tally(succeeded=3)]


def test_a_cancelled_job_tells_what_was_never_sent(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a", "b"]), start=False, **here.azure)
        manager.cancel(job.id)
        told = list(manager.events(job.id))
    assert [event.move for event in told] == [
        "submitted",
        "cancel_requested",
        "cancelled_unsent",
        "job_moved",
    ]
    *_, shard, end = told
    assert isinstance(shard, ShardFinished)
    assert isinstance(end, JobFinished)
    assert shard.counts == end.counts == Tally(cancelled=2)
    assert (shard.input_tokens, end.to) == (None, "cancelled")


def test_a_job_that_waits_for_a_person_says_so(here: World, tmp_path: Path) -> None:
    here.emulator.add_faults("upload-401-key@1")
    with here.manager() as manager:
        with pytest.raises(AccessRefused):
            manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        (job,) = manager.jobs()
        manager.wait(job.id)
        told = [event for event in manager.events(job.id) if type(event) in (JobMoved, JobFinished)]
    assert [event.to for event in told] == ["paused", "running", "completed"]


@pytest.mark.parametrize("move", MOVES)
def test_every_move_of_the_table_is_a_shards(move: str) -> None:
    rule = MOVES[move]  # type: ignore[index]
    for origin in rule.origins:
        event = read_event("s", row(move, origin, rule.to, "x"))
        assert isinstance(event, ShardMoved)
        assert isinstance(event, ShardFinished) is (rule.to == "done")


@pytest.mark.parametrize(
    ("move", "kind"),
    [
        ("trouble", Trouble),
        ("quota_wait", QuotaWait),
        ("status", BatchStatus),
        ("fenced", Noted),
        ("a_word_of_a_later_version", Noted),
    ],
)
def test_what_moves_no_shard_has_a_kind_too(move: str, kind: type[Event]) -> None:
    assert type(read_event("s", row(move, "active", "active", "x"))) is kind


def test_a_batch_that_quota_sent_back_has_ended(here: World) -> None:
    event = read_event("s", row("quota_bounced", "active", "waiting", "batch_1"))
    assert isinstance(event, BatchEnded)
    assert (event.status, event.seconds) == ("failed", 9.5)


def test_every_kind_is_frozen_and_has_a_json_form_that_begins_alike(here: World, tmp_path: Path) -> None:
    finished_job(here, tmp_path)
    for event in events_of(here):
        document = event.to_dict()
        assert list(document)[: len(COMMON)] == COMMON
        assert json.loads(json.dumps(document)) == document
        assert str(document["at"]).endswith("Z")
        with pytest.raises(FrozenInstanceError):
            event.n = 0  # type: ignore[misc]
    types = [getattr(kinds, name).type for name in kinds.__all__]
    assert len(set(types)) == len(types)
    assert all(
        {*COMMON} - {"type"} <= {f.name for f in fields(getattr(kinds, name))} for name in kinds.__all__
    )


def test_no_event_holds_a_prompt_or_a_key(here: World, tmp_path: Path) -> None:
    finished_job(here, tmp_path)
    told = json.dumps([event.to_dict() for event in events_of(here)])
    assert SECRET_KEY not in told
    assert SECRET_PROMPT not in told


def test_events_can_be_read_from_any_one_on(here: World, tmp_path: Path) -> None:
    job_id = finished_job(here, tmp_path)
    told = events_of(here)
    with here.manager() as manager:
        assert list(manager.events(after=told[2].n)) == told[3:]
        assert list(manager.events(job_id, after=told[-1].n)) == []


def test_the_numbers_of_a_purged_jobs_events_are_not_given_again(here: World, tmp_path: Path) -> None:
    job_id = finished_job(here, tmp_path)
    last = events_of(here)[-1].n
    with here.manager() as manager:
        manager.purge(job_id)
        assert list(manager.events()) == []
    finished_job(here, tmp_path)
    assert min(event.n for event in events_of(here)) > last
