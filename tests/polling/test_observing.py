"""What lists show is used; what they do not show, or fail to show, harms nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langbatch import Unreachable
from langbatch.running.observing import CALLS, FAILED_CALLS, LEAST_SINGLE_LOOKS, LIST_FROM
from polling.ground import Ground, ground


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def attentions(place: Ground) -> set[Any]:
    return {attention for (attention,) in place.rows("s.attention")}


def looked_at_now(place: Ground) -> int:
    now = place.here.clock.now()
    return sum(polled == now for (polled,) in place.rows("a.polled_at"))


def test_batches_that_ended_are_harvested_without_a_look_of_their_own(tmp_path: Path) -> None:
    with ground(tmp_path, running_seconds=500.0) as place:
        job = place.live_job(6)
        calls = place.cycle(600.0)
        assert calls["list"] == 1
        assert "poll" not in calls
        status = place.manager.status(job, offline=True)
        assert status.all_succeeded
        assert [r.custom_id for r in place.manager.results(job)] == [f"j1-r{n}" for n in range(6)]


def test_few_batches_are_looked_at_one_by_one(place: Ground) -> None:
    place.live_job(LIST_FROM - 1)
    assert place.cycle(600.0) == {"poll": LIST_FROM - 1}


def test_a_batch_that_no_list_shows_is_looked_at_itself_and_not_searched_for_in_each_cycle(
    tmp_path: Path,
) -> None:
    with ground(tmp_path, faults=("list-lag=100000@3",)) as place:
        place.live_job(5)
        # The first page is the only one, and says so.
        assert place.cycle(600.0) == {"list": 1, "poll": 1}
        assert looked_at_now(place) == 5
        for _ in range(3):
            # The others bring no news, and are looked at as well.
            assert place.cycle() == {"list": 1, "poll": 5}
            assert looked_at_now(place) == 5
        assert attentions(place) == {None}


def test_what_only_the_list_hides_is_not_walked_for_again_while_nothing_else_is_due(
    tmp_path: Path,
) -> None:
    with ground(tmp_path, faults=("list-lag=100000",)) as place:
        place.live_job(5)
        assert place.cycle(600.0) == {"list": 1, "poll": 5}
        assert place.cycle() == {"poll": 5}


def test_a_list_that_fails_leaves_every_batch_to_a_look_of_its_own(tmp_path: Path) -> None:
    with ground(tmp_path, faults=("list-500",)) as place:
        place.live_job(5)
        assert place.cycle(600.0) == {"list": 1, "poll": 5}
        assert looked_at_now(place) == 5
        assert attentions(place) == {None}
        # Once in a cycle at most, and less and less often.
        calls = [place.cycle() for _ in range(25)]
        assert {count.get("list", 0) for count in calls} == {0, 1}
        assert {count["poll"] for count in calls} == {5}
        place.emulator.remove_faults()
        assert place.cycle(3700.0)["list"] == 1


@pytest.mark.parametrize("count", [LIST_FROM, 3 * LEAST_SINGLE_LOOKS])
def test_a_list_that_shows_what_was_long_ago_hides_no_end(tmp_path: Path, count: int) -> None:
    with ground(tmp_path, running_seconds=500.0, faults=("list-stale",)) as place:
        job = place.live_job(count)
        place.here.clock.sleep(600.0)
        cycles = 0
        while not place.manager.status(job).finished:
            cycles += 1
            assert cycles <= 2 + count // LEAST_SINGLE_LOOKS
        assert place.manager.status(job).all_succeeded


def test_a_list_that_breaks_off_is_believed_as_far_as_it_came(tmp_path: Path) -> None:
    with ground(tmp_path, faults=("list-503-html@2",)) as place:
        file_id = place.caller.ready_file(b"{}\n")
        place.live_job(4)
        for _ in range(98):
            place.foreign_batch(file_id)
        place.live_job(4)
        # The first page shows the four youngest and 96 foreign ones; the second fails.
        calls = place.cycle(600.0)
        assert calls == {"list": 2, "poll": 4}
        assert looked_at_now(place) == 8


def test_a_page_of_strangers_older_than_ours_ends_the_walk(place: Ground) -> None:
    file_id = place.caller.ready_file(b"{}\n")
    for _ in range(150):
        place.foreign_batch(file_id)
    place.here.clock.sleep(86_400.0)
    place.emulator.add_faults("list-lag=100000@1")
    job = place.live_job(6)
    calls = place.cycle(600.0)
    # The one that is not listed could only be found on pages of long ago: the second of them says so.
    assert calls == {"list": 2, "poll": 1}
    assert place.manager.status(job, offline=True).shards[5].batch_status == "in_progress"


def test_younger_strangers_are_walked_past_only_as_far_as_it_pays(place: Ground) -> None:
    file_id = place.caller.ready_file(b"{}\n")
    place.live_job(4)
    for _ in range(650):
        place.foreign_batch(file_id)
    assert place.cycle(600.0) == {"list": 4, "poll": 4}
    assert looked_at_now(place) == 4


def test_each_endpoint_and_each_credential_has_a_list_of_its_own(place: Ground) -> None:
    place.live_job(3)
    place.live_job(3)
    place.live_job(3, api_key="another-key-000000")
    place.live_job(3, azure_endpoint="https://other.openai.azure.com")
    assert place.cycle(600.0)["list"] == 3
    assert looked_at_now(place) == 12


def test_the_services_wish_to_be_left_alone_is_heard_for_all_its_batches(place: Ground) -> None:
    job = place.live_job(5)
    place.emulator.add_faults("list-429-long=3600@1", "poll-429-long=3600")
    assert place.cycle(600.0) == {"list": 1}
    assert [place.cycle() for _ in range(10)] == [{}] * 10
    status = place.manager.status(job)
    assert status.state == "running"
    assert place.new_calls() == {}
    assert {waits for (waits,) in place.rows("s.waits_for")} == {"throttle"}
    place.emulator.remove_faults()
    assert place.cycle(3600.0) == {"list": 1}
    assert attentions(place) == {None}


def test_an_endpoint_that_answers_nothing_is_not_asked_about_each_batch(tmp_path: Path) -> None:
    with ground(tmp_path) as place:
        job = place.live_job(40)
        place.emulator.add_faults("list-500", "poll-500")
        calls = place.cycle(600.0)
        assert calls == {"list": 1, "poll": FAILED_CALLS - 1}
        # All of the job is known to be in trouble, so that waiting for it gives up in time.
        assert {waits for (waits,) in place.rows("s.waits_for")} == {"trouble"}
        assert {state for (state,) in place.rows("s.state")} == {"active"}
        with pytest.raises(Unreachable):
            place.manager.wait(job, outage_seconds=300.0)
        # A call now and then tells whether it is back.
        assert sum(place.new_calls().values()) < 100
        place.emulator.remove_faults()
        calls = place.cycle(7200.0)
        assert calls == {"list": 1}
        assert attentions(place) == {None}


def test_wrong_credentials_pause_the_job_after_few_calls_and_fail_nothing(place: Ground) -> None:
    job = place.live_job(40)
    place.emulator.add_faults("list-401-key", "poll-401-key")
    assert sum(place.cycle(600.0).values()) == FAILED_CALLS
    assert place.manager.status(job, offline=True).state == "paused"
    place.emulator.remove_faults()
    place.cycle(3600.0)
    assert place.manager.status(job, offline=True).state == "running"


def test_single_looks_are_rationed_and_reach_every_batch_in_turn(tmp_path: Path) -> None:
    with ground(tmp_path, faults=("list-lag=1000000",)) as place:
        place.live_job(70)
        calls = place.cycle(600.0)
        assert calls == {"list": 1, "poll": CALLS - 1}
        assert LEAST_SINGLE_LOOKS < CALLS
        place.cycle(6.0)
        place.cycle(6.0)
        now = place.here.clock.now()
        assert all(polled >= now - 12 for (polled,) in place.rows("a.polled_at"))


def test_a_ration_that_is_used_up_is_followed_by_the_next_after_a_tenth_of_the_interval(
    tmp_path: Path,
) -> None:
    with ground(tmp_path, faults=("list-lag=1000000",)) as place:
        place.live_job(40)
        place.here.clock.sleep(600.0)
        assert place.manager.advance() == pytest.approx(6.0)


def test_an_event_is_written_when_a_status_changes_and_not_at_each_look(place: Ground) -> None:
    job = place.live_job(4)
    for _ in range(5):
        place.cycle()
    key = place.manager._store.find(job).key
    changes = [event for event in place.events(key) if event[0] == "status"]
    assert sorted(changes) == [("status", index, "active", "active", "in_progress") for index in range(4)]


def test_a_look_at_one_job_leaves_the_other_jobs_alone(place: Ground) -> None:
    first, second = place.live_job(3), place.live_job(3)
    place.here.clock.sleep(600.0)
    place.manager.advance(first)
    assert looked_at_now(place) == 3
    assert place.manager.status(second, offline=True).shards[0].batch_status == "validating"


def test_a_cancelled_job_is_cancelled_batch_by_batch_and_then_watched_by_the_list(place: Ground) -> None:
    job = place.live_job(4)
    place.cycle(600.0)
    place.manager.cancel(job)
    assert place.new_calls()["cancel"] == 4
    calls = place.cycle()
    assert calls["list"] == 1
    assert "poll" not in calls
    assert place.manager.status(job, offline=True).state == "cancelled"


def test_a_batch_refused_for_want_of_quota_is_bounced_by_what_the_list_says(tmp_path: Path) -> None:
    with ground(tmp_path, faults=("batch-token-limit*3",)) as place:
        place.live_job(3)
        calls = place.cycle(600.0)
        assert calls["list"] == 1
        assert "poll" not in calls
        assert {ended for (ended,) in place.first_attempts("ended_as")} == {"quota_bounced"}
