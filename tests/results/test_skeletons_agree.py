"""The quick way and the exact way say the same of every row, and the exact way agrees with Python's reader."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langbatch.results.facts import Fact, facts, one_by_one
from langbatch.results.failures import Failures
from langbatch.results.rows import GarbledRow, quick_success, read_row
from langbatch.results.skeletons import PlainRows
from langbatch.results.usage import UsageSum
from results.joining import Tried, encoded, join, success
from results.test_join_properties import bodies, rows

#: What turns a sound row into another, or into none.
SPLICES = st.sampled_from(
    [
        b'"id":1,',
        b'"x":1,',
        b', "x": 1',
        b'"error":null,',
        b'"custom_id":"other",',
        b'"\\u0078":1,',
        b'\\"',
        b"\\",
        b'"',
        b"{",
        b"}",
        b"]",
        b",",
        b":",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\xff",
        b"\x00",
        b"0",
        b"-",
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Rows of a few shapes over and over, so that they fit one another's skeletons; a few are damaged."""
    data: bytes = draw(
        rows()
        | st.builds(_usual, st.integers(0, 9), st.integers(0, 3), bodies)
        | st.builds(_refused, st.integers(0, 9), st.integers(0, 6), MESSAGES)
    )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(SPLICES) + data[at + draw(st.integers(0, 3)) :]
    return data


def _usual(number: int, shape: int, said: dict[str, object]) -> bytes:
    body = {"choices": [said], "id": f"c{number}", "usage": {"prompt_tokens": number, "completion_tokens": 1}}
    if shape == 1:
        body["x"] = said
    row = success(f'r{number}"\\é' if shape == 2 else f"r{number}", body)
    return encoded({"id": "batch_req_1", **row} if shape == 3 else row)


MESSAGES = st.text(max_size=4) | st.sampled_from(
    ["", "retry after 7 s", "retry after 70 s", "r1", "1", 'say "no"', "\\", "ü", "429", "}"]
)


def _refused(number: int, shape: int, message: str) -> bytes:
    """What a service says that refuses: over HTTP, for a whole batch, or with less care."""
    error: dict[str, object] = {"message": message, "code": "429"}
    row = success(f"r{number}", {"error": error})
    row["response"]["status_code"] = 429
    row["response"]["request_id"] = f"{number}"
    match shape:
        case 1:
            row |= {"response": None, "error": {"code": "batch_expired", "message": message}}
        case 2:
            row = {"id": f"batch_req_{number}", **row}
        case 3:
            row["error"] = {"message": message, "code": "both"}
        case 4:
            error["code"] = message
        case 5:
            row["response"]["body"] = message
        case 6:
            row = {"response": row.pop("response"), **row}
        case _:
            pass
    return encoded(row)


def _facts(data: bytes) -> list[Fact]:
    with tempfile.TemporaryDirectory() as folder:
        piece = Path(folder, "piece")
        piece.write_bytes(data)
        with piece.open("rb", buffering=0) as file:
            return [fact for found in facts(file, 1 << 20) for fact in _each(file, found)]


def _each(file: BinaryIO, found: list[Fact] | PlainRows) -> list[Fact]:
    """Rows by columns, one by one; after a look at whether the columns say the same."""
    if not isinstance(found, PlainRows):
        return found
    rows = list(one_by_one(file, found))
    usage = UsageSum()
    for _, _, _, _, used, _ in rows:
        if used is not None:
            usage.add(used)
    assert found.usage.total() == usage.total()
    columns = zip(found.offsets, found.lengths, found.custom_ids, found.splices, strict=True)
    assert list(columns) == [row[:4] for row in rows]
    assert (found.start, found.end) == (rows[0][0], rows[-1][0] + rows[-1][1] + 1)
    return rows


def _exact_facts(data: bytes) -> list[tuple[int, int, object, object]]:
    """Where each row lies, its length, whose it is, and its outcome and usage; by the exact reader alone."""
    found: list[tuple[int, int, object, object]] = []
    at = 0
    for line in data.split(b"\n"):
        row = line.strip(b" \t\r")
        if row:
            place = at + len(line) - len(line.lstrip(b" \t\r"))
            try:
                said = read_row(row)
            except GarbledRow as garbled:
                found.append((place, len(row), garbled.custom_ids, None))
            else:
                found.append((place, len(row), said.custom_id, (said.outcome, said.usage)))
        at += len(line) + 1
    return found


