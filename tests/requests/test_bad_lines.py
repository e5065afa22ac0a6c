"""Rows 15 to 34 of the bad-input catalogue: single lines."""

from __future__ import annotations

import json
import resource
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from input_files import AZURE, OPENAI, chat, embedding, faults, intake_of, keep, line, warned, write
from langbatch.errors import BatchValidationError
from langbatch.records import Limits
from langbatch.requests.validation import Rules, kind_of_first, refusal
from langbatch.shards.snapshot import Snapshot


def second(tmp_path: Path, bad: bytes | dict[str, Any], rules: Rules = AZURE, **changes: Any) -> list[str]:
    """Codes found on the middle line of three; the other two must be fine."""
    path = write(tmp_path, [chat("first"), bad, chat("third")])
    intake = intake_of(path, rules, **changes)
    assert {number for number, _ in faults(intake)} <= {2}
    for problem in intake.problems:
        assert problem.byte_offset == len(line(chat("first"))) + 1
    assert intake.total + intake.rejected == 3
    return [problem.code for problem in intake.problems]


def raw(value: bytes, key: bytes = b"seed") -> bytes:
    """A chat line whose body holds this value, as written."""
    return line(chat("b")).replace(b'"model"', b'"' + key + b'": ' + value + b', "model"')


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense",
        line(chat("b"))[:-1],
        line(chat("b")) + b" trailing",
        line(chat("b")) + line(chat("c")),
        line(chat("b")) + b",",
        b"[" + line(chat("b")),
        b'{"custom_id": "b",}',
        b"{'custom_id': 'b'}",
        raw(b"01"),
        raw(b"1."),
        raw(b".5"),
        raw(b"+1"),
        raw(b"tru"),
        raw(b'"\\q"'),
        raw(b'"\\u12g4"'),
        raw(b'"tab\there"'),
        raw(b"[1,]"),
        raw(b"[1 2]"),
        raw(b'{"a" 1}'),
        raw(b"{1: 2}"),
        raw(b"\x0b1"),
        b'"',
        b"{",
    ],
)
def test_bad_15_broken_json_is_refused(tmp_path: Path, broken: bytes) -> None:
    assert second(tmp_path, broken) == ["invalid_json_line"]


@pytest.mark.parametrize("other", [b"[]", b'"text"', b"null", b"true", b"1", b'["not", "an", "object"]'])
def test_bad_16_json_that_is_no_object_is_refused(tmp_path: Path, other: bytes) -> None:
    assert second(tmp_path, other) == ["not_an_object"]


@pytest.mark.parametrize("key", [b"seed", b"temperature", b"unheard_of"])
@pytest.mark.parametrize(
    "number",
    [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1E+0400", b"1" * 400 + b".0", b"[[1e999]]"],
)
def test_bad_17_numbers_that_are_none_are_refused(tmp_path: Path, key: bytes, number: bytes) -> None:
    assert "invalid_number" in second(tmp_path, raw(number, key))


def test_bad_17_numbers_in_message_parts_are_checked(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "x", "odd": 1}]
    assert second(tmp_path, line(chat("b", content)).replace(b"1}", b"1e400}")) == ["invalid_number"]


