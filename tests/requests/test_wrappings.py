"""Prompts that are known by what stands around their texts are judged as a decoding of them judges."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from langbatch.requests.express import _decode_text
from langbatch.requests.frames import UNREADABLE
from langbatch.requests.prompts import Unfit
from langbatch.requests.shapes import SHAPES
from langbatch.requests.wrappings import BEGINS_BYTES, Wrapping, Wrappings, without_turns

CHAT = SHAPES["chat_completions"]
BEFORE = b'{"model": "dep", "messages": '
#: Long enough to be all that tells prompts from one another.
TOLD = "Be short, keep to the facts that are given, ask one question if any of them is missing. No lists."
assert len(TOLD) > BEGINS_BYTES

ROLE_FIRST = b'{"role": "%s", "content": "%s"}'
ROLE_LAST = b'{"content": "%s", "role": "%s"}'


def prompt(*texts: bytes, last: tuple[int, ...] = (), between: bytes = b", ") -> bytes:
    """Messages with these texts as they stand in JSON, behind instructions; those at `last` name the role last."""
    roles = (b"system", *[b"user", b"assistant"] * len(texts))
    written = [
        ROLE_LAST % (text, role) if place in last else ROLE_FIRST % (role, text)
        for place, (role, text) in enumerate(zip(roles, (TOLD.encode(), *texts), strict=False))
    ]
    return b"[" + between.join(written) + b"]"


def is_sound(value: bytes) -> bool:
    try:
        CHAT.prompts().inputs(value)
    except (*UNREADABLE, Unfit):
        return False
    return True


def is_taken(wrapping: Wrapping, value: bytes) -> bool:
    """Whether the prompt is found sound without being decoded as one."""
    line = BEFORE + value
    start, end = wrapping.opening_size, len(line) - wrapping.behind_size
    if not line.startswith(wrapping.opening) or line[end:] != wrapping.behind:
        return False
    text = without_turns(line, start - 1, end + 1, wrapping.turns) or line[start - 1 : end + 1]
    try:
        _decode_text(text)
    except UNREADABLE:
        return False
    return True


def learnt(*prompts: bytes) -> Wrapping:
    wrappings = Wrappings(CHAT, BEFORE)
    for one in prompts:
        wrappings.learn(one)
    found = wrappings.get(prompts[0][:BEGINS_BYTES])
    assert found is not None
    return found


def test_turns_are_learnt_behind_a_single_question() -> None:
    wrapping = learnt(prompt(b"x"), prompt(b"x", b"y", b"z"))
    assert sorted(turn.turn for turn in wrapping.turns) == [
        b'"}, {"role": "assistant", "content": "',
        b'"}, {"role": "user", "content": "',
    ]
    for texts in ([b""], [b"{a}"], [b"a", b"b"], [b"}", "ü".encode(), b"\\n", b"{"], [b"x"] * 9):
        assert is_taken(wrapping, prompt(*texts))


def test_a_question_takes_the_place_of_a_conversation_that_was_learnt_first() -> None:
    wrapping = learnt(prompt(b"x", b"y", b"z"), prompt(b"x"), prompt(b"x", b"y", b"z"))
    assert is_taken(wrapping, prompt(b"a"))
    assert is_taken(wrapping, prompt(b"a", b"b", b"c"))


def test_no_turn_is_learnt_whose_message_lacks_a_role_behind_another() -> None:
    """Behind a message that names its role first, the next may name its own last; not the other way round."""
    wrapping = learnt(prompt(b"x"), prompt(b"x", b"y", b"z", last=(2,)))
    assert not wrapping.turns
    without_role = prompt(b"a", b"b", b"c", last=(2,)).replace(b', "role": "assistant"', b"")
    assert not is_sound(without_role)
    assert not is_taken(wrapping, without_role)


def test_conversations_alone_are_known_up_to_their_first_question() -> None:
    wrapping = learnt(prompt(b"x", b"y", b"z"), prompt(b"a", b"b", b"c"))
    assert is_taken(wrapping, prompt(b"1", b"2", b"3", b"4", b"5"))


def test_instructions_that_vary_take_nothing_from_those_known() -> None:
    other = prompt(b"x").replace(b"No lists.", b"No tables.")
    wrapping = learnt(prompt(b"x"), other, other)
    assert is_taken(wrapping, prompt(b"a"))
    assert not is_taken(wrapping, other)


def test_a_turn_that_fits_behind_no_other_leaves_the_others() -> None:
    wrapping = learnt(prompt(b"x"), prompt(b"x", b"y", b"z", last=(2,)), prompt(b"x", b"y", b"z"))
    assert is_taken(wrapping, prompt(b"a", b"b", b"c"))


def test_what_is_learnt_is_bounded() -> None:
    wrappings = Wrappings(CHAT, BEFORE)

    def bounded() -> bool:
        sizes = len(wrappings._known), len(wrappings._endings)
        return max(sizes) <= 256 and sum(map(len, wrappings._endings.values())) <= 1024

    for number in range(280):
        # Each differs from what is known one message earlier, and ends otherwise.
        texts = [b"x"] * (290 - number) + [b"%d" % number] * 2
        assert wrappings.learn(prompt(*texts)[:-1] + b" " * number + b"]")
        assert bounded()
    for number in range(1_500):
        wrapping = wrappings.learn(prompt(b"x").replace(b"Be short", b"%d" % number))
        assert wrapping is not None
        wrappings.learn_ending(wrapping, b', "seed": %d}}' % number + b" " * 40, None)
        assert bounded()


def test_of_endings_that_end_alike_the_first_is_known() -> None:
    wrappings = Wrappings(CHAT, BEFORE)
    wrapping = wrappings.learn(prompt(b"x"))
    assert wrapping is not None
    for number in range(3_000):
        wrappings.learn_ending(wrapping, b', "seed": %d, "stop": "%s"}}' % (number % 2, b"s" * 200), number)
    assert [ending.verdict for ending in wrapping.endings.values()] == [0]


def test_what_is_no_prompt_teaches_nothing() -> None:
    wrappings = Wrappings(CHAT, BEFORE)
    for bad in (
        prompt(b"x").replace(b"system", b"bot"),
        prompt(b"x").replace(b'"role": "user", ', b""),
        prompt(b"x").replace(b'"role": "user"', b'"role": "user", "role": "user"'),
        prompt(b"\xff", b"x"),
        prompt(b"x")[:-1],
        b'"content": "x"',
        b'"x"',
    ):
        assert wrappings.learn(bad) is None
        assert wrappings.get(bad[:BEGINS_BYTES]) is None


TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                b"a",
                b"{",
                b"}",
                b'\\"',
                b"\\\\",
                b"\\",
                b"\\u12",
                b"\\u0041",
                b"\\ud83d",
                b"\\ude00",
                b"\xff",
            ),
            *("ü".encode(), "ü".encode()[:1], "ü".encode()[1:], b"\x01", b'"', b"x"),
            *(b'"}, {"role": "user", "content": "', b'"}, {"role": "assistant", "content": "'),
            *(b'"}, {"role": "bot", "content": "', b'"}, {"content": "', b'", "content": "'),
            *(b'", "role": "user"}, {"content": "', b'\\"}, {\\"role\\": \\"user\\", \\"content\\": \\"'),
            *(b'"}, {"role": "user", "content": ""}, {"role": "user", "content": "',),
            *(b'}, {"role": "user", "content": "', b'}, {"role": "assistant", "content": "'),
        ]
    ),
    max_size=6,
).map(b"".join)
PROMPTS = st.builds(
    lambda texts, last, between: prompt(*texts, last=tuple(last), between=between),
    st.lists(TEXTS, min_size=1, max_size=4),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([b", ", b","]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PROMPTS, max_size=3), st.lists(PROMPTS, min_size=1, max_size=4))
@example([prompt(b"x", b"y", b"z")], [prompt(b"a\\", b"b")])
@example([prompt(b"x", b"y", b"z")], [prompt(b"\\u12", b"34")])
@example([prompt(b"x", b"y", b"z")], [prompt("ü".encode()[:1], "ü".encode()[1:])])
@example(
    [prompt(b"x", b"y", b"z")],
    [prompt(b'a"}, {"role": "assistant", "content": "}, {"role": "assistant", "content": "b')],
)
@example([prompt(b"x", b"y", b"z", last=(2, 3))], [prompt(b"a", b"b", b"c", last=(2,))])
def test_whatever_is_taken_is_sound(teachers: list[bytes], others: list[bytes]) -> None:
    wrappings = Wrappings(CHAT, BEFORE)
    for teacher in (prompt(b"x"), *teachers, *teachers):
        wrappings.learn(teacher)
    for other in (*teachers, *others):
        wrapping = wrappings.get(other[:BEGINS_BYTES])
        if wrapping is not None and is_taken(wrapping, other):
            assert is_sound(other)
            assert isinstance(json.loads(other), list)
