"""The quick way and the exact way give one verdict, and the exact way agrees with an independent oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from input_files import AZURE, OPENAI, chat, embedding, line
from langbatch.requests.examine import Agreement, Examined, Rules, examine
from langbatch.requests.express import _decode_text, _pass_over_text
from langbatch.requests.jsonscan import MAX_DEPTH, Flaw, repeated, scan_line
from langbatch.requests.judging import Judge
from langbatch.requests.lane import Lane
from langbatch.requests.lines import Block

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "a\\b", 'q"', "\u2028", "😀", "\0", "ü", "\ud800", "1e400", "[" * 120]
)
NUMBERS = st.integers() | st.floats(allow_nan=True) | st.sampled_from([10**30, 1e308])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "model",
        "messages",
        "seed",
        "stream",
        "n",
        "stop",
        "tools",
        "response_format",
        "input",
        "user",
        "odd",
        "url",
        "body",
    ]
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "bot"]), "content": TEXTS | VALUES},
        optional={"name": TEXTS, "tool_calls": VALUES},
    ),
    max_size=3,
)
BODIES = st.builds(
    lambda messages, model, extra: {"model": model, "messages": messages, **extra},
    MESSAGES,
    st.sampled_from(["dep", "dep", "dep", "other", "", 5]),
    st.dictionaries(KEYS, VALUES, max_size=3),
)
REQUESTS = st.builds(
    lambda custom_id, body, changes: {**chat(custom_id), "body": body, **changes},
    TEXTS | VALUES,
    BODIES | VALUES,
    st.dictionaries(st.sampled_from(["method", "url", "odd"]), VALUES | st.just("POST"), max_size=1),
)
SPLICES = st.sampled_from(
    [
        b"1e400",
        b"NaN",
        b'"\\ud800"',
        b'"\\ud83d\\ude00"',
        b"\xff",
        b"\0",
        b"[" * 101 + b"]" * 101,
        b'"n":1,',
        b'"role":"user",',
        b'"r\\u006fle":"user",',
        b'"model":"dep",',
        b'"body":{},',
        b'"custom_id":"x",',
        b" ",
        b"\t",
        b"\r",
        b",",
        b":",
        b'"',
        b"{",
        b"}",
        b"]",
        b"\\",
        b"1",
        b"\xef\xbb\xbf",
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A request line in one of the usual spellings, perhaps damaged at a place or two."""
    request = draw(st.just(chat("fine", "text", temperature=0.5, seed=7)) | REQUESTS)
    spaced = draw(st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]))
    text = json.dumps(
        request, ensure_ascii=draw(st.booleans()), separators=spaced, sort_keys=draw(st.booleans())
    )
    data = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        data = data[:at] + draw(SPLICES) + data[at + cut :]
    return data.replace(b"\n", b"").strip(b" \t\r")


class Overflow(ValueError):
    pass


def oracle(text: bytes) -> bool:
    """Whether the standard library, made strict, sees one sound object without repeated keys anywhere."""
    if text.startswith(b"\xef\xbb\xbf"):
        return False
    try:
        found = json.loads(
            text.decode(),
            object_pairs_hook=tuple,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=lambda digits: 0,
        )
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, tuple) or _depth(found) > MAX_DEPTH or _halves(found):
        return False
    return _unique(found)


def _no_constant(name: str) -> float:
    raise Overflow(name)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise Overflow(digits)
    return value


def _unique(value: object) -> bool:
    """Whether no object in it, however deep, has a key twice."""
    if isinstance(value, tuple) and len({key for key, _ in value}) < len(value):
        return False
    return all(map(_unique, _children(value)))


def _children(value: object) -> list[Any]:
    if isinstance(value, tuple):
        return [child for _, child in value]
    return value if isinstance(value, list) else []


def _depth(value: object) -> int:
    if not isinstance(value, tuple | list):
        return 0
    return 1 + max(map(_depth, _children(value)), default=0)


def _halves(value: object) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    keys = [key for key, _ in value] if isinstance(value, tuple) else []
    return any(map(_halves, keys + _children(value)))


def scanned_as_sound(text: bytes) -> bool:
    try:
        text.decode()
        scanned = scan_line(text)
    except (Flaw, UnicodeDecodeError):
        return False
    return not repeated(scanned.members) and not repeated(scanned.body or ())