@pytest.mark.parametrize(
    "doubled",
    [
        line(chat("b")).replace(b'"method"', b'"method": "GET", "method"'),
        line(chat("b")).replace(b'"custom_id"', b'"custom_id": "x", "custom_id"'),
        line(chat("b")).replace(b'"method"', b'"cust\\u006fm_id": "x", "method"'),
        line(chat("b"))[:-1] + b', "url": "/chat/completions"}',
        line(chat("b")).replace(b'"model"', b'"model": "dep", "model"'),
        line(chat("b")).replace(b'"model"', b'"messages": [{"role": "user", "content": "x"}], "model"'),
        line(chat("b"))[:-2] + b', "mod\\u0065l": "dep"}}',
        line(chat("b"))[:-1] + b', "body": ' + json.dumps(chat()["body"]).encode() + b"}",
        json.dumps(chat("b"), separators=(",", ":")).encode()[:-2] + b',"n":1,"n":1}}',
    ],
)
def test_bad_18_repeated_keys_are_refused(tmp_path: Path, doubled: bytes) -> None:
    assert second(tmp_path, doubled) == ["duplicate_key"]


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        (b'"role"', b'"role": "system", "role"'),
        (b'"content"', b'"content": "", "content"'),
        (b'"content"', b'"c\\u006fntent": "a \\" b \\\\", "content"'),
        (b'"content": "hello"', b'"content": "", "content": "\\u0022\\u0022\\u0022\\u0022"'),
        (b'"model"', b'"metadata": {"a": 1, "a": 2}, "model"'),
        (b'"model"', b'"odd": [[{"a": {"b": 1, "c": {}, "b": 2}}]], "model"'),
        (
            b'"messages"',
            b'"tools": [{"type": "function", "function": {"name": "f", "name": "g"}}], "messages"',
        ),
    ],
)
def test_bad_18_repeated_keys_are_refused_however_deep(tmp_path: Path, once: bytes, twice: bytes) -> None:
    assert second(tmp_path, line(chat("b")).replace(once, twice, 1)) == ["duplicate_key"]
    # Also where lines like it were accepted before, so that the quick way is taken.
    good = [line(chat(f"g{number}")) for number in range(20)]
    problems = keep(
        write(tmp_path, [*good, line(chat("b")).replace(once, twice, 1)]), tmp_path / "many"
    ).problems
    assert [(problem.line, problem.code) for problem in problems] == [(21, "duplicate_key")]


def test_quotes_in_a_prompt_are_no_repeated_keys(tmp_path: Path) -> None:
    texts = ['"', "\\", '\\"', 'say "hi"', '\\\\"\\', '{"role": "user", "role": "user"}', "plain"] * 5
    path = write(tmp_path, [line(chat(f"q{number}", text)) for number, text in enumerate(texts)])
    assert keep(path, tmp_path / "job").problems == ()


@pytest.mark.parametrize("number", [str(2**64), "-" + "9" * 30, "9" * 5000])
def test_bad_19_large_integers_pass_byte_for_byte(tmp_path: Path, number: str) -> None:
    big = raw(number.encode())
    path = write(tmp_path, [big])
    assert keep(path, tmp_path / "job").problems == ()
    assert list(Snapshot(tmp_path / "job").lines(0, 1)) == [big + b"\n"]


@pytest.mark.parametrize(
    "half", [b"\\ud800", b"\\udc00", b"\\ud83d \\ude00", b"\\ud83d\\u0041", b"\\uDE00\\uD83D", b"\\ud800 \\n"]
)
@pytest.mark.parametrize("place", [b"hello", b"dep", b'"b"'])
def test_bad_20_half_a_surrogate_pair_is_refused(tmp_path: Path, half: bytes, place: bytes) -> None:
    quoted = b'"' + half + b'"' if place == b'"b"' else half
    assert second(tmp_path, line(chat("b")).replace(place, quoted)) == ["lone_surrogate"]


def test_bad_20_whole_pairs_and_escaped_backslashes_pass(tmp_path: Path) -> None:
    good = line(chat("b")).replace(b"hello", b"\\ud83d\\ude00 and \\\\ud800")
    assert second(tmp_path, good) == []


@pytest.mark.parametrize(
    ("levels", "codes"), [(98, []), (99, ["too_deep"]), (900, ["too_deep"]), (200_000, ["too_deep"])]
)
@pytest.mark.parametrize("bracket", [b"[]", b"{}"])
def test_bad_21_nesting_over_100_is_refused(
    tmp_path: Path, levels: int, codes: list[str], bracket: bytes
) -> None:
    # The line and its body are the first two levels.
    nest = b"[" * levels + b"]" * levels if bracket == b"[]" else b'{"a":' * levels + b"1" + b"}" * levels
    assert second(tmp_path, raw(nest, b"unheard_of")) == codes