#: Rows enough that those after them are read by columns, as long as they are like these.
STEADY = [_usual(number, 0, {"x": "y" * 900}) for number in range(40)]


@settings(max_examples=400, deadline=None)
@given(st.lists(lines(), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"]), st.booleans())
# Lines that are one JSON value together, though each is none.
@example([_usual(1, 0, {}), b'{"custom_id":', b'"r1"}', _usual(2, 0, {})], b"\n", True)
@example([_usual(1, 0, {}), b"[", _usual(2, 0, {}), b"]", _usual(3, 0, {})], b"\n", True)
# The values of the second row stand, unescaped, in the third line.
@example(
    [
        _usual(1, 0, {}),
        b'{"custom_id":\n"r\\", \\"y\\": \\"z", "response": {"status_code": 200, "body": {}}}',
        _usual(1, 0, {}).replace(b'"r1"', b'"r", "y": "z"'),
    ],
    b"\n",
    True,
)
def test_a_file_of_rows_reads_as_its_rows_read_one_by_one(
    given_lines: list[bytes], newline: bytes, last_ends: bool
) -> None:
    _require_agreement(newline.join(given_lines) + (newline if last_ends else b""))


@settings(max_examples=400, deadline=None)
@given(st.lists(lines() | st.sampled_from(STEADY), max_size=8), st.booleans())
@example([_usual(1, 0, {}), b'{"custom_id":', b'"r1"}', _usual(2, 0, {})], True)
@example([STEADY[1].replace(b'"r1"', b'"\xff"')], True)
@example([STEADY[1].replace(b'"r1"', b'"\\ud800"')], True)
@example([STEADY[1].replace(b'"yyy', b'"\xffyyy')], True)
@example([STEADY[1].replace(b"{", b"{\n", 3)], True)
@example([STEADY[1].replace(b'"prompt_tokens": 1', b'"prompt_tokens": "1"'), STEADY[2]], True)
@example([STEADY[1].replace(b'"prompt_tokens": 1', b'"prompt_tokens": null'), STEADY[2]], True)
@example([STEADY[1].replace(b', "usage"', b', "id": "c1", "usage"'), STEADY[2]], True)
@example([STEADY[1], STEADY[2]], False)
def test_rows_read_by_columns_say_what_each_says_alone(given_lines: list[bytes], last_ends: bool) -> None:
    _require_agreement(b"\n".join([*STEADY, *given_lines]) + (b"\n" if last_ends else b""))


def test_rows_that_are_all_alike_are_read_by_columns(tmp_path: Path) -> None:
    piece = tmp_path / "piece"
    piece.write_bytes(b"\n".join([*STEADY, *STEADY, b""]))
    with piece.open("rb", buffering=0) as file:
        found = list(facts(file, 1 << 20))
    by_columns = sum(len(some.lengths) for some in found if isinstance(some, PlainRows))
    # The first tells what the others look like.
    assert by_columns == len([*STEADY, *STEADY]) - 1


def _require_agreement(data: bytes) -> None:
    quick = _facts(data)
    assert [
        (
            at,
            length,
            whose,
            None if isinstance(whose, tuple) else ("succeeded" if row is None else row.outcome, usage),
        )
        for at, length, whose, _, usage, row in quick
    ] == _exact_facts(data)
    for at, length, _, splice, _, row in quick:
        if row is not None:
            assert row == read_row(data[at : at + length])
        if splice and row is None:
            assert data[at + splice :].startswith(b'"response":')


def test_a_later_row_around_another_message_says_what_the_exact_reader_says() -> None:
    failures = Failures()
    texts = [_refused(number, shape, f"retry after {number} s") for shape in (0, 1, 2) for number in range(5)]
    taken = []
    for text in texts:
        said, exact = failures.read(text), read_row(text)
        assert said is None or said == exact
        taken.append(said is not None)
        failures.learn(text, exact)
    assert taken == [False, *[True] * 4] * 3


def test_what_varies_after_all_is_taken_back() -> None:
    """A model that is the same in a hundred rows, then another; and rows of two shapes by turns."""
    steady = [_usual(1, 0, {"x": "y" * 900}) for _ in range(200)]
    other = [line.replace(b'"c1"', b'"c%d"' % n) for n, line in enumerate(steady)]
    mixed = [_usual(1, n % 2, {"x": "y" * 900}) for n in range(200)]
    data = b"\n".join([*steady, *other, *mixed, *steady])
    found = _facts(data)
    assert len(found) == 800
    assert {(row, splice > 0) for _, _, _, splice, _, row in found} == {(None, True)}
    assert [(at, length, whose) for at, length, whose, *_ in found] == [
        (at, length, whose) for at, length, whose, _ in _exact_facts(data)
    ]


def test_rows_of_one_shape_are_read_by_comparison(tmp_path: Path) -> None:
    data = b"\n".join(_usual(number, shape, {"x": "y"}) for shape in (0, 1, 3) for number in range(5))
    assert [(row, splice > 0) for _, _, _, splice, _, row in _facts(data)] == [(None, True)] * 15


@settings(max_examples=300, deadline=None)
@given(lines())
def test_what_the_exact_reader_takes_has_no_key_twice_for_pythons_reader_either(line: bytes) -> None:
    try:
        read_row(line.strip(b" \t\r\n"))
    except GarbledRow:
        return
    row = _unrepeated(json.loads(line, object_pairs_hook=tuple))
    response = _unrepeated(row.get("response"))
    for part in (response.get("body"), row.get("error")):
        _unrepeated(part)


def _unrepeated(pairs: object) -> dict[str, object]:
    """The members of an object, none of any other value."""
    if not isinstance(pairs, tuple):
        return {}
    members = dict(pairs)
    assert len(members) == len(pairs)
    return members


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "a","response":{"status_code":200,"body":{"x":1}},"error":null,"k":1,"k":1}',
        b'{"custom_id":"a","response":{"status_code": 200,"request_id":1,"body":{"x":1},"k":1,"k":1},"error":null}',
        b'{"custom_id":"a","response":{"status_code":200,"body":{"a": 1,"b":2,"c":3,"d":4,"a":1}},"error":null}',
    ],
    ids=["row", "response", "body"],
)
def test_gaps_left_out_do_not_hide_a_repeated_key(line: bytes) -> None:
    """Behind the other separators as many spaces are saved as the repetition takes."""
    assert quick_success(line) is None
    with pytest.raises(GarbledRow):
        read_row(line)


