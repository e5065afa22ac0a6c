"""Decisions as values: what follows from a state, a reply or an error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.errors import (
    AccessRefused,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
    Unreachable,
)
from langbatch.records import (
    Attempt,
    BatchCounts,
    BatchFault,
    Job,
    RemoteBatch,
    RemoteFile,
    Shard,
    ShardState,
    ShardView,
    Tally,
    Target,
    Usage,
)
from langbatch.running import decisions as d

NOW = 1_000_000.0
POLICY = d.Policy(poll_seconds=60, grace_seconds=1800)


def a_view(state: ShardState, *, cancelling: bool = False, fruitless: int = 0, **facts: Any) -> ShardView:
    attempt_facts = facts.pop("attempt", {"number": 1})
    job = Job(
        1,
        "job_x",
        None,
        "f.jsonl",
        Target("azure", "h", "chat_completions"),
        "",
        10,
        0,
        "running",
        cancelling,
        None,
        Tally(),
        Usage(),
        0,
        0,
        None,
    )
    shard = Shard(
        1, 0, 0, 1, 10, 0, 100, state, attempt=attempt_facts["number"] if attempt_facts else 0, **facts
    )
    attempt = None
    if attempt_facts:
        attempt = replace(Attempt(1, 0, 1, "lb-x", 10, NOW, file_id="file-1"), **attempt_facts)
    return ShardView(job, shard, attempt, fruitless)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (a_view("waiting", attempt=None), d.Upload()),
        (a_view("waiting"), d.Upload()),
        (a_view("waiting", attempt={"number": 2, "ended_at": NOW}), d.Upload()),
        (a_view("uploading"), d.FindUpload()),
        (a_view("uploaded"), d.CheckFile()),
        (a_view("uploaded", attempt={"number": 1, "file_ready_at": NOW}), d.Create()),
        (a_view("creating"), d.DoubtCreate()),
        (a_view("uncertain"), d.LookForBatch()),
        (a_view("fencing"), d.Fence()),
        (a_view("fencing", attempt={"number": 1, "fenced_at": NOW}), d.LookForBatch()),
        (a_view("active"), d.Poll()),
        (a_view("active", cancelling=True), d.CancelBatch()),
        (a_view("active", cancelling=True, attempt={"number": 1, "cancel_sent_at": NOW}), d.Poll()),
        (a_view("harvesting"), d.Harvest()),
        (a_view("done"), d.Nothing()),
        (a_view("needs_operator"), d.Nothing()),
        (a_view("waiting", cancelling=True, not_before=NOW + 99), d.SettleCancelled()),
        (a_view("uploaded", cancelling=True), d.SettleCancelled()),
        (a_view("uncertain", cancelling=True), d.LookForBatch()),
        (a_view("active", due_at=NOW + 5), d.Wait(NOW + 5)),
        (a_view("active", due_at=NOW + 5, not_before=NOW + 50), d.Wait(NOW + 50)),
    ],
)
def test_each_state_asks_for_one_action(view: ShardView, expected: d.Action) -> None:
    assert d.decide(view, NOW) == expected


def test_an_eager_look_ignores_our_own_schedule_but_not_the_services_advice() -> None:
    assert d.decide(a_view("active", due_at=NOW + 5), NOW, eager=True) == d.Poll()
    assert d.decide(a_view("active", not_before=NOW + 5), NOW, eager=True) == d.Wait(NOW + 5)


def test_attempts_that_come_to_nothing_are_parked_after_five() -> None:
    ended = {"number": 5, "ended_at": NOW}
    assert isinstance(d.decide(a_view("waiting", fruitless=5, attempt=ended), NOW), d.Park)
    assert d.decide(a_view("waiting", fruitless=4, attempt=ended), NOW) == d.Upload()


CERTAIN: list[ProviderError] = [
    Unreachable("x"),
    Throttled("x"),
    AccessRefused("x", status=401),
    QuotaFull("x"),
    Refused("x", status=400),
    RemoteNotFound("x", status=404, code="404"),
    RemoteNotFound("x", code="notFound"),
]


@pytest.mark.parametrize("error", CERTAIN, ids=lambda e: type(e).__name__)
def test_a_certain_refusal_of_a_create_is_never_called_uncertain(error: ProviderError) -> None:
    assert d.after_create_error(error).move in ("create_not_now", "create_refused", "file_unusable")


@pytest.mark.parametrize("status", [None, 200, 307, 408, 409, 500, 503])
def test_an_unknown_fate_of_a_create_is_never_called_certain(status: int | None) -> None:
    assert d.after_create_error(FateUnknown("x", status=status)).move == "create_fate_unknown"


def test_a_lost_upload_reply_is_looked_for_and_not_sent_again() -> None:
    assert d.after_upload_error(FateUnknown("x")).move is None


@pytest.mark.parametrize(
    ("error", "blocker"),
    [(AccessRefused("x", status=401), "access"), (RemoteNotFound("Resource not found", code="404"), "setup")],
)
def test_what_a_person_must_mend_pauses_and_never_fails_a_job(error: ProviderError, blocker: str) -> None:
    assert d.after_upload_error(error).blocker == blocker
    assert d.after_create_error(error).blocker == blocker
    assert d.after_create_error(error).move == "create_not_now"


def test_a_deployment_that_does_not_exist_is_refused_for_good() -> None:
    error = RemoteNotFound("The API deployment for this resource does not exist.", code="DeploymentNotFound")
    assert d.after_create_error(error).move == "create_refused"


def test_quota_is_waited_for_and_is_no_outage() -> None:
    setback = d.after_create_error(QuotaFull("limit of 30K"))
    assert (setback.move, setback.waits_for) == ("create_not_now", "quota")


@pytest.mark.parametrize(
    ("asked", "honoured"), [(None, None), (5.0, 5.0), (3600.0, 3600.0), (10**9, 86_400.0)]
)
def test_the_services_advice_is_honoured_up_to_a_day(asked: float | None, honoured: float | None) -> None:
    assert d.after_read_error(Throttled("x", retry_after_seconds=asked), "polling").advice_seconds == honoured


@pytest.mark.parametrize(
    ("file", "sent", "age", "expected"),
    [
        (RemoteFile("f", "processed", 10), 10, 0, "ready"),
        (RemoteFile("f", "processed", None), 10, 0, "ready"),
        (RemoteFile("f", None, 10), 10, 0, "ready"),
        (RemoteFile("f", "processed", 9), 10, 0, "unusable"),
        (RemoteFile("f", "pending", None), 10, 0, "pending"),
        (RemoteFile("f", "running", 10), 10, 3599, "pending"),
        (RemoteFile("f", "pending", None), 10, 3601, "unusable"),
        (RemoteFile("f", "error", 10), 10, 0, "unusable"),
    ],
)
def test_a_file_is_named_by_a_batch_only_once_it_is_whole(
    file: RemoteFile, sent: int, age: float, expected: str
) -> None:
    assert d.judge_file(file, sent, age, POLICY) == expected


@pytest.mark.parametrize(
    ("batch", "age", "expected"),
    [
        (RemoteBatch("b", "validating"), 0, "running"),
        (RemoteBatch("b", "completed"), 0, "ended"),
        (RemoteBatch("b", "expired"), 0, "ended"),
        (RemoteBatch("b", "reticulating"), 3600, "running"),
        (RemoteBatch("b", "reticulating"), 49 * 3600, "strange"),
        (RemoteBatch("b", "failed", faults=(BatchFault("token_limit_exceeded", ""),)), 0, "quota_bounced"),
        (RemoteBatch("b", "failed", faults=(BatchFault("model_not_found", ""),)), 0, "ended"),
        (RemoteBatch("b", "failed"), 0, "ended"),
    ],
)
def test_a_batchs_status_says_what_follows(batch: RemoteBatch, age: float, expected: str) -> None:
    assert d.judge_batch(batch, age) == expected


def test_of_several_batches_the_oldest_live_one_is_ours() -> None:
    found = [
        RemoteBatch("late", "in_progress", created_at=30),
        RemoteBatch("ended", "failed", created_at=5),
        RemoteBatch("early", "validating", created_at=20),
        RemoteBatch("done", "completed", created_at=10),
    ]
    chosen, others = d.choose_batch(found)
    assert chosen.id == "early"
    assert {b.id for b in others} == {"late", "ended", "done"}
    assert d.choose_batch([found[1], found[3]])[0].id == "done"


def looked(state: ShardState, complete: bool, at: float, **attempt: Any) -> str:
    facts = {"number": 1, "fate_unknown_at": NOW, **attempt}
    return d.judge_absence(a_view(state, attempt=facts), complete, at, POLICY)


def test_absence_is_believed_only_after_fence_and_grace() -> None:
    assert looked("uncertain", True, NOW + 1) == "look_again"
    assert looked("uncertain", True, NOW + 61) == "fence"
    assert looked("fencing", True, NOW + 1000, fenced_at=NOW + 61) == "look_again"
    assert looked("fencing", True, NOW + 61 + 1800, fenced_at=NOW + 61) == "ruled_out"


@given(st.floats(0, 10**6))
def test_a_partial_listing_never_rules_a_batch_out(later: float) -> None:
    for state in ("uncertain", "fencing"):
        verdict = looked(state, False, NOW + later, fenced_at=NOW if state == "fencing" else None)
        assert verdict in ("look_again", "unsettled")


def test_a_harvest_is_doubted_when_files_and_counts_disagree() -> None:
    batch = RemoteBatch("b", "completed", output_file_id="o", counts=BatchCounts(10, 9, 1))
    assert d.doubt_harvest(batch, 9, 1) is None
    assert d.doubt_harvest(batch, 8, 1) == "rows_short"
    assert d.doubt_harvest(batch, 9, 0) == "rows_short"
    assert d.doubt_harvest(replace(batch, output_file_id=None), None, 1) == "no_output_file"
    assert (
        d.doubt_harvest(replace(batch, output_file_id=None, counts=BatchCounts(10, 0, 10)), None, 10) is None
    )
    assert d.doubt_harvest(replace(batch, status="expired"), 1, 0) is None


@given(st.integers(0, 40), st.floats(0.01, 3600), st.floats(0, 1, exclude_max=True))
def test_our_own_waits_never_exceed_the_cap_and_are_never_zero(
    troubles: int, cap: float, roll: float
) -> None:
    assert 0 < d.backoff_seconds(troubles, cap, roll) <= cap
    assert 0 < d.poll_wait_seconds(troubles * 100.0, cap, roll) <= cap