@settings(max_examples=400, deadline=None)
@given(lines())
@example(b'{"body":{"a":1,"a":2}}')
@example(b'{"body":{"a":[{"b":{"c":1,"d":2,"\\u0063":3}}]}}')
@example(b'{"body":{"a":[{"c":1},{"c":1,"b":{"c":1}}]}}')
@example(b'{"a":"\\ud83d\\ude00\\ude00"}')
@example(b'{"a":1.7976931348623159e308}')
@example(b"{}")
@example(b'{"a":' + b"[" * 99 + b"]" * 99 + b"}")
@example(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}")
def test_scanner_agrees_with_the_standard_library_made_strict(text: bytes) -> None:
    assert scanned_as_sound(text) == oracle(text)


def primed(rules: Rules, *teachers: bytes) -> tuple[Lane, Agreement]:
    """A lane that has seen good lines often enough to use all its shortcuts."""
    agreed = Agreement(None)
    lane = Lane(rules, agreed)
    for _ in range(6):
        for teacher in teachers:
            if lane.accept(teacher) is None:
                seen = examine(teacher, rules, agreed)
                assert not seen.faults
                agreed.kind = agreed.kind or seen.kind
                agreed.url = agreed.url or seen.url
                agreed.model = agreed.model or seen.model
                lane.learn(seen)
    return lane, agreed


def same(lane: Lane, token: bytes, seen: Examined) -> bool:
    last = lane.last
    return (token, last.edited, last.model, last.unknown_keys, lane.inputs) == (
        seen.token,
        seen.edited,
        seen.model,
        seen.unknown_keys,
        seen.inputs,
    )


def check(lane: Lane, agreed: Agreement, rules: Rules, text: bytes) -> None:
    token = lane.accept(text)
    seen = examine(text, rules, agreed)
    if token is not None:
        assert not seen.faults
        assert same(lane, token, seen)
    elif not seen.faults:
        lane.learn(seen)


@settings(max_examples=300, deadline=None)
@given(st.lists(lines(), min_size=1, max_size=6), st.booleans())
def test_lane_accepts_only_what_examination_accepts(texts: list[bytes], split: bool) -> None:
    rules = Rules(None, "azure", AZURE.limits, split_by_model=split, model="dep" if split else None)
    lane, agreed = primed(rules, line(chat("t", "x", temperature=0.5, seed=7)))
    for text in texts:
        check(lane, agreed, rules, text)


#: One good line's every value replaced in place, so that frames fit and only values decide.
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [b'"t1"', b'"POST"', b'"/chat/completions"', b'"dep"', b'"user"', b'"x"', b"0.5", b"7", b"[{"]
    ),
    SPLICES | VALUES.map(lambda value: json.dumps(value).encode()),
    st.integers(0, 2),
)
@example(b"7", b'1,"n":1', 0)
@example(b"0.5", b"1e400", 0)
@example(b'"t1"', b'"\\u0074"', 0)
@example(b'"x"', b'"\\ud800"', 0)
def test_lane_judges_replaced_values_as_examination_does(value: bytes, by: bytes, keep: int) -> None:
    good = line(chat("t1", "x", temperature=0.5, seed=7))
    teachers = [line(chat(f"t{number}", "x", temperature=0.5, seed=number)) for number in range(1, 40)]
    lane, agreed = primed(AZURE, *teachers)
    check(lane, agreed, AZURE, good.replace(value, value[:keep] + by))


@settings(max_examples=100, deadline=None)
@given(VALUES | st.lists(st.text(max_size=3), max_size=4) | st.lists(st.integers(0, 9), max_size=4))
def test_lane_counts_embedding_inputs_as_examination_does(given_input: object) -> None:
    lane, agreed = primed(OPENAI, line(embedding("t", "x")))
    text = json.dumps(embedding("e", given_input)).encode()
    check(lane, agreed, OPENAI, text)


def test_lane_takes_lines_like_those_before_without_examination() -> None:
    lane, _ = primed(AZURE, line(chat("t", "x", seed=1)))
    assert lane.accept(line(chat("u", "näxt 😀", seed=2))) == b'"u"'
    assert lane.accept(line(chat("ü", [{"type": "text", "text": "part"}], seed=3))) == '"ü"'.encode()
    assert lane.accept(line(chat("v", "x", seed=4, odd=1))) is None


def test_lane_follows_seeds_that_never_repeat() -> None:
    teachers = [line(chat(f"t{number}", "x", seed=number, n=1)) for number in range(100)]
    lane, _ = primed(AZURE, *teachers)
    for seed in (b"123456789", b"0", b"-5", b"null", b"12345678901234567890123"):
        assert lane.accept(line(chat("u", "y", seed=555, n=1)).replace(b"555", seed)) == b'"u"'
    for seed in (b"", b"01", b"1e400", b'"s"', b"1 2", b'1, "n": 1', b" ", b"1}, {", b"[1]"):
        assert lane.accept(line(chat("u", "y", seed=555, n=1)).replace(b"555", seed)) is None