def _row(start: str, body: str, number: int) -> bytes:
    return f'{{"custom_id":"r{number}",{start}{{"status_code":200,"body":{body}}},"error":null}}'.encode()


@pytest.mark.parametrize(
    ("start", "body"),
    [
        # The row's own key is spelled in another way than a body's key of that name.
        ('"response" :', '{"response":"x","v":1}'),
        ('"respons\\u0065":', '{"response":"x","v":1}'),
        # Keys that no field of a struct may have, and the empty one.
        ('"response":', '{"a\\"b":NUMBER,"v":1}'),
        ('"response":', '{"a\\\\b":NUMBER,"v":1}'),
        ('"response":', '{"a\\u0001b":NUMBER,"v":1}'),
        ('"response":', '{"":"x","v":NUMBER}'),
    ],
    ids=["space", "escaped", "quote", "backslash", "control", "empty"],
)
def test_odd_keys_in_many_rows_alike_harm_nothing(tmp_path: Path, start: str, body: str) -> None:
    ids = [f"r{number}" for number in range(40)]
    rows = [_row(start, body.replace("NUMBER", str(number)), number) for number in range(40)]
    joined = join(tmp_path, ids, Tried(rows))
    for number, record in enumerate(joined.records):
        response = json.loads(body.replace("NUMBER", str(number)))
        assert (record["custom_id"], record["outcome"]) == (f"r{number}", "succeeded")
        assert record["response"]["body"] == response
    _require_agreement(b"\n".join([*rows, b""]))
