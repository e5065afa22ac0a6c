"""What stands around the texts of prompts that differ in nothing else: instructions, turns of conversations.

A wrapping is taken from one prompt and serves all that begin alike: between the same bytes any other sound
text makes a prompt that is as sound. It is proven by decoding a prompt that is made with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
#: How much of a line's end tells it from others, if all have as much, and how many are kept.
_MARK_BYTES = 32
_ENDINGS_MOST = 1024
#: Turns kept, and brackets in a text that are no turn before it is left at that.
_TURNS_MOST = 4
_PATIENCE = 2
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


#: No line ends with a newline.
NO_ENDING = Ending(b"\n", 1, None)


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
        #: Endings by what is behind the text, and how many they are.
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
        opening, behind = prompt[: texts[-1].start(1) + 1], prompt[texts[-1].end(1) - 1 :]
        begins = prompt[:BEGINS_BYTES]
        known = self._known.get(begins)
        # A conversation begins with the same instructions as a single question, whose wrapping fits both.
        if known is not None and known.opening_size < len(self._before) + len(opening):
            start = known.opening_size - len(self._before)
            self._learn_turns(
                {
                    prompt[text.end(1) - 1 : other.start(1) + 1]
                    for text, other in pairwise(texts)
                    if text.start(1) >= start - 1
                }
            )
            return self._known[begins]
        if not self._is_sound(opening + b"x" + behind):
            return known
        if len(self._known) >= _KNOWN_MOST or len(opening) + len(behind) > _LONG_BYTES:
            self._known.clear()
            self._forget_endings()
            self._endings.clear()
        opening, endings = self._before + opening, self._endings.setdefault(behind, {})
        wrapping = Wrapping(opening, len(opening), behind, len(behind), endings, ())
        wrapping = self._known[begins] = self._with_turns(wrapping)
        return wrapping

    def learn_ending(self, wrapping: Wrapping, tail: bytes, verdict: object) -> None:
        """Know from now on what lines are that end with the wrapping's last bytes and `tail`."""
        ending, size = wrapping.behind + tail, wrapping.behind_size + len(tail)
        if size > _LONG_BYTES:
            return
        if size < self.mark or self._endings_count >= _ENDINGS_MOST:
            self.mark = min(self.mark, size)
            self._forget_endings()
        self._endings_count += 1
        wrapping.endings[ending[-self.mark :]] = Ending(ending, size, verdict)

    def _forget_endings(self) -> None:
        for endings in self._endings.values():
            endings.clear()
        self._endings_count = 0

    def _learn_turns(self, turns: set[bytes]) -> None:
        new = turns - {*self._turns}
        if not new or len(self._turns) + len(new) > _TURNS_MOST or sum(map(len, new)) > _LONG_BYTES:
            return
        for turn in new:
            # Without a bracket no message ends: such a turn will not be found sound.
            self._turns[turn] = Turn(turn, len(turn), max(0, turn.find(b"{")))
        for begins, wrapping in self._known.items():
            self._known[begins] = self._with_turns(wrapping)

    def _with_turns(self, wrapping: Wrapping) -> Wrapping:
        """With the turns known, if any two may follow one another between the wrapping's bytes: what may
        stand behind a turn is decided by the message that it begins, so any number may."""
        opening = wrapping.opening[len(self._before) :]
        for one, other in product(self._turns, repeat=2):
            if not self._is_sound(b"x".join((opening, one, other, wrapping.behind))):
                return wrapping
        return wrapping._replace(turns=tuple(self._turns.values()))

    def _is_sound(self, prompt: bytes) -> bool:
        assert self._prompts is not None
        try:
            self._prompts.inputs(prompt)
        except (*UNREADABLE, Unfit):
            return False
        return True


def without_turns(text: bytes, start: int, bracket: int, end: int, turns: tuple[Turn, ...]) -> bytes:
    """One JSON string that is sound if and only if all those are that `turns` make of a text.

    The text goes from its quote at `start` to that before `end`; its first `{` is at `bracket`. Where strings
    met, the one has a letter, which neither an escape nor a character can have in it: a turn's bytes behind a
    backslash, for example, are no turn, and make no sound string here.
    """
    parts = []
    patience = _PATIENCE
    while bracket >= 0:
        for turn, size, ahead in turns:
            at = bracket - ahead
            if text[at : at + size] == turn:
                parts.append(text[start:at])
                start = bracket = at + size
                break
        else:
            if not patience:
                break
            patience -= 1
            bracket += 1
        bracket = text.find(b"{", bracket, end)
    parts.append(text[start:end])
    return b"x".join(parts)
