"""What is recorded of many batches at once, and where it must give way to somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langbatch.records import BatchCounts, RemoteBatch
from langbatch.running.decisions import Policy
from langbatch.running.watching import running_news
from langbatch.store.observation import LiveBatch, Seen
from langbatch.store.purged import purge
from langbatch.store.store import JobStore
from polling.ground import Ground, ground


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        made.live_job(3)
        yield made


def running(live: LiveBatch, now: float, **batch: Any) -> Seen:
    shown = RemoteBatch(live.batch_id, "in_progress", **batch)
    news = running_news(shown, live.batch_status, 600.0, Policy(), 0.0, now)
    return Seen(live, news.shard, news.attempt, news.event, shown.status)


def seen_by_all(place: Ground, store: JobStore) -> list[Seen]:
    now = place.here.clock.now()
    return [running(live, now, counts=BatchCounts(1, 0, 0)) for live in store.live_batches()]


def test_everything_seen_is_recorded_with_its_event_and_the_jobs_own_row(place: Ground) -> None:
    place.here.clock.sleep(600.0)
    store, now = place.manager._store, place.here.clock.now()
    assert store.record_seen(seen_by_all(place, store)) == {(1, 0), (1, 1), (1, 2)}
    assert (
        place.rows("a.batch_status, a.batch_total, a.polled_at, s.due_at, s.waits_for, s.state")
        == [("in_progress", 1, now, now + 54.0, "batch", "active")] * 3
    )
    assert store.job(1).updated_at == now
    assert [event[0] for event in place.events(1)].count("status") == 3


def test_entries_with_and_without_counts_are_recorded_together(place: Ground) -> None:
    store, now = place.manager._store, place.here.clock.now()
    lives = store.live_batches()
    first = running(lives[0], now, counts=BatchCounts(9, 4, 1))
    assert len(store.record_seen([first, *(running(live, now) for live in lives[1:])])) == 3
    assert place.rows("a.batch_total, a.batch_completed") == [(9, 4), (0, 0), (0, 0)]


def claim_it(store: JobStore) -> None:
    assert store.claim(1, 1) is not None


def claim_and_release_it(store: JobStore) -> None:
    claim = store.claim(1, 1)
    assert claim is not None
    store.release(claim)


def end_it(store: JobStore) -> None:
    claim = store.claim(1, 1)
    assert claim is not None
    store.move(claim, "active", "batch_ended")
    store.release(claim)


@pytest.mark.parametrize("meanwhile", [claim_it, claim_and_release_it, end_it])
def test_a_shard_that_somebody_else_took_meanwhile_is_left_alone(
    meanwhile: Callable[[JobStore], None], place: Ground
) -> None:
    store = place.manager._store
    seen = seen_by_all(place, store)
    meanwhile(store)
    before = place.rows("s.state, s.due_at, a.polled_at")
    assert store.record_seen(seen) == {(1, 0), (1, 2)}
    assert place.rows("s.state, s.due_at, a.polled_at")[1] == before[1]


def test_what_another_process_has_seen_since_is_not_overwritten(place: Ground) -> None:
    store = place.manager._store
    old = seen_by_all(place, store)
    place.here.clock.sleep(5.0)
    assert len(store.record_seen(seen_by_all(place, store))) == 3
    assert store.record_seen(old) == set()


def test_a_cancellation_asked_for_meanwhile_is_not_put_off(place: Ground) -> None:
    store = place.manager._store
    seen = seen_by_all(place, store)
    store.request_cancel(1)
    assert store.record_seen(seen) == set()
    assert place.rows("s.due_at") == [(0.0,)] * 3
    assert store.live_batches() == []


def test_a_purged_job_is_not_brought_back(place: Ground) -> None:
    store = place.manager._store
    seen = seen_by_all(place, store)
    purge(store, 1, "job_1", ())
    assert store.record_seen(seen) == set()
    assert place.rows("s.state") == []


def test_only_batches_that_nobody_holds_or_wants_to_cancel_are_listed_as_live(place: Ground) -> None:
    store = place.manager._store
    place.live_job(2)
    assert spots(store.live_batches()) == {(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)}
    claim_it(store)
    store.request_cancel(2)
    assert spots(store.live_batches()) == {(1, 0), (1, 2)}
    assert store.live_batches([2]) == []


def spots(lives: list[LiveBatch]) -> set[tuple[int, int]]:
    return {(live.job, live.index) for live in lives}
