"""What stands around the texts of prompts that differ in nothing else: instructions, turns of conversations.

A wrapping is taken from one prompt and serves all that begin alike: between the same bytes any other sound
text makes a prompt that is as sound. It is proven by decoding a prompt that is made with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise, product
from typing import Any, NamedTuple

from langbatch.requests.frames import UNREADABLE
from langbatch.requests.prompts import Unfit
from langbatch.requests.shapes import BodyShape

#: How much of a prompt's beginning tells its instructions from others, how many are kept at once, and how
#: long they may be without the others being dropped: bounds memory.
BEGINS_BYTES = 96
_KNOWN_MOST = 256
_LONG_BYTES = 16 << 10
#: How much of a line's end tells it from others, if all have as much; what ends with less than the short one
#: has a place only if it was the first; how many are kept.
_MARK_BYTES = 128
_SHORT_MARK = 32
_ENDINGS_MOST = 1024
_TURNS_MOST = 4
#: A message's text in a prompt. Behind an escaped quote it is part of a key, whose text it then is.
_TEXT = re.compile(rb'"content"[ \t\r]*+:[ \t\r]*+("(?:[^"\\]++|\\.)*+")')


class Turn(NamedTuple):
    """What makes two texts of one: from a text's last quote to the next one's first, the bytes and their
    number. `bracket` is where their first `{` is."""

    turn: bytes
    size: int
    bracket: int


class Ending(NamedTuple):
    """The last bytes of lines, from a text's last quote on, and their number. What becomes of such lines, the
    `verdict`, is for others to say."""

    ending: bytes
    size: int
    verdict: Any


class Wrapping(NamedTuple):
    """The bytes around a prompt's text, with their numbers: up to its first quote, and from its last one on.

    Lines with this behind a text have these `endings`, by their last bytes; in the text may be `turns`.
    """

    opening: bytes
    opening_size: int
    behind: bytes
    behind_size: int
    endings: dict[bytes, Ending]
    turns: tuple[Turn, ...]


#: No line holds a newline.
NO_WRAPPING = Wrapping(b"\n", 1, b"\n", 1, {}, ())


class Wrappings:
    """The wrappings of prompts that stand behind `before`. Those whose inputs are counted have none."""

    def __init__(self, shape: BodyShape, before: bytes) -> None:
        self._before = before
        self._prompts = None if shape.count else shape.prompts()
        self._known: dict[bytes, Wrapping] = {}
        #: Endings by what is behind the text, and how many they are in all.
        self._endings: dict[bytes, dict[bytes, Ending]] = {}
        self._endings_count = 0
        #: How many of a line's last bytes tell its ending from others: no ending is shorter.
        self.mark = _MARK_BYTES
        self._turns: dict[bytes, Turn] = {}
        #: A wrapping by the first `BEGINS_BYTES` of a prompt.
        self.get: Callable[[bytes], Wrapping | None] = self._known.get

    def learn(self, prompt: bytes) -> Wrapping | None:
        """Take the bytes around the prompt's last text, and those between its texts. The wrapping of prompts
        that begin alike, if there is one."""
        texts = [*_TEXT.finditer(prompt)] if self._prompts else []
        if not texts:
            return None
        begins, place = prompt[:BEGINS_BYTES], len(texts) - 1
        known = self._known.get(begins)
        if known is not None:
            # Conversations begin with the instructions of a question; two of them with no more than that.
            opening = known.opening[len(self._before) :]
            while place and prompt[: texts[place].start(1)] != opening[: texts[place].start(1)]:
                place -= 1
        opening = self._before + prompt[: texts[place].start(1) + 1]
        behind = prompt[texts[-1].end(1) - 1 :]
        # Instructions that vary are rare: those known are not given up for them.
        if known is None or (place and len(opening) < known.opening_size):
            self._learn_wrapping(begins, opening, behind)
        self._learn_turns(
            prompt[text.end(1) - 1 : other.start(1) + 1] for text, other in pairwise(texts[place:])
        )
        return self._known.get(begins)

    def _learn_wrapping(self, begins: bytes, opening: bytes, behind: bytes) -> None:
        if not self._is_sound(opening[len(self._before) :] + b"x" + behind):
            return
        # A wrapping that becomes shorter may have another behind it.
        many = max(len(self._known), len(self._endings)) >= _KNOWN_MOST
        if many or len(opening) + len(behind) > _LONG_BYTES:
            self._known.clear()
            self._forget_endings()
            self._endings.clear()
        endings = self._endings.setdefault(behind, {})
        wrapping = Wrapping(opening, len(opening), behind, len(behind), endings, ())
        self._known[begins] = self._with_turns(wrapping)

    def learn_ending(self, wrapping: Wrapping, tail: bytes, verdict: object) -> None:
        """Know from now on what lines are that end with the wrapping's last bytes and `tail`, unless others
        that end almost alike are known."""
        ending, size = wrapping.behind + tail, wrapping.behind_size + len(tail)
        if size > _LONG_BYTES or (size < _SHORT_MARK and self._endings_count):
            return
        if size < self.mark or self._endings_count >= _ENDINGS_MOST:
            self.mark = min(self.mark, size)
            self._forget_endings()
        mark = ending[-self.mark :]
        if mark not in wrapping.endings:
            wrapping.endings[mark] = Ending(ending, size, verdict)
            self._endings_count += 1

    def _forget_endings(self) -> None:
        for endings in self._endings.values():
            endings.clear()
        self._endings_count = 0

    def _learn_turns(self, turns: Iterable[bytes]) -> None:
        # Without a bracket no message begins: that is no turn.
        new = [turn for turn in dict.fromkeys(turns) if turn not in self._turns and b"{" in turn]
        new = new[: _TURNS_MOST - len(self._turns)]
        if not new or sum(map(len, new)) > _LONG_BYTES:
            return
        for turn in new:
            self._turns[turn] = Turn(turn, len(turn), turn.index(b"{"))
        for begins, wrapping in self._known.items():
            self._known[begins] = self._with_turns(wrapping)

    def _with_turns(self, wrapping: Wrapping) -> Wrapping:
        """With those turns known of which any number may stand in a text, in any order.

        That is so if any two may. A sound turn ends one message and begins another, for no message has two
        texts: what may follow it is decided by its own bytes alone.
        """
        opening = wrapping.opening[len(self._before) :]
        kept: tuple[Turn, ...] = ()
        for turn in self._turns.values():
            tried = (*kept, turn)
            if all(
                self._is_sound(b"x".join((opening, one.turn, other.turn, wrapping.behind)))
                for one, other in product(tried, repeat=2)
            ):
                kept = tried
        return wrapping._replace(turns=kept)

    def _is_sound(self, prompt: bytes) -> bool:
        assert self._prompts is not None
        try:
            self._prompts.inputs(prompt)
        except (*UNREADABLE, Unfit):
            return False
        return True


def without_turns(text: bytes, start: int, end: int, turns: tuple[Turn, ...]) -> bytes | None:
    """One JSON string that is sound if and only if all are that `turns` make of a text; None if it is one, or
    has other brackets before the first turn.

    The text goes from its quote at `start` to that before `end`. Where strings met, the one has a letter,
    which neither an escape nor a character can have in it: a turn's bytes behind a backslash, for example,
    are no turn, and make no sound string here.
    """
    parts = []
    bracket = text.find(b"{", start, end)
    while bracket >= 0:
        for turn, size, ahead in turns:
            at = bracket - ahead
            # No quote both begins a text and ends it.
            if at >= start and text[at : at + size] == turn:
                parts.append(text[start:at])
                start = at + size
                break
        else:
            break
        bracket = text.find(b"{", start, end)
    if not parts:
        return None
    parts.append(text[start:end])
    return b"x".join(parts)