def test_bad_22_line_too_long_to_hold_is_one_problem_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    size = 256 << 20
    with path.open("wb") as file:
        file.write(line(chat("a")) + b"\n")
        file.seek(size, 1)  # a hole: zero bytes that take no disk, more than one batch may hold
        file.write(b"\n" + line(chat("b")) + b"\nbroken\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    intake = keep(path, tmp_path / "job", skip_invalid=True)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert faults(intake) == [(2, "line_too_large"), (4, "invalid_json_line")]
    assert intake.problems[1].byte_offset == path.stat().st_size - len(b"broken\n")
    assert grown_kb < 40_000
    snapshot = Snapshot(tmp_path / "job")
    assert list(snapshot.lines(0, 2)) == [line(chat("a")) + b"\n", line(chat("b")) + b"\n"]
    assert list(snapshot.line_numbers(0, 2)) == [1, 3]


@pytest.mark.parametrize("custom_id", [None, "", 5, ["a"], {}, True])
def test_bad_23_custom_id_must_be_a_non_empty_string(tmp_path: Path, custom_id: object) -> None:
    assert second(tmp_path, chat(custom_id)) == ["invalid_custom_id"]


def without_id(text: str) -> dict[str, Any]:
    request = chat("x", text)
    del request["custom_id"]
    return request


def test_bad_23_missing_custom_id_is_refused(tmp_path: Path) -> None:
    assert second(tmp_path, without_id("hello")) == ["missing_custom_id"]


def test_bad_23_auto_id_names_lines_by_their_number(tmp_path: Path) -> None:
    lines: list[bytes | dict[str, Any]] = [
        without_id("one"),
        chat("mine"),
        b"",
        chat(""),
        chat(7),
        without_id('the "custom_id" key'),
    ]
    path = write(tmp_path, lines)
    assert keep(path, tmp_path / "job", auto_id=True).problems == ()
    snapshot = Snapshot(tmp_path / "job")
    assert snapshot.ids(0, 5) == ["line-1", "mine", "line-4", "line-5", "line-6"]
    first, *_, last = snapshot.lines(0, 5)
    assert first == b'{"custom_id": "line-1", ' + line(without_id("one"))[1:] + b"\n"
    assert json.loads(last) == without_id('the "custom_id" key') | {"custom_id": "line-6"}


def test_bad_23_auto_id_stays_clear_of_the_users_own_ids(tmp_path: Path) -> None:
    path = write(tmp_path, [without_id("x"), chat("line-1"), chat("auto-auto-line-"), chat("auto-line")])
    assert keep(path, tmp_path / "job", auto_id=True).problems == ()
    assert Snapshot(tmp_path / "job").ids(0, 1) == ["auto-line-1"]


def test_bad_23_auto_id_does_not_hide_other_faults(tmp_path: Path) -> None:
    request = without_id("x")
    request["method"] = "GET"
    assert faults(intake_of(write(tmp_path, [request, b"{}"]), auto_id=True)) == [
        (1, "invalid_method"),
        (2, "invalid_method"),
        (2, "invalid_url"),
        (2, "missing_body"),
    ]


@pytest.mark.parametrize(("custom_id", "codes"), [("x" * 512, []), ("x" * 513, ["custom_id_too_long"])])
def test_bad_24_custom_id_has_512_bytes_at_most(tmp_path: Path, custom_id: str, codes: list[str]) -> None:
    assert second(tmp_path, chat(custom_id)) == codes


def test_bad_24_length_counts_utf8_bytes_and_is_configurable(tmp_path: Path) -> None:
    assert second(tmp_path, chat("ü" * 257)) == ["custom_id_too_long"]
    assert second(tmp_path, chat("ü" * 256)) == []
    assert second(tmp_path, chat("long-one"), max_custom_id_bytes=7) == ["custom_id_too_long"]


def test_bad_25_repeated_custom_id_is_one_problem_naming_the_first_line(tmp_path: Path) -> None:
    twin = line(chat("a", "other")).replace(b'"a"', b'"\\u0061"')
    path = write(tmp_path, [chat("a"), chat("b"), chat("a"), b"", twin, chat("c")])
    intake = intake_of(path)
    assert faults(intake) == [(3, "duplicate_custom_id"), (5, "duplicate_custom_id")]
    assert all("line 1;" in problem.message and problem.custom_id == "a" for problem in intake.problems)
    assert path.read_bytes()[intake.problems[1].byte_offset :].startswith(twin)
    assert (intake.total, intake.rejected) == (3, 2)


def test_bad_25_repeats_are_found_across_blocks_and_left_out_when_asked(tmp_path: Path) -> None:
    lines = [chat(f"id-{number % 700}", "x" * 2000) for number in range(1000)]
    path = write(tmp_path, lines)
    intake = keep(path, tmp_path / "job", skip_invalid=True)
    assert [number for number, _ in faults(intake)] == list(range(701, 1001))
    assert (intake.total, intake.rejected) == (700, 300)
    snapshot = Snapshot(tmp_path / "job")
    assert snapshot.ids(0, 700) == [f"id-{number}" for number in range(700)]
    rejects = [json.loads(one) for one in (tmp_path / "job" / "rejects.jsonl").read_bytes().splitlines()]
    assert [record["line"] for record in rejects] == list(range(701, 1001))
    assert json.loads(rejects[0]["text"]) == lines[700]


def test_bad_25_id_of_a_line_that_is_left_out_is_free(tmp_path: Path) -> None:
    bad = chat("a") | {"method": "GET"}
    path = write(tmp_path, [bad, chat("a")])
    assert faults(intake_of(path, skip_invalid=True)) == [(1, "invalid_method")]
    assert faults(intake_of(path)) == [(1, "invalid_method"), (2, "duplicate_custom_id")]


def test_bad_26_ids_that_only_look_alike_are_kept_apart(tmp_path: Path) -> None:
    composed, apart = "café", unicodedata.normalize("NFD", "café")
    path = write(
        tmp_path, [chat("abc"), chat("ABC"), chat(composed), chat(apart), chat("Only"), chat("straße")]
    )
    intake = keep(path, tmp_path / "job")
    assert (intake.total, warned(intake)) == (6, {"similar_custom_ids": 2})
    assert intake.warnings[0].first_line == 2
    assert Snapshot(tmp_path / "job").ids(0, 4) == ["abc", "ABC", composed, apart]


@pytest.mark.parametrize(
    "custom_id", ["../../x", "CON", "a\nb", "a\tb", "/etc/passwd", '"quoted"', "back\\slash", " "]
)
def test_bad_27_custom_id_is_plain_data(tmp_path: Path, custom_id: str) -> None:
    path = write(tmp_path, [chat(custom_id)])
    keep(path, tmp_path / "job")
    assert Snapshot(tmp_path / "job").ids(0, 1) == [custom_id]
    names = {"input.jsonl", "job", "requests.jsonl", "requests.idx", "requests.ids", "requests.marks"}
    assert {found.name for found in tmp_path.rglob("*")} == names


@pytest.mark.parametrize("method", ["GET", "post", "", None, 1, ["POST"]])
def test_bad_28_method_must_be_post(tmp_path: Path, method: object) -> None:
    assert second(tmp_path, chat("b") | {"method": method}) == ["invalid_method"]
    missing = chat("b")
    del missing["method"]
    assert second(tmp_path, missing) == ["invalid_method"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://evil.example/chat/completions", "unsupported_url"),
        ("//evil.example/v1/chat/completions", "unsupported_url"),
        ("/v1/images/generations", "unsupported_url"),
        ("/chat/completions/", "unsupported_url"),
        ("/v1/chat/completions?x=1", "unsupported_url"),
        ("/../chat/completions", "unsupported_url"),
        ("", "unsupported_url"),
        ("/v1/embeddings", "url_mismatch"),
        ("/v1/chat/completions", "url_mismatch"),
        (None, "invalid_url"),
        (5, "invalid_url"),
    ],
)
def test_bad_29_url_is_one_known_path_for_all_lines(tmp_path: Path, url: object, code: str) -> None:
    assert code in second(tmp_path, chat("b") | {"url": url})


