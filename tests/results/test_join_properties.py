"""Promise 1, over rows that nobody thought of: one record per request, whatever the service sends."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langbatch.records import OUTCOMES, Outcome
from langbatch.results.rows import GarbledRow, quick_success, read_row
from results.joining import Tried, http_failure, join, never_ran, success

REQUESTS = 6
IDS = [f"id {number} \u2028é" for number in range(REQUESTS)]
STRANGER = "of nobody"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
bodies = st.dictionaries(st.text(max_size=4) | st.just("usage"), json_values, max_size=4)


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """A row of a known or unknown request; written as some service might, sometimes broken."""
    custom_id = draw(st.sampled_from([*IDS, STRANGER]))
    row = draw(
        st.one_of(
            bodies.map(lambda body: success(custom_id, body or {"x": 1})),
            st.integers(300, 599).map(lambda status: http_failure(custom_id, status)),
            st.sampled_from(["batch_expired", "batch_cancelled", "boom"]).map(
                lambda c: never_ran(custom_id, c)
            ),
        )
    )
    if draw(st.booleans()):
        row = {"id": "batch_req", **row}
    ascii_only = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]))
    line = json.dumps(row, separators=separators, ensure_ascii=ascii_only).encode()
    broken = draw(st.integers(0, 9))
    if broken == 0:
        return line[: draw(st.integers(0, len(line) - 1))]
    if broken == 1:
        at = draw(st.integers(0, len(line) - 1))
        return line[:at] + bytes([draw(st.sampled_from(b'\xff\x00"}{x'))]) + line[at + 1 :]
    return line


verdicts: st.SearchStrategy[tuple[Outcome, str, str]] = st.sampled_from(
    [
        ("missing", "missing", "silence"),
        ("errored", "model_not_found", "no"),
        ("cancelled", "cancelled", "unsent"),
    ]
)
tries = st.builds(
    Tried,
    output=st.lists(rows(), max_size=8),
    error=st.lists(rows(), max_size=5),
    verdict=verdicts,
    sent=st.none() | st.frozensets(st.integers(0, REQUESTS - 1)),
    final_newline=st.booleans(),
)


def _plain_reading(line: bytes) -> dict[str, object] | None:
    """Python's own reader, made strict: the judge of what is a row."""

    def refuse(_: str) -> None:
        raise ValueError

    try:
        row = json.loads(line.decode(), parse_constant=refuse)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("custom_id"), str) else None


def _succeeds(row: dict[str, object] | None) -> bool:
    if row is None or row.get("error") is not None or not isinstance(row.get("response"), dict):
        return False
    response = row["response"]
    return isinstance(response, dict) and 200 <= response.get("status_code", 0) < 300


@given(st.lists(tries, max_size=3))
@settings(max_examples=150, deadline=None)
def test_every_request_gets_one_record_and_no_success_is_lost(tried: list[Tried]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        joined = join(Path(folder), IDS, *tried)

    records = joined.records
    assert [record["custom_id"] for record in records] == IDS
    assert [record["line"] for record in records] == list(range(10, 10 + REQUESTS))
    assert joined.report.tally.total == REQUESTS
    for outcome in OUTCOMES:
        assert joined.outcomes.count(outcome) == getattr(joined.report.tally, outcome)
    failed = [(at, r["outcome"]) for at, r in enumerate(records) if r["outcome"] != "succeeded"]
    assert [(item.ordinal, item.outcome) for item in joined.report.unsuccessful] == failed
    assert all((record["error"] is None) == (record["outcome"] == "succeeded") for record in records)

    for ordinal, custom_id in enumerate(IDS):
        successes = [
            line.strip()
            for item in tried
            if item.sent is None or ordinal in item.sent
            for line in (*item.output, *item.error)
            if (row := _plain_reading(line)) is not None
            and row["custom_id"] == custom_id
            and _succeeds(row)
            and not _has_repeated_key(line)
        ]
        assert (records[ordinal]["outcome"] == "succeeded") == bool(successes)
        if successes:
            assert _raw_response(joined.lines[ordinal]) == _raw_response(successes[0])

    set_aside = joined.quarantine.split(b"\n")
    assert len(set_aside) - 1 == joined.report.quarantined
    sources = {line.strip(b" \t\r") for item in tried for line in (*item.output, *item.error)}
    assert set(set_aside[:-1]) <= sources


def _has_repeated_key(line: bytes) -> bool:
    """A flipped byte can make two keys of a row alike."""
    found = False

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(line, object_pairs_hook=look)
    return found


def _raw_response(line: bytes) -> str:
    """The bytes of the row's `response`, found by Python's own scanner."""
    text = line.decode()
    decoder = json.JSONDecoder()
    at = text.index("{") + 1
    while True:
        at = _skip(text, at)
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        _, end = decoder.raw_decode(text, at)
        if key == "response":
            return text[at:end]
        at = _skip(text, end) + 1


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r":
        at += 1
    return at


@given(rows())
@settings(max_examples=300, deadline=None)
def test_the_quick_reader_never_disagrees_with_the_exact_one(line: bytes) -> None:
    row = line.strip(b" \t\r")
    quick = quick_success(row) if row else None
    if quick is None:
        return
    exact = read_row(row)
    assert (exact.custom_id, exact.outcome) == (quick[0], "succeeded")
    assert row[quick[1] :].startswith(b'"response":')
    assert exact.usage == (None if quick[2] is None else bytes(quick[2]))


@given(st.sampled_from([(",", ":"), (", ", ": ")]), bodies.filter(bool), st.integers(200, 299), st.booleans())
def test_rows_as_services_write_them_take_the_quick_way(
    separators: tuple[str, str], body: dict[str, object], status: int, with_id: bool
) -> None:
    plain = {
        "".join(c for c in key if c.isalnum() and c.isascii()) or "k": value for key, value in body.items()
    }
    row = success("task-1", plain)
    row["response"]["status_code"] = status
    line = json.dumps({"id": "batch_req_1", **row} if with_id else row, separators=separators).encode()
    assert quick_success(line) is not None


@given(st.sampled_from([(",", ":"), (", ", ": ")]), bodies.filter(bool), st.data())
def test_a_repeated_key_is_found_at_every_level_that_is_read(
    separators: tuple[str, str], body: dict[str, object], data: st.DataObject
) -> None:
    comma, colon = separators
    row = success("task-1", body)
    level = data.draw(st.sampled_from(["row", "response", "body"]))
    members = {"row": row, "response": row["response"], "body": body}[level]
    key = data.draw(st.sampled_from(sorted(members)))
    again = f"{json.dumps(key)}{colon}{json.dumps(data.draw(st.sampled_from([members[key], 1, None])))}"
    inner = json.dumps(members, separators=separators)
    line = json.dumps(row, separators=separators).replace(inner, inner[:-1] + comma + again + "}", 1).encode()
    assert quick_success(line) is None
    with pytest.raises(GarbledRow) as refusal:
        read_row(line)
    assert refusal.value.custom_ids in ((), ("task-1",))