def test_lane_leaves_deep_values_and_streams_to_examination() -> None:
    lane, _ = primed(AZURE, line(chat("t", "x", stream=False, metadata={"a": "b"})))
    flat = line(chat("u", "y", stream=False, metadata={"a": "b"}))
    assert lane.accept(flat) == b'"u"'
    assert lane.accept(flat.replace(b"false", b"true")) is None
    assert lane.accept(flat.replace(b'"b"', b"[" * 98 + b"]" * 98)) is None
    assert lane.accept(flat.replace(b'"b"', b"[" * 9 + b"]" * 9)) == b'"u"'


def test_lane_takes_ids_only_where_they_are_canonical() -> None:
    """Behind a prompt the id is out of the express's reach, and the frame alone must judge it."""
    request = {"body": chat()["body"], **chat("t")}
    lane, _ = primed(AZURE, line(request))
    assert lane.accept(line(request | {"custom_id": "ü"})) == '"ü"'.encode()
    for custom_id in (b'"\\u0074"', b'"\\n"', b'""', b"5", b"null", b'"\xff"', b'"' + b"x" * 513 + b'"'):
        assert lane.accept(line(request).replace(b'"t"', custom_id)) is None


def conversation(custom_id: str, *texts: object) -> dict[str, Any]:
    messages = [{"role": "user" if place else "system", "content": text} for place, text in enumerate(texts)]
    return {**chat(custom_id), "body": {"model": "dep", "messages": messages}}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(TEXTS, min_size=1, max_size=3), min_size=1, max_size=5),
    SPLICES
    | st.sampled_from([b'"', b'", "content": "', b'", "role": "user', b'"}, {"role": "user", "content": "']),
)
@example([["be short", "x"]], b'", "content": "')
@example([["be short", "x"]], b'", "c\\u006fntent": "')
@example([["be short", "x", "y"]], b"")
@example([["be short"]], b"")
def test_lane_judges_prompts_that_differ_in_their_last_text_as_examination_does(
    prompts: list[list[str]], splice: bytes
) -> None:
    lane, agreed = primed(AZURE, *(line(conversation(f"t{n}", "be short", f"text {n}")) for n in range(9)))
    for texts in prompts:
        try:
            text = line(conversation("u", *texts, "@@"))
        except UnicodeEncodeError:
            continue
        check(lane, agreed, AZURE, text.replace(b"@@", b"a" + splice + b"b"))


_MESSAGE = b'"role": "user", "content": "@text"'
#: What can stand in a message in place of its text, or begin another member or message.
_ODD = SPLICES | st.sampled_from(
    [
        b'", "content": "',
        b'", "c\\u006fntent": "',
        b'", "role": "user',
        b'", "role": "system", "content": "',
        b'"}, {"role": "user", "content": "',
        b'"}, {"content": "x", "role": "user',
        b'"}, {"role": "bot", "content": "',
        b'"}, {"role": ["user"], "content": "',
        b'"}, {"role": "user", "content": null}, {"role": "user", "content": "',
        b'"}, {"role": "assistant", "name": "n", "content": "',
        b'"role": "bot", "content": "user"',
        b'"content": "user", "role": "bot"',
        b'"content": "user", "role": "system"',
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 20),
            st.sampled_from([b"@text", b'"@id', b'"user", "content": "@text', _MESSAGE]),
            _ODD,
            st.lists(TEXTS, max_size=3),
        ),
        max_size=4,
    )
)
@example([(3, b"@text", b'", "content": "', [])])
@example([(3, b"@text", b'", "role": "user', ["x", "y"]), (9, b'"@id', b'"\\u0061', [])])
@example([(0, b"@text", b'"}, {"role": ["user"], "content": "', ["x"])])
@example([(5, b"@text", b'", "role": "user", "content": "', ["x"])])
@example([(5, b'"}]', b'"]]', []), (6, b'"}]', b'"}}', ["x"])])
@example([(5, b"@text", b"\xff", [])])
@example([(0, _MESSAGE, b'"role": "bot", "content": "user"', [])])
@example([(0, _MESSAGE, b'"content": "user", "role": "bot"', []), (9, b"", b"", ["x"])])
@example([(5, _MESSAGE, b'"content": "user", "role": "bot"', ["x"])])
@example([(5, b'"user", "content": "@text', b'"usex", "content": "@text', [])])
@example([(5, b'"@text"', b"7", [])])
def test_lines_judged_together_are_judged_as_each_alone(
    odd: list[tuple[int, bytes, bytes, list[str]]],
) -> None:
    """Those before and behind an odd line too: what is known of many at once must not be said of it."""
    told = ": be short, keep to the facts that are given, ask one question if any is missing; no lists"
    lines = [line(conversation(f"t{n}", f"{n % 3}{told}", f"text {n}")) for n in range(20)]
    for place, mark, by, texts in odd:
        try:
            text = line(conversation("@id", f"1{told}", *texts, "@text"))
        except UnicodeEncodeError:
            continue
        lines.insert(place, text.replace(mark, by.replace(b"\n", b"")).replace(b"@id", b"u"))
    agreed = Agreement("chat_completions", "/chat/completions", "dep")
    judge = Judge(AZURE, agreed)
    block = b"\n".join(lines) + b"\n"
    alone = [examine(text.strip(b" \t\r"), AZURE, agreed) for text in lines]
    # What it has learnt from such lines must not be wrong either. Far from the input's beginning texts that are
    # known to be UTF-8 are passed over.
    for offset in (0, 0, 1 << 30, 1 << 30):
        found = judge.judge(Block(offset, block, len(block)), 1)
        assert found.tokens == [seen.token for seen in alone if not seen.faults]
        assert [refusal.index for refusal in found.refusals] == [
            index for index, seen in enumerate(alone) if seen.faults
        ]