def test_bad_29_openai_takes_both_spellings_of_one_kind(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a"), chat("b") | {"url": "/v1/chat/completions"}, chat("c")])
    intake = intake_of(path, OPENAI)
    assert (intake.problems, intake.edited_lines, intake.kind) == ((), 2, "chat_completions")


def test_bad_29_given_kind_beats_the_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a"), embedding("b", "x")])
    assert faults(intake_of(path, kind="embeddings")) == [(1, "url_mismatch")]
    assert faults(intake_of(path)) == [(2, "url_mismatch")]
    assert kind_of_first(path) == "chat_completions"


@pytest.mark.parametrize("deployment", [None, "target"])
def test_bad_30_several_models_are_refused(tmp_path: Path, deployment: str | None) -> None:
    assert second(tmp_path, chat("b", model="other"), model=deployment) == ["model_mismatch"]


def test_bad_30_split_by_model_accepts_and_reports_them(tmp_path: Path) -> None:
    models = ["m1", "m1", "m2", "m3", "m3", "m1"]
    path = write(tmp_path, [chat(str(number), model=model) for number, model in enumerate(models)])
    intake = intake_of(path, split_by_model=True)
    assert (intake.problems, intake.models) == ((), ("m1", "m2", "m3"))
    runs = [(run.first, run.count, run.model) for run in intake.model_runs()]
    assert runs == [(0, 2, "m1"), (2, 1, "m2"), (3, 2, "m3"), (5, 1, "m1")]


def test_models_that_take_turns_are_said_to_cost_a_batch_for_each_turn(tmp_path: Path) -> None:
    turns = write(tmp_path, [chat(str(number), model=f"m{number % 2}") for number in range(6)])
    (warning,) = intake_of(turns, split_by_model=True).warnings
    assert (warning.code, warning.first_line) == ("mixed_models", 3)
    assert "6 batches at least, or 2 once sorted" in warning.message
    tidy = write(tmp_path, [chat(str(number), model=f"m{number // 3}") for number in range(6)])
    assert intake_of(tidy, split_by_model=True).warnings == ()


@pytest.mark.parametrize(
    ("model", "code"), [(None, "invalid_body"), (5, "invalid_body"), ("", "missing_model")]
)
def test_bad_30_model_must_be_named(tmp_path: Path, model: object, code: str) -> None:
    assert second(tmp_path, chat("b", model=model)) == [code]


def test_bad_30_model_may_be_missing_where_the_target_has_one(tmp_path: Path) -> None:
    request = chat("b")
    del request["body"]["model"]
    assert second(tmp_path, request) == ["missing_model"]
    assert second(tmp_path, request, model="dep") == []
    path = write(tmp_path, [chat("a"), request])
    assert intake_of(path, model="dep").edited_lines == 1
    assert intake_of(path, model="other").edited_lines == 2


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_bad_31_body_must_be_an_object(tmp_path: Path, body: object) -> None:
    assert second(tmp_path, chat("b") | {"body": body}) == ["invalid_body"]
    missing = chat("b")
    del missing["body"]
    assert second(tmp_path, missing) == ["missing_body"]


@pytest.mark.parametrize(
    ("stream", "codes"), [(True, ["stream_not_supported"]), (False, []), ("yes", ["invalid_body"])]
)
def test_bad_31_streaming_is_refused(tmp_path: Path, stream: object, codes: list[str]) -> None:
    assert second(tmp_path, chat("b", stream=stream)) == codes


def test_bad_32_unknown_keys_are_kept_with_one_warning(tmp_path: Path) -> None:
    odd = [chat("c"), chat("a", shiny_new=1), chat("b") | {"note": "mine"}, chat("d", shiny_new=2)]
    path = write(tmp_path, odd)
    intake = keep(path, tmp_path / "job")
    assert (intake.problems, warned(intake)) == ((), {"unknown_keys": 3})
    assert intake.warnings[0].first_line == 2
    assert "'shiny_new', 'note'" in intake.warnings[0].message
    assert (tmp_path / "job" / "requests.jsonl").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-" + "Ab3" * 12,
        "https://x.blob.core.windows.net/c?sv=2024-01-01&sig=" + "aB%2F" * 9,
        "AccountKey=" + "Zz9+" * 21 + "==",
        'api-key: "' + "0123456789abcdef" * 2 + '"',
        "A" * 52 + "JQQJ99BKACYeBjFXJ3w3AAAB" + "ACOGx1y2",
    ],
)
def test_bad_33_text_like_a_key_is_warned_of_and_never_shown(tmp_path: Path, secret: str) -> None:
    path = write(
        tmp_path, [chat("a", "a task-oriented, risk-averse text; a=b"), chat("b", f"use {secret} here")]
    )
    intake = intake_of(path)
    assert (intake.total, warned(intake)) == (2, {"possible_secret": 1})
    assert intake.warnings[0].first_line == 2
    assert secret not in repr(intake)


