"""What looks like a key is noticed the same way by both searches, wherever in the input it stands."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langbatch.requests.lines import Block
from langbatch.requests.suspicion import look_through

KEY = b"sk-proj-" + b"Ab3" * 12
#: In an input so long, so far behind its beginning, Rust's search is used; and all that Python's knows is
#: looked for in both places.
FAR = 2 << 20

PIECES = st.sampled_from(
    [
        KEY,
        b"a task-oriented-and-risk-averse-text",
        b"sk-short",
        b"sk-" + b"a" * 16,
        b"\xc3\xa9" + KEY,
        b"Zsk-" + b"a" * 20,
        b"\xff",
        b"\xd0\x9f",
        b"\xd0",
        b"\0",
        b" ",
        b'"',
        b"\n",
        b'api-key: "' + b"0123456789abcdef" * 2,
        b"A" * 40 + b"JQQJ99" + b"B" * 12,
        b"sig=" + b"aB%2F" * 9,
        b"a=b",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=8), st.binary(max_size=4))
@example([KEY, b"\n", b"\xff"], b"")
@example([b"\xd0\x9f"], b"\xd0")
@example([b"x"], KEY)
def test_both_searches_notice_the_same_lines(pieces: list[bytes], read_behind: bytes) -> None:
    text = b"".join(pieces) + b"\n"
    near, far = (Block(at, text + read_behind, len(text)) for at in (0, FAR))
    assert look_through(near).suspicious == look_through(far).suspicious


@pytest.mark.parametrize("offset", [0, FAR, 1 << 40])
def test_a_key_is_noticed_wherever_it_stands(offset: int) -> None:
    text = b"a task-oriented text\nuse " + KEY + b" here\nnothing\nsig=" + b"aB%2F" * 9 + b"\n"
    assert look_through(Block(offset, text, len(text))).suspicious == [1, 3]


def test_settings_that_look_like_keys_are_looked_for_near_the_beginning_only() -> None:
    text = b'api-key: "' + b"0123456789abcdef" * 2 + b'"\n'
    assert [look_through(Block(at, text, len(text))).suspicious for at in (0, FAR, 1 << 40)] == [[0], [0], []]