PIECES_OF_TEXT = [
    *(
        "a",
        "ü",
        "\u2028",
        "😀",
        "\x7f",
        '"',
        "\\",
        '\\"',
        "\\\\",
        "\\/",
        "\\n",
        "\\x",
        "\\u00e9",
        "\\u12",
        "\\uzzzz",
    ),
    *("\\ud800", "\\udc00", "\\ud83d\\ude00", "\\ud83d\\u0041", "\\ude00\\ud83d"),
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*PIECES_OF_TEXT, *map(chr, range(0x20))],
        ),
        max_size=4,
    ).map("".join)
)
def test_a_text_passed_over_is_judged_as_one_that_is_decoded(inside: str) -> None:
    assert accepts(_pass_over_text, inside) == accepts(_decode_text, inside)


def accepts(decode: Callable[[Any], object], inside: str) -> bool:
    try:
        decode(memoryview(b'"%b"' % inside.encode()))
    except msgspec.MsgspecError:
        return False
    return True


def test_lane_takes_a_last_text_behind_the_same_instructions() -> None:
    lane, _ = primed(AZURE, line(conversation("t", "be short", "x")))
    good = line(conversation("u", "be short", "@@"))
    for fine in (b"", b"n\\u00e4xt", "näxt 😀".encode(), b'\\"', b'a"}, {"role": "user", "content": "b'):
        assert lane.accept(good.replace(b"@@", fine)) == b'"u"'
    for bad in (b'"', b"\\", b"\\ud800", b"\xff", b'", "content": "', b'", "role": "user', b'"}, "', b"\0"):
        assert lane.accept(good.replace(b"@@", bad)) is None


def test_lane_tells_lines_apart_that_begin_and_end_as_known_ones_do() -> None:
    """The last 32 bytes of a line, an id's length and a prompt's beginning lead to what is compared, no more."""
    told = (
        "be short, keep to the facts that are given, ask one question if any is missing; no lists or tables"
    )
    ends = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0}

    def one(custom_id: str, told: str, **more: object) -> dict[str, Any]:
        request = conversation(custom_id, told, "text")
        return {**request, "body": {**request["body"], "top_p": 1, **more, **ends}}

    lane, agreed = primed(AZURE, *(line(one(f"t{n}", told, seed=0)) for n in range(9)))
    good = line(one("tx", told, seed=0))
    check(lane, agreed, AZURE, good)
    assert lane.accept(good) == b'"tx"'
    for was, by in (
        (b'"top_p": 1', b'"top_p": x'),
        (b'"top_p": 1', b'"top_p": "'),
        (b'"dep"', b'"dfp"'),
        (b'"dep"', b'"dep, '),
        (b'"POST"', b'"PAST"'),
    ):
        for instructions in (told.encode(), b"others"):
            for custom_id in (b"tx", b"longer"):
                text = good.replace(was, by).replace(told.encode(), instructions).replace(b"tx", custom_id)
                assert lane.accept(text) is None
                check(lane, agreed, AZURE, text)