def test_bad_34_line_over_the_limit_is_refused_by_what_is_sent(tmp_path: Path) -> None:
    limits = Limits(100_000, 1000)
    room = 950 - 1 - len(line(chat("b", "")))
    assert second(tmp_path, chat("b", "x" * room), limits=limits) == []
    assert second(tmp_path, chat("b", "x" * (room + 1)), limits=limits) == ["line_too_large"]
    # `dep` becomes a longer name, and OpenAI's url is three bytes longer.
    assert second(tmp_path, chat("b", "x" * (room - 4)), limits=limits, model="dep-long") == [
        "line_too_large"
    ]
    assert second(tmp_path, chat("b", "x" * (room - 5)), limits=limits, model="dep-long") == []
    assert second(tmp_path, chat("b", "x" * (room - 2)), OPENAI, limits=limits) == ["line_too_large"]
    assert second(tmp_path, chat("b", "x" * (room - 3)), OPENAI, limits=limits) == []


def test_bad_34_more_requests_than_a_batch_holds_are_no_fault_of_the_input(tmp_path: Path) -> None:
    path = write(tmp_path, [chat(str(number)) for number in range(50)])
    assert intake_of(path, limits=Limits(10, 10_000)).total == 50


def test_bad_34_one_line_may_not_hold_more_inputs_than_a_batch(tmp_path: Path) -> None:
    rules = replace(OPENAI, limits=Limits(50_000, 200_000_000, 3))
    path = write(
        tmp_path, [embedding("a", ["x"] * 3), embedding("b", ["x"] * 4), embedding("c", [1, 2, 3, 4])]
    )
    intake = intake_of(path, rules)
    assert faults(intake) == [(2, "too_many_inputs")]
    assert intake.embedding_inputs == 4


