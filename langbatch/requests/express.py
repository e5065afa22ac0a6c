"""The quickest way: lines that differ from an accepted one in custom_id and prompt alone, byte for byte.

Each line costs a handful of comparisons and one decoding of its prompt, or only of the texts in it where what
stands around these is known, too (see `wrappings`). What needs Python's own loop (the letters of ids, keys
that repeat) is asked once for all lines taken in a row; if the answer is no, they are taken again one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from langbatch.requests.frames import UNREADABLE
from langbatch.requests.prompts import Prompts, Unfit
from langbatch.requests.shapes import BodyShape
from langbatch.requests.wrappings import BEGINS_BYTES, NO_WRAPPING, Wrapping, Wrappings, without_turns

#: Prompts between two attempts to find out what they have in common, where they have little; and lines that
#: are taken one by one after some in a row did not pass together.
_LEAST_HELP = 4096

#: Bytes that stand for themselves in a JSON string: printable ASCII but `"` and `\`.
_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
#: What else a plain id's token has.
_QUOTES = b'""'
_decode_text: Callable[[Any], object] = msgspec.json.Decoder(str).decode
#: As strict with a string in proper UTF-8, and twice as quick: nothing is made of it.
_pass_over_text: Callable[[Any], object] = msgspec.json.Decoder(msgspec.Raw).decode


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the steady values of an accepted line mean for it."""

    edited: bool
    model: str | None
    unknown_keys: tuple[str, ...]


@dataclass(slots=True)
class Lines:
    """Lines that are to be taken, and what is told of those that were.

    They end at a newline, the last at `end`; none longer than `longest` is taken. `is_utf8`: whether all of
    them are known to be proper UTF-8. `tokens` are the ids of those taken, `starts` the places behind them,
    `inputs` their inputs, where these are counted.
    """

    text: bytes
    end: int
    longest: int
    tokens: list[bytes]
    starts: list[int]
    inputs: list[int] | None
    is_utf8: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """A tail around one value that varies: the bytes before and behind it.

    `fits` judges a value; one of digits alone needs no judge where `takes_numbers`.
    """

    before: bytes
    behind: bytes
    fits: Callable[[bytes], bool]
    takes_numbers: bool
    verdict: Verdict

    def verdict_on(self, text: bytes, tail_at: int, newline: int) -> Verdict | None:
        """What the line that ends at `newline` is, if its tail begins at `tail_at`."""
        value_at, value_end = tail_at + len(self.before), newline - len(self.behind)
        if text[tail_at:value_at] != self.before or text[value_end:newline] != self.behind:
            return None
        value = text[value_at:value_end]
        if self.takes_numbers and value.isdigit() and len(value) < 19 and value[0] != 0x30:
            return self.verdict
        # Decoding it proves that the gap holds exactly one value.
        return self.verdict if value[:1].strip() and self.fits(value) else None


