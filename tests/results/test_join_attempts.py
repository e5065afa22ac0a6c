"""Which attempt a request's record comes from."""

from __future__ import annotations

from pathlib import Path

from langbatch.records import Outcome, Tally
from langbatch.results.join import AttemptPieces, Verdict, join_shard
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success

REFUSED: tuple[Outcome, str, str] = ("errored", "model_not_found", "there is no such deployment")
UNSENT: tuple[Outcome, str, str] = ("cancelled", "cancelled", "it was never sent")


def test_a_retry_fills_in_what_failed_and_keeps_what_succeeded(tmp_path: Path) -> None:
    first = Tried([encoded(success("a"))], [encoded(never_ran("b")), encoded(http_failure("c"))])
    second = Tried([encoded(success("b"))], [encoded(http_failure("c", 500, {}))], sent=frozenset({1, 2}))
    joined = join(tmp_path, ["a", "b", "c"], first, second)
    assert joined.outcomes == ["succeeded", "succeeded", "errored"]
    assert joined.codes == [None, None, "http_500"]
    assert [record["attempt"] for record in joined.records] == [1, 2, 2]
    assert joined.report.quarantined == 0


def test_attempts_are_ordered_by_number_not_by_place(tmp_path: Path) -> None:
    verdicts = [Verdict(3, "errored", "third", ""), Verdict(1, "errored", "first", "")]
    attempts = [AttemptPieces(verdict.attempt, (), verdict) for verdict in verdicts]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "aside").open("wb") as aside:
        report = join_shard(["a"], [1], 0, attempts, out, aside)
    assert [(item.code, item.attempt) for item in report.unsuccessful] == [("third", 3)]


def test_a_success_is_never_overwritten_by_a_later_attempt(tmp_path: Path) -> None:
    kept = encoded(success("a", chat_body("kept")))
    for later in (
        Tried([encoded(success("a", chat_body("other")))]),
        Tried([], [encoded(http_failure("a"))]),
        Tried([b'{"custom_id":"a", broken']),
        Tried(verdict=REFUSED),
        Tried(verdict=UNSENT),
    ):
        joined = join(tmp_path, ["a"], Tried([kept]), later)
        assert joined.records[0]["response"]["body"] == chat_body("kept")
        assert joined.records[0]["attempt"] == 1
        assert joined.report.tally == Tally(succeeded=1)


def test_the_same_success_from_two_attempts_is_no_conflict(tmp_path: Path) -> None:
    row = encoded(success("a"))
    joined = join(tmp_path, ["a"], Tried([row]), Tried([row]))
    assert joined.report.notes == {"duplicate_identical": 1}
    assert joined.records[0]["attempt"] == 1


def test_a_failed_batch_rules_on_all_that_it_has_no_row_for(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a", "b"], Tried([encoded(success("a"))], verdict=REFUSED))
    assert joined.outcomes == ["succeeded", "errored"]
    assert joined.records[1]["error"] == {"code": REFUSED[1], "message": REFUSED[2]}
    assert joined.report.silent == 1


def test_a_refused_retry_replaces_older_failures_and_nothing_else(tmp_path: Path) -> None:
    first = Tried([encoded(success("a"))], [encoded(never_ran("b"))])
    joined = join(tmp_path, ["a", "b", "c"], first, Tried(verdict=REFUSED, sent=frozenset({1})))
    assert joined.codes == [None, "model_not_found", "missing"]


def test_silence_of_a_later_attempt_keeps_what_an_earlier_one_said(tmp_path: Path) -> None:
    spoken = [
        Tried([], [encoded(http_failure("a"))]),
        Tried([b'{"custom_id":"a", broken']),
        Tried(verdict=REFUSED),
    ]
    for first, outcome in zip(spoken, ("errored", "unreadable", "errored"), strict=True):
        for later in (Tried(), Tried(verdict=UNSENT)):
            joined = join(tmp_path, ["a"], first, later)
            assert joined.outcomes == [outcome]
            assert joined.records[0]["attempt"] == 1


def test_among_silent_attempts_the_last_one_counts(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried(), Tried(verdict=UNSENT))
    assert joined.records[0]["outcome"] == "cancelled"
    assert joined.records[0]["attempt"] == 2


def test_a_later_garbled_row_says_something(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried([], [encoded(never_ran("a"))]), Tried([b'{"custom_id":"a", broken']))
    assert joined.outcomes == ["unreadable"]
    assert joined.records[0]["attempt"] == 2


def test_a_later_row_replaces_a_garbled_one(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried([b'{"custom_id":"a", broken']), Tried([], [encoded(never_ran("a"))]))
    assert joined.outcomes == ["expired"]


def test_a_row_that_lost_still_spares_its_request_the_verdict(tmp_path: Path) -> None:
    failure = encoded(http_failure("a"))
    joined = join(tmp_path, ["a"], Tried([failure, failure], verdict=REFUSED))
    assert joined.codes == ["content_filter"]


def test_a_request_that_no_attempt_sent_is_missing(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"])
    assert joined.outcomes == ["missing"]
    assert joined.records[0]["attempt"] == 0
    assert joined.report.silent == 1


def test_a_verdict_may_hold_any_text(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried(verdict=("errored", "odd \ud800", 'half \ud800 "quoted"')))
    assert joined.records[0]["error"] == {"code": "odd ?", "message": 'half ? "quoted"'}


def test_progress_counts_every_record(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    ids = [f"id-{number}" for number in range(1500)]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "aside").open("wb") as aside:
        join_shard(ids, range(1, 1501), 0, [], out, aside, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (1500, 1500)
