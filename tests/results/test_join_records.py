"""What a single row becomes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from langbatch.records import Tally, Unsuccessful, Usage
from langbatch.results.join import AttemptPieces, Piece, Verdict, join_shard
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success


def test_records_come_in_input_order_whatever_the_order_of_rows(tmp_path: Path) -> None:
    rows = [encoded(success(name)) for name in ("c", "a", "b")]
    joined = join(tmp_path, ["a", "b", "c"], Tried(rows))
    assert [record["custom_id"] for record in joined.records] == ["a", "b", "c"]
    assert [record["line"] for record in joined.records] == [10, 11, 12]
    assert joined.report.tally == Tally(succeeded=3)


@pytest.mark.parametrize("compact", [True, False])
def test_a_success_has_the_fields_of_the_contract(tmp_path: Path, compact: bool) -> None:
    joined = join(tmp_path, ["a"], Tried([encoded(success("a"), compact=compact)]))
    assert joined.records == [
        {
            "custom_id": "a",
            "outcome": "succeeded",
            "line": 10,
            "attempt": 1,
            "response": {"status_code": 200, "request_id": "req", "body": chat_body()},
            "error": None,
        }
    ]


@pytest.mark.parametrize(
    "response",
    [
        b'{"status_code": 200, "request_id": "r", "body": {"n": 12345678901234567890123, "f": 1.50e3}}',
        b'{ "body":{"text":"\xe2\x80\xa8 raw \xc2\x85"} ,"status_code":200}',
        b'{"status_code":201,"body":{"text":"\\u00e9\\/ \\ud83d\\ude00"},"request_id":null}',
        b'{"status_code":200,"body":"not an object","more":{"b":1,"a":[1, 2]}}',
        b'{"status_code":200,"body":{}}',
        b'{"status_code":200,"body":{"text":"half a pair \\ud800"}}',
        b'{"status_code":200,"body":{"\xc3\xa9":1,"usage":null}}',
    ],
)
def test_response_bytes_are_passed_through_exactly(tmp_path: Path, response: bytes) -> None:
    joined = join(tmp_path, ["a"], Tried([b'{"custom_id":"a","response":' + response + b',"error":null}']))
    assert joined.outcomes == ["succeeded"]
    assert response in joined.lines[0]
    assert joined.report.quarantined == 0


def test_other_fields_of_a_row_are_kept(tmp_path: Path) -> None:
    plain = encoded({"id": "batch_req_1", **success("a")})
    odd = encoded({**never_ran("b"), "id": "batch_req_2", "trace": {"x": 1}})
    joined = join(tmp_path, ["a", "b"], Tried([plain, odd]))
    assert joined.records[0]["id"] == "batch_req_1"
    assert joined.records[1]["id"] == "batch_req_2"
    assert joined.records[1]["trace"] == {"x": 1}


def test_our_fields_never_land_inside_a_field_of_the_provider(tmp_path: Path) -> None:
    row = encoded({"id": {"response": 1}, **success("a")})
    [record] = join(tmp_path, ["a"], Tried([row])).records
    assert (record["id"], record["outcome"]) == ({"response": 1}, "succeeded")


def test_a_providers_field_never_replaces_one_of_ours(tmp_path: Path) -> None:
    row = encoded(success("a", outcome="great", line=99, attempt=77))
    [line] = join(tmp_path, ["a"], Tried([row])).lines
    pairs = json.loads(line, object_pairs_hook=list)
    assert [key for key, _ in pairs] == ["custom_id", "outcome", "line", "attempt", "response", "error"]
    assert dict(pairs)["outcome"] == "succeeded"
    assert dict(pairs)["line"] == 10


def test_an_absent_error_is_null_in_the_record(tmp_path: Path) -> None:
    joined = join(
        tmp_path, ["a"], Tried([b'{"custom_id":"a","response":{"status_code":200,"body":{"x":1}}}'])
    )
    assert joined.records[0]["error"] is None
    assert joined.outcomes == ["succeeded"]


def test_an_id_may_hold_anything_a_string_can(tmp_path: Path) -> None:
    ids = ["../../x", "CON", "new\nline", '"quoted" {"response":', "é\u2028ü", "😀", "\\ud800"]
    rows = [encoded(success(name)) for name in ids] + [encoded(never_ran("last"))]
    joined = join(tmp_path, [*ids, "last"], Tried(rows))
    assert [record["custom_id"] for record in joined.records] == [*ids, "last"]
    assert joined.report.tally == Tally(succeeded=len(ids), expired=1)


def test_http_failure_fills_error_from_the_response_body(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried([], [encoded(http_failure("a"))]), first_ordinal=500)
    assert joined.outcomes == ["errored"]
    assert joined.records[0]["error"] == {"code": "content_filter", "message": "no such thing"}
    assert joined.records[0]["response"] == http_failure("a")["response"]
    assert joined.report.unsuccessful == [Unsuccessful(500, 10, "errored", "content_filter", 1)]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, {"error": {"message": "broken", "code": None}}, "http_500"),
        (503, "<html>busy</html>", "http_503"),
        (429, {"error": {"code": "429", "message": "slow down"}}, "429"),
        (404, {"error": {"code": 404, "message": "gone"}}, "404"),
        (401, {"statusCode": 401, "message": "Unauthorized."}, "http_401"),
        (400, {"error": "plain words"}, "http_400"),
        (400, {"error": {"code": "", "message": None}}, "http_400"),
        (0, {}, "http_0"),
        (0, None, "http_0"),
        (302, {"x": 1}, "http_302"),
        (199, {"x": 1}, "http_199"),
        (300, chat_body(), "http_300"),
        (-1, {}, "http_-1"),
    ],
)
def test_a_status_outside_2xx_is_errored_with_the_best_code_there_is(
    tmp_path: Path, status: int, body: object, code: str
) -> None:
    row = {"custom_id": "a", "response": {"status_code": status, "body": body}, "error": None}
    joined = join(tmp_path, ["a"], Tried([encoded(row)]))
    assert (joined.outcomes, joined.codes) == (["errored"], [code])
    assert joined.records[0]["error"]["message"]


def test_an_error_beside_a_2xx_response_is_no_success(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried([encoded(success("a", error={"code": "late", "message": "x"}))]))
    assert (joined.outcomes, joined.codes) == (["errored"], ["late"])
    assert joined.records[0]["response"]["status_code"] == 200


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("batch_expired", "expired"),
        ("batch_cancelled", "cancelled"),
        ("batch_canceled", "cancelled"),
        ("cancelled", "cancelled"),
        ("server_error", "errored"),
    ],
)
def test_rows_that_never_ran_end_by_their_code(tmp_path: Path, code: str, outcome: str) -> None:
    joined = join(tmp_path, ["a"], Tried([], [encoded(never_ran("a", code))]))
    assert (joined.outcomes, joined.codes) == ([outcome], [code])


def test_an_http_failure_that_speaks_of_expiry_is_errored(tmp_path: Path) -> None:
    body = {"error": {"code": "expired", "message": "the token has expired"}}
    assert join(tmp_path, ["a"], Tried([encoded(http_failure("a", 401, body))])).outcomes == ["errored"]


def test_a_row_with_neither_response_nor_error_is_errored(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried([b'{"custom_id":"a","response":null,"error":null}']))
    assert (joined.outcomes, joined.codes) == (["errored"], ["http_0"])


def test_an_error_of_odd_shape_still_gives_code_and_message(tmp_path: Path) -> None:
    rows = [
        b'{"custom_id":"a","response":null,"error":"just text"}',
        b'{"custom_id":"b","response":null,"error":{"code":17,"message":{"deep":1}}}',
    ]
    joined = join(tmp_path, ["a", "b"], Tried(rows))
    assert joined.records[0]["error"] == {"code": "http_0", "message": "just text"}
    assert joined.codes[1] == "17"
    assert isinstance(joined.records[1]["error"]["message"], str)


def test_a_services_code_is_stored_printable_and_short(tmp_path: Path) -> None:
    code = "\x1b[31mred\u202e" + "x." * 150
    joined = join(tmp_path, ["a"], Tried([encoded(never_ran("a", code))]))
    [stored] = joined.report.unsuccessful
    assert stored.code == ("[31mred" + "x." * 150)[:100]
    assert joined.codes == [code]


def test_usage_is_summed_over_kept_successes_in_every_spelling(tmp_path: Path) -> None:
    chat = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    responses = {
        "input_tokens": 100,
        "output_tokens": 50,
        "input_tokens_details": {"cached_tokens": 20},
        "output_tokens_details": {"reasoning_tokens": 10},
    }
    rows = [
        encoded(success("chat", {"usage": chat})),
        encoded(success("chat", {"usage": chat})),
        encoded(success("chat", {"usage": chat, "other": 1})),
        encoded(success("responses", {"usage": responses})),
        encoded(success("embedding", {"usage": {"prompt_tokens": 1000, "total_tokens": 1000}})),
        encoded(success("odd", {"usage": {"prompt_tokens": "many"}})),
        encoded(success("none", {"usage": None})),
    ]
    ids = ["chat", "responses", "embedding", "odd", "none"]
    joined = join(tmp_path, ids, Tried(rows))
    assert joined.report.tally.succeeded == 5
    assert joined.report.usage == Usage(1110, 55, 22, 11)


def test_usage_of_many_rows_adds_up(tmp_path: Path) -> None:
    ids = [f"task-{number}" for number in range(1000)]
    odd = [encoded(success("odd", {"usage": {"prompt_tokens": "many"}}))]
    joined = join(tmp_path, [*ids, "odd"], Tried(odd + [encoded(success(name)) for name in ids]))
    assert joined.report.usage == Usage(7000, 3000)


def test_usage_stays_unknown_where_no_row_reports_any(tmp_path: Path) -> None:
    joined = join(tmp_path, ["a"], Tried([encoded(success("a", {"x": 1}))]))
    assert joined.report.usage == Usage()


def test_a_shard_without_requests_writes_nothing(tmp_path: Path) -> None:
    joined = join(tmp_path, [], Tried([encoded(success("a"))]))
    assert joined.lines == []
    assert joined.report.tally == Tally()
    assert joined.report.notes == {"unknown_id": 1}


def test_rows_longer_than_a_block_are_joined_whole(tmp_path: Path) -> None:
    texts = {name: name * (3 << 20) for name in "ab"}
    rows = [encoded(success(name, chat_body(text))) for name, text in texts.items()]
    joined = join(tmp_path, ["b", "a"], Tried(rows, final_newline=False), max_row_bytes=8 << 20)
    read = [record["response"]["body"]["choices"][0]["message"]["content"] for record in joined.records]
    assert read == [texts["b"], texts["a"]]


def test_records_never_share_a_custom_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ"):
        join(tmp_path, ["a", "a"], Tried())


@pytest.mark.parametrize(("count", "text_bytes"), [(8000, 4_000), (200, 160_000)])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, count: int, text_bytes: int) -> None:
    ids = [f"task-{number}" for number in range(count)]
    rows = [encoded(success(name, chat_body("x" * text_bytes))) for name in reversed(ids)]
    (tmp_path / "output.jsonl").write_bytes(b"\n".join(rows))
    del rows
    attempt = AttemptPieces(
        1, (Piece(1, tmp_path / "output.jsonl", "output"),), Verdict(1, "missing", "missing", "")
    )
    lines = range(1, len(ids) + 1)
    with (tmp_path / "out").open("wb") as out, (tmp_path / "aside").open("wb") as aside:
        tracemalloc.start()
        try:
            report = join_shard(ids, lines, 0, [attempt], out, aside)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert report.tally.succeeded == len(ids)
    assert (tmp_path / "out").stat().st_size > 30_000_000
    assert peak_bytes < 12_000_000


def test_rows_longer_than_what_is_written_at_once_keep_their_place_and_bytes(tmp_path: Path) -> None:
    sizes = {"a": 10, "b": 300_000, "c": 200_000, "d": 100_000, "e": 262_000, "f": 10}
    rows = [encoded(success(custom_id, chat_body("x" * size))) for custom_id, size in sizes.items()]
    long_failure = encoded(
        {"custom_id": "g", "response": None, "error": {"code": "odd", "message": "y" * 300_000}}
    )
    joined = join(tmp_path, [*sizes, "g"], Tried(list(reversed(rows)), [long_failure]))
    assert joined.outcomes == ["succeeded"] * 6 + ["errored"]
    for row, line in zip([*rows, long_failure], joined.lines, strict=True):
        given, kept = json.loads(row), json.loads(line)
        assert (kept["custom_id"], kept["response"], kept["error"]) == (
            given["custom_id"],
            given["response"],
            given["error"],
        )
    for row, line in zip(rows, joined.lines[:-1], strict=True):
        assert line.endswith(row[row.index(b'"response"') :])
