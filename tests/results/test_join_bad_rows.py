"""Rows 56 to 58 of the bad-input catalogue: garbled, missing, unknown and repeated rows."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from langbatch.records import Tally
from langbatch.results.pieces import piece_blocks
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success

GOOD = encoded(success("good"))

GARBLED_WITH_ID = [
    pytest.param(b'{"custom_id":"a","response":{"status_code":200,"bo', id="cut"),
    pytest.param(b'{"custom_id":"a","response":{"x":NaN},"error":null}', id="nan"),
    pytest.param(b'{"custom_id":"a","response":{"x":-Infinity},"error":null}', id="infinity"),
    pytest.param(b'{"custom_id":"a","response":{"x":"\xff\xfe"},"error":null}', id="invalid-utf8"),
    pytest.param(
        b'{"custom_id":"a","response":{"status_code":200,"body":{"x":"\xff"}},"error":null}',
        id="invalid-utf8-in-a-success",
    ),
    pytest.param(b'{"custom_id":"a","response":{"x":"\x00"},"error":null}', id="raw-nul"),
    pytest.param(encoded(success("a")) + b"}", id="trailing-brace"),
    pytest.param(encoded(success("a"))[:-1] + b', "error": null}', id="error-twice"),
    pytest.param(encoded(success("a"), compact=True)[:-1] + b',"response":null}', id="response-twice"),
    pytest.param(b'{"custom_id":"a","custom_id":"a","response":null,"error":null}', id="id-twice"),
    pytest.param(
        b'{"custom_id":"a","response":{"status_code":500,"status_code":200,"body":{"x":1}},"error":null}',
        id="status-twice",
    ),
    pytest.param(
        b'{"custom_id":"a","response":{"status_code":200,"body":{"x":1,"x":2}},"error":null}',
        id="body-key-twice",
    ),
    pytest.param(
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": 1, "y": 2, "x": 1}}, '
        b'"error": null}',
        id="body-key-twice-spaced",
    ),
    pytest.param(b'{"custom_id":"a","response":null,"error":{"code":"x","code":"y"}}', id="code-twice"),
    pytest.param(b'{"custom_id":"a","response":"text","error":null}', id="response-is-text"),
    pytest.param(
        b'{"custom_id":"a","response":{"status_code":"200","body":{}},"error":null}', id="status-text"
    ),
    pytest.param(b'{"custom_id":"a","response":{"body":{}},"error":null}', id="status-absent"),
    pytest.param(
        b'{"custom_id":"a","response":{"status_code":true,"body":{}},"error":null}', id="status-bool"
    ),
    pytest.param(b'{"custom_id":"a","response":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
    pytest.param(b'rubbish "custom_id" : "\\u0061", more', id="escaped-id-in-rubbish"),
]

GARBLED_WITHOUT_ID = [
    pytest.param(b"<html>502 Bad Gateway</html>", id="html"),
    pytest.param(b'{"custom_id":"a', id="cut-in-the-id"),
    pytest.param(b'{"custom_id":"a\xff","response":null,"error":null}', id="id-invalid-utf8"),
    pytest.param(b'["custom_id","a"]', id="array"),
    pytest.param(b'"a"', id="string"),
    pytest.param(b"null", id="null"),
    pytest.param(b'{"response":{"status_code":200,"body":{"x":1}},"error":null}', id="no-id"),
    pytest.param(b'{"custom_id":7,"response":null,"error":null}', id="id-is-a-number"),
    pytest.param(b'{"custom_id":null,"response":null,"error":null}', id="id-is-null"),
    pytest.param(b"{}", id="empty-object"),
    pytest.param(b"\x00\x00\x00", id="nul-bytes"),
]


@pytest.mark.parametrize("line", GARBLED_WITH_ID)
def test_bad_56_a_garbled_row_with_a_readable_id_is_unreadable_and_quarantined(
    tmp_path: Path, line: bytes
) -> None:
    joined = join(tmp_path, ["a", "good"], Tried([line, GOOD]))
    assert joined.outcomes == ["unreadable", "succeeded"]
    assert joined.codes == ["unreadable", None]
    assert joined.records[0]["response"] is None
    assert joined.quarantine == line + b"\n"
    assert joined.report.quarantined == 1
    assert joined.report.notes == {"malformed": 1}
    assert joined.report.silent == 0


@pytest.mark.parametrize("line", GARBLED_WITHOUT_ID)
def test_bad_56_a_garbled_row_without_an_id_leaves_its_request_missing(tmp_path: Path, line: bytes) -> None:
    joined = join(tmp_path, ["a", "good"], Tried([GOOD, line]))
    assert joined.outcomes == ["missing", "succeeded"]
    assert joined.quarantine == line + b"\n"
    assert joined.report.notes == {"malformed": 1}
    assert joined.report.silent == 1


def test_bad_56_two_rows_run_together_are_both_unreadable(tmp_path: Path) -> None:
    line = encoded(success("a")) + encoded(success("b"))
    joined = join(tmp_path, ["a", "b", "good"], Tried([line, GOOD]))
    assert joined.outcomes == ["unreadable", "unreadable", "succeeded"]
    assert joined.report.quarantined == 1


def test_bad_56_an_id_quoted_inside_an_answer_is_not_taken_for_the_rows_own(tmp_path: Path) -> None:
    broken = encoded(success("a", chat_body('{"custom_id": "good"}')))[:-1]
    joined = join(tmp_path, ["a", "good"], Tried([broken]))
    assert joined.outcomes == ["unreadable", "missing"]


def test_bad_56_a_garbled_row_does_not_spoil_a_good_one_of_the_same_request(tmp_path: Path) -> None:
    broken = GOOD[:-3]
    for order in ([broken, GOOD], [GOOD, broken]):
        joined = join(tmp_path, ["good"], Tried(order))
        assert joined.outcomes == ["succeeded"]
        assert joined.quarantine == broken + b"\n"


def test_bad_56_a_row_over_the_size_limit_is_streamed_to_quarantine(tmp_path: Path) -> None:
    huge = encoded(success("a", chat_body("x" * (5 << 20))))
    joined = join(tmp_path, ["a", "good"], Tried([huge, GOOD]), max_row_bytes=2 << 20)
    assert joined.outcomes == ["unreadable", "succeeded"]
    assert joined.quarantine == huge + b"\n"
    assert joined.report.notes == {"oversized": 1}
    at_the_end = join(tmp_path, ["good", "a"], Tried([GOOD, huge], final_newline=False), max_row_bytes=4096)
    assert at_the_end.outcomes == ["succeeded", "unreadable"]
    assert at_the_end.quarantine == huge + b"\n"


def test_bad_56_an_oversized_row_is_never_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as file:
        file.write(b'{"custom_id":"a","x":"')
        for _ in range(40):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + GOOD)
    tracemalloc.start()
    try:
        with (tmp_path / "output").open("rb", buffering=0) as file:
            found = [(at, text[:21], oversized) for at, text, oversized in piece_blocks(file, 2 << 20)]
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (tmp_path / "output").stat().st_size
    assert found == [
        (0, b'{"custom_id":"a","x":', size - len(GOOD) - 1),
        (size - len(GOOD), GOOD[:21], 0),
    ]
    assert peak_bytes < 10_000_000


def test_bad_56_a_last_row_without_newline_counts(tmp_path: Path) -> None:
    joined = join(tmp_path, ["good"], Tried([GOOD], final_newline=False))
    assert joined.outcomes == ["succeeded"]


def test_bad_56_blank_lines_carriage_returns_and_a_bom_are_no_rows(tmp_path: Path) -> None:
    lines = [b"\xef\xbb\xbf" + encoded(success("a")) + b"\r", b"", b"  \t\r", b" " + GOOD + b" \r"]
    joined = join(tmp_path, ["a", "good"], Tried(lines))
    assert joined.outcomes == ["succeeded", "succeeded"]
    assert joined.report.quarantined == 0
    assert b"\r" not in b"".join(joined.lines)


def test_bad_57_a_request_without_a_row_is_missing_and_the_sum_balances(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a", "good", "b"], Tried([GOOD]))
    assert joined.outcomes == ["missing", "succeeded", "missing"]
    assert joined.codes == ["missing", None, "missing"]
    assert joined.report.tally == Tally(succeeded=1, missing=2)
    assert joined.report.silent == 2
    assert [item.ordinal for item in joined.report.unsuccessful] == [0, 2]


def test_bad_57_an_unknown_id_is_quarantined(tmp_path: Path) -> None:
    stranger = encoded(success("stranger"))
    joined = join(tmp_path, ["good"], Tried([stranger, GOOD]))
    assert joined.outcomes == ["succeeded"]
    assert joined.quarantine == stranger + b"\n"
    assert joined.report.notes == {"unknown_id": 1}


def test_bad_57_a_row_for_a_request_that_its_attempt_did_not_send_is_quarantined(tmp_path: Path) -> None:
    extra = encoded(success("b"))
    tried = Tried([encoded(success("a")), extra], sent=frozenset({100}))
    joined = join(tmp_path, ["a", "b"], tried, first_ordinal=100)
    assert joined.outcomes == ["succeeded", "missing"]
    assert joined.quarantine == extra + b"\n"
    assert joined.records[1]["attempt"] == 0


def test_bad_57_ids_are_compared_exactly(tmp_path: Path) -> None:
    ids = ["id", "ID", "e\u0301", "\u00e9", " id"]
    joined = join(tmp_path, ids, Tried([encoded(success(name)) for name in ("ID", "\u00e9")]))
    assert joined.outcomes == ["missing", "succeeded", "missing", "succeeded", "missing"]


def test_bad_58_identical_rows_are_kept_once(tmp_path: Path) -> None:
    for row in (GOOD, encoded(http_failure("good"))):
        joined = join(tmp_path, ["good"], Tried([row, row], [row]))
        assert len(joined.lines) == 1
        assert joined.report.notes == {"duplicate_identical": 2}
        assert joined.report.quarantined == 0


def test_bad_58_a_success_beats_an_error_in_the_other_file(tmp_path: Path) -> None:
    failure = encoded(http_failure("good"))
    for tried in (Tried([GOOD], [failure]), Tried([failure], [GOOD])):
        joined = join(tmp_path, ["good"], tried)
        assert joined.outcomes == ["succeeded"]
        assert joined.report.unsuccessful == []
        assert joined.report.notes == {"both_files": 1}
        assert joined.quarantine == failure + b"\n"


def test_bad_58_of_two_successes_the_first_is_kept_and_the_rest_quarantined(tmp_path: Path) -> None:
    rows = [encoded(success("good", chat_body(text))) for text in ("first", "second", "third")]
    joined = join(tmp_path, ["good"], Tried(rows))
    assert joined.records[0]["response"]["body"] == chat_body("first")
    assert joined.quarantine == rows[1] + b"\n" + rows[2] + b"\n"
    assert joined.report.notes == {"duplicate_conflicting": 2}
    assert joined.report.usage.input_tokens == 7


def test_bad_58_of_two_failures_the_first_is_kept(tmp_path: Path) -> None:
    rows = [encoded(never_ran("a", code)) for code in ("batch_expired", "server_error")]
    joined = join(tmp_path, ["a"], Tried(rows))
    assert joined.outcomes == ["expired"]
    assert joined.quarantine == rows[1] + b"\n"


@pytest.mark.parametrize("rows_before", [1, 400])
def test_a_row_broken_over_two_lines_is_two_garbled_ones(tmp_path: Path, rows_before: int) -> None:
    """Together they are sound JSON; but a row ends at its newline, and so must a record."""
    ids = [f"r{number}" for number in range(rows_before)]
    lines = [encoded(success(custom_id, chat_body(custom_id))) for custom_id in ids]
    lines += (
        encoded(success("broken", chat_body("text"))).replace(b'"choices": [', b'"choices": [\n').split(b"\n")
    )
    joined = join(tmp_path, [*ids, "broken"], Tried([*lines, lines[0]]))
    assert joined.outcomes == ["succeeded"] * rows_before + ["unreadable"]
    assert joined.report.notes == {"malformed": 2, "duplicate_identical": 1}


def test_a_code_that_looks_like_a_key_is_masked_before_it_is_stored_or_shown(tmp_path: Path) -> None:
    key = "sk-" + "abcdefghijklmnopqrstuvwxyz123456"
    joined = join(tmp_path, ["a", "b"], Tried([encoded(never_ran("a", key)), encoded(never_ran("b", key))]))
    assert joined.outcomes == ["errored", "errored"]
    assert {item.code for item in joined.report.unsuccessful} == {"sk-***"}