@dataclass(slots=True)
class Express:
    """Lines that are `start`, a plain id, `middle`, a prompt, and one of the `tails`, byte for byte.

    `tail_start` opens every tail. A line whose tail has a `gap` differs from the one it was laid along in
    one more value.

    After a run `verdict` is what all lines taken have in common, and `near` tells whether the line that
    ended it had `start` and `middle` at least.
    """

    shape: BodyShape
    start: bytes
    middle: bytes
    tail_start: bytes
    longest_id: int
    most_inputs: int
    tails: dict[bytes, Verdict] = field(default_factory=dict)
    gap: Gap | None = None
    verdict: Verdict | None = None
    near: bool = False
    #: How long the last id was, and the last two tails that differed in it: guesses, tried before searching.
    _id_bytes: int = 1
    _tail_bytes: int = 0
    _other_bytes: int = 0
    #: The wrapping of the prompt before, and whether a bracket in the last text that had one was a turn's.
    _wrapping: Wrapping = NO_WRAPPING
    _brackets_tell: bool = True
    #: Prompts without a known wrapping until one is learnt, and how many those were last.
    _others: int = 4
    _patience: int = 4
    #: Lines still to be taken one by one.
    _careful: int = 0
    _prompts: Prompts = field(init=False)
    _wrappings: Wrappings = field(init=False)

    def __post_init__(self) -> None:
        self._prompts = self.shape.prompts()
        self._wrappings = Wrappings(self.shape, self.middle)

    def learn(self, prompt: bytes) -> None:
        """Take from a prompt what stands around its texts: others may differ in these alone."""
        self._wrapping = self._wrappings.learn(prompt) or self._wrapping

    def run(self, lines: Lines, at: int) -> int:
        """Take lines from `at` on, up to the first that does not fit; where that begins."""
        starts, tokens, inputs = lines.starts, lines.tokens, lines.inputs
        taken, begun = len(tokens), len(starts)
        if not self._careful:
            stop, messages = self._take(lines, at)
            ids = b"".join(tokens[taken:]).translate(None, _PLAIN)
            if self._prompts.passed(messages) and ids == _QUOTES * (len(tokens) - taken):
                return stop
            self._careful = _LEAST_HELP
            del tokens[taken:], starts[begun:]
            if inputs is not None:
                del inputs[taken:]
        stop, _ = self._take(lines, at)
        self._careful = max(0, self._careful - len(tokens) + taken)
        return stop

    def _take(self, lines: Lines, at: int) -> tuple[int, int]:
        """As `run`. If not `_careful`, ids may hold any letter, and of the messages decoded, whose number is
        the second value, `_prompts` knows whether they pass."""
        # Looked up once: this loop runs for every line that there is. A slice compared is quicker than
        # `startswith` from a place on, a `get` of one than a `find`, and one of over 500 bytes takes long.
        text, end, longest = lines.text, lines.end, lines.longest
        starts, tokens, inputs = lines.starts, lines.tokens, lines.inputs
        find, view = text.find, memoryview(text)
        start, middle, longest_id, most_inputs = self.start, self.middle, self.longest_id, self.most_inputs
        start_bytes, middle_bytes, id_bytes = len(start), len(middle), self._id_bytes
        careful, count_inputs = bool(self._careful), self.shape.count
        decode_text = _pass_over_text if lines.is_utf8 else _decode_text
        decode, decode_carefully = self._prompts.decode, self._prompts.inputs
        wrapping_of, mark, others = self._wrappings.get, self._wrappings.mark, self._others
        opening, opening_bytes, behind, behind_bytes, endings, turns = wrapping = self._wrapping
        tails, gap, tail_bytes, other_bytes = self.tails, self.gap, self._tail_bytes, self._other_bytes
        brackets_tell = self._brackets_tell
        tail_start, tail_start_bytes = self.tail_start, len(self.tail_start)
        verdict: Verdict | None = None
        number, messages = 1, 0
        near = True
        while at < end:
            newline = find(b"\n", at)
            id_at = at + start_bytes
            if text[at:id_at] != start or newline - at > longest:
                near = False
                break
            id_end = id_at + id_bytes
            text_at = id_end + opening_bytes
            known = text[id_end:text_at] == opening
            if not known:
                prompt_at = id_end + middle_bytes
                if text[id_end:prompt_at] != middle:
                    id_end = find(b'"', id_at, newline)
                    prompt_at = id_end + middle_bytes
                    if not 0 < id_end - id_at <= longest_id or text[id_end:prompt_at] != middle:
                        near = False
                        break
                    id_bytes = id_end - id_at
                    text_at = id_end + opening_bytes
                    known = text[id_end:text_at] == opening
                if not known:
                    other = wrapping_of(text[prompt_at : prompt_at + BEGINS_BYTES])
                    if other is not None:
                        opening, opening_bytes, behind, behind_bytes, endings, turns = wrapping = other
                        text_at = id_end + opening_bytes
                        known = text[id_end:text_at] == opening
            found: Verdict | None = None
            if known and endings:
                known_ending = endings.get(text[newline - mark : newline])
                if known_ending is not None:
                    ending, ending_bytes, found = known_ending
                    ends_at = newline - ending_bytes
                    if text[ends_at:newline] != ending:
                        found = None
            if found is None:
                prompt_at = id_end + middle_bytes
                tail_at = newline - tail_bytes
                if text[tail_at : tail_at + tail_start_bytes] != tail_start:
                    tail_bytes, other_bytes = other_bytes, tail_bytes
                    tail_at = newline - tail_bytes
                    if text[tail_at : tail_at + tail_start_bytes] != tail_start:
                        tail_at = text.rfind(tail_start, prompt_at, newline)
                        tail_bytes = newline - tail_at
                if tail_at <= prompt_at:
                    tail_bytes = 0
                    break
                ends_at = tail_at - behind_bytes
                known = known and text[ends_at:tail_at] == behind
                found = None if gap is None else gap.verdict_on(text, tail_at, newline)
                if found is None:
                    found = tails.get(text[tail_at:newline])
                    if found is None:
                        break
                    if known and gap is None:
                        self._wrappings.learn_ending(wrapping, text[tail_at:newline], found)
                        mark = self._wrappings.mark
            if found is not verdict and verdict is not None:
                break
            verdict = found
            token = text[id_at - 1 : id_end + 1]
            if careful and token.translate(None, _PLAIN) != _QUOTES:
                break
            if known:
                # Nothing, and no text, where the opening and what is behind overlap.
                written = view[text_at - 1 : ends_at + 1]
                cut = None
                if turns and brackets_tell and find(b"{", text_at, ends_at) >= 0:
                    cut = without_turns(text, text_at - 1, ends_at + 1, turns)
                    brackets_tell = cut is not None
                try:
                    decode_text(written if cut is None else cut)
                except UNREADABLE:
                    known = False
                    tail_at = ends_at + behind_bytes
                    if cut is None:
                        cut = without_turns(text, text_at - 1, ends_at + 1, turns)
                        known = cut is not None and _is_text(decode_text, cut)
                        brackets_tell = known
            if not known:
                prompt = view[id_end + middle_bytes : tail_at]
                try:
                    if careful:
                        number = decode_carefully(prompt)
                    else:
                        decoded = decode(prompt)
                        if count_inputs is not None:
                            number = count_inputs(decoded)
                        elif decoded.__class__ is list:
                            messages += len(decoded)
                except (*UNREADABLE, Unfit):
                    break
                if number > most_inputs:
                    break
                others -= 1
                if not others:
                    # The less often the less it helps.
                    self._patience = others = min(2 * self._patience, _LEAST_HELP)
                    self.learn(bytes(prompt))
                    opening, opening_bytes, behind, behind_bytes, endings, turns = wrapping = self._wrapping
            tokens.append(token)
            if inputs is not None:
                inputs.append(number)
            at = newline + 1
            starts.append(at)
        self.verdict, self.near, self._others, self._wrapping = verdict, near, others, wrapping
        self._brackets_tell = brackets_tell
        self._id_bytes, self._tail_bytes, self._other_bytes = id_bytes, tail_bytes, other_bytes
        return at, messages


def _is_text(decode_text: Callable[[Any], object], written: bytes) -> bool:
    try:
        decode_text(written)
    except UNREADABLE:
        return False
    return True