# ---------------------------------------------------------------- several at once


def test_independent_faults_of_a_line_are_all_reported(tmp_path: Path) -> None:
    bad = {"custom_id": 5, "method": "GET", "url": "/nowhere", "body": {"model": 1, "stream": True}}
    found = second(tmp_path, bad)
    assert found == [
        "invalid_custom_id",
        "invalid_method",
        "unsupported_url",
        "invalid_body",
        "stream_not_supported",
        "invalid_body",
    ]


def test_refusal_counts_lines_and_carries_every_problem(tmp_path: Path) -> None:
    bad = {"custom_id": "x", "method": "GET", "url": "/nowhere", "body": {}}
    intake = intake_of(write(tmp_path, [chat("a"), bad, b"broken"]))
    error = refusal(intake)
    assert error.problems == list(intake.problems)
    assert str(error).startswith("2 of 3 lines cannot be sent: line 2: ")


def test_prompt_text_is_in_no_message_and_ids_are_cleaned(tmp_path: Path) -> None:
    prompt = "the blue heron lands at noon"
    evil = "id\x1b[31m\u202eevil"
    lines: list[bytes | dict[str, Any]] = [
        chat(evil, prompt, temperature=prompt) | {"method": prompt, "url": prompt},
        line(chat("b", prompt))[:-9],
        chat("c")
        | {"body": {"model": "dep", "messages": [{"role": prompt, "content": 1}], "tools": [prompt]}},
        chat("d" * 600 + prompt, prompt),
        raw(b'"' + prompt.encode() + b'\\ud800"'),
    ]
    intake = intake_of(write(tmp_path, lines))
    assert len({number for number, _ in faults(intake)}) == 5
    assert prompt not in repr(intake)
    shown = intake.problems[0].custom_id
    assert shown is not None
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_nothing_is_left_in_the_folder_of_a_refused_input(tmp_path: Path) -> None:
    keep(write(tmp_path, [chat("a"), b"broken"]), tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_skip_invalid_without_a_single_good_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchValidationError) as caught:
        keep(write(tmp_path, [b"broken", b"too"]), tmp_path / "job", skip_invalid=True)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "job").exists()


def test_rejects_hold_lines_that_are_no_text_as_base64(tmp_path: Path) -> None:
    keep(write(tmp_path, [chat("a"), b"\xff\xfe"]), tmp_path / "job", skip_invalid=True)
    (record,) = map(json.loads, (tmp_path / "job" / "rejects.jsonl").read_bytes().splitlines())
    assert (record["line"], record["base64"], record["problems"][0]["code"]) == (2, "//4=", "invalid_utf8")
