"""One block of lines judged: which are accepted, what they say, what is wrong with the others.

Pure: the same lines under the same rules and agreement give the same findings, whichever process judges
them and wherever the input was cut into blocks. What holds for the whole input (repeated ids, line numbers,
sums) is for `reading` to find.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from langbatch.records import ENDPOINT_PATHS, Problem
from langbatch.redaction import clean_text
from langbatch.requests.edits import edit_line, with_custom_id, with_id_in_front
from langbatch.requests.examine import (
    LINE_SPACE,
    Agreement,
    Examined,
    Fault,
    Rules,
    canonical,
    examine,
    too_large,
)
from langbatch.requests.express import Lines, Verdict
from langbatch.requests.lane import Lane
from langbatch.requests.lines import Block
from langbatch.requests.suspicion import look_through


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused line, by its index in the block. `custom_id` may be shown; `text` is None if never held."""

    index: int
    offset: int
    custom_id: str | None
    faults: tuple[Fault, ...]
    text: bytes | None


@dataclass(slots=True)
class Judged:
    """What the lines of a block come to. Indexes count its lines from 0; `tokens` are accepted ids.

    `lines` holds the lines as they are to be kept where that is not simply the block's text, blank and
    refused ones included; `changes` says which of them are kept otherwise, and which (None) not at all.
    `lengths` are bytes of the kept lines with their newline.
    """

    offset: int
    end: int
    count: int = 0
    tokens: list[bytes] = field(default_factory=list)
    lines: list[bytes] | None = None
    changes: dict[int, bytes | None] = field(default_factory=dict)
    lengths: array[int] = field(default_factory=lambda: array("I"))
    inputs: array[int] | None = None
    runs: list[tuple[Verdict, int, int]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    refused_tokens: list[bytes] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    suspicious: list[int] = field(default_factory=list)
    longest: int = 0
    unended: bool = False
    oversized: bool = False

    @property
    def verbatim(self) -> bool:
        """Whether what is kept are the file's own bytes."""
        return self.lines is None and not self.changes and not self.unended and not self.oversized

    def kept(self, text: bytes | None) -> list[bytes]:
        """The accepted lines. `text` are the block's bytes, where `lines` was not filled in."""
        lines = self.lines
        if lines is None:
            lines = (text or b"").split(b"\n")[: self.count]
        if not self.changes:
            return lines
        changed = (self.changes.get(index, line) for index, line in enumerate(lines))
        return [line for line in changed if line is not None]

    def kept_indexes(self) -> Iterable[int]:
        if not self.changes:
            return range(self.count)
        return [index for index in range(self.count) if self.changes.get(index, b"") is not None]


class Judge:
    """Judges blocks one after another. `agreed` is what their good lines have in common; it is filled in.

    `duplicates`: lines an earlier pass has found to repeat a custom_id, by number. `id_prefix`: what
    made-up ids begin with, where lines without one get one.
    """

    def __init__(
        self,
        rules: Rules,
        agreed: Agreement,
        id_prefix: str = "",
        duplicates: Mapping[int, Problem] | None = None,
    ) -> None:
        self.agreed = agreed
        self._rules = rules
        self._id_prefix = id_prefix
        self._duplicates = duplicates or {}
        self._lane = Lane(rules, agreed)
        # The most that the target's edits can add to a line.
        self._growth = len("/v1") + (len(canonical(rules.model)) + len('"model": , ') if rules.model else 0)
        #: Longer lines are perhaps too large after edits: the lane must not take them.
        self._longest = rules.max_line_bytes - self._growth - 1

    def judge(self, block: Block, first_line: int) -> Judged:
        """`first_line` is the number of the block's first line, from 1."""
        found = Judged(block.offset, block.end, unended=block.unended)
        if block.oversized_bytes:
            found.count = 1
            found.oversized = True
            found.changes[0] = None
            fault = too_large(block.oversized_bytes, self._rules.max_line_bytes)
            found.refusals.append(Refusal(0, block.offset, None, (fault,), None))
            return found
        counts_inputs = self.agreed.kind in (None, "embeddings")
        inputs: list[int] | None = [] if counts_inputs else None
        look = look_through(block)
        found.suspicious = look.suspicious
        found.lines = self._prepared(block, first_line)
        if found.lines is None and not self._duplicates:
            lengths = self._take_text(block, found, inputs, look.is_utf8)
        else:
            lengths = self._take_lines(block, found, inputs, first_line)
        found.count = len(lengths)
        found.longest = max(lengths)
        if found.changes:
            for index, line in found.changes.items():
                lengths[index] = 0 if line is None else len(line) + 1
            lengths = [length for length in lengths if length]
        found.lengths = array("I", lengths)
        if self.agreed.kind == "embeddings" and inputs is not None:
            found.inputs = array("I", inputs)
        return found

    def _take_text(self, block: Block, found: Judged, inputs: list[int] | None, is_utf8: bool) -> list[int]:
        """Judge the lines where they stand in the text. Lengths with newline."""
        text, size, tokens, lane = block.text, block.size, found.tokens, self._lane
        starts = [0]
        lines = Lines(text, size, self._longest, tokens, starts, inputs, is_utf8)
        at = 0
        while at < size:
            before = len(tokens)
            at = lane.run(lines, at)
            if taken := len(tokens) - before:
                _note(found.runs, lane.last, len(starts) - 1 - taken, taken)
                continue
            index = len(starts) - 1
            newline = text.index(b"\n", at)
            line = text[at:newline]
            token = lane.accept_framed(line) if len(line) <= self._longest else None
            self._settle(found, inputs, index, 0, block.offset + at, line, token)
            at = newline + 1
            starts.append(at)
        return list(map(operator.sub, starts[1:], starts))

    def _take_lines(
        self, block: Block, found: Judged, inputs: list[int] | None, first_line: int
    ) -> list[int]:
        """Judge lines that are not simply the text, or that must be told by their numbers."""
        written = block.lines()
        lines = written if found.lines is None else found.lines
        offset = block.offset
        for index, line in enumerate(lines):
            by_hand = first_line + index in self._duplicates or len(line) > self._longest
            token = None if by_hand else self._lane.accept(line)
            self._settle(found, inputs, index, first_line + index, offset, line, token)
            offset += len(written[index]) + 1
        return [len(line) + 1 for line in lines]

    def _settle(
        self,
        found: Judged,
        inputs: list[int] | None,
        index: int,
        number: int,
        offset: int,
        line: bytes,
        token: bytes | None,
    ) -> None:
        """Count a line in, after a closer look where the lane gave no `token`."""
        token = token or self._examine(found, index, number, offset, line)
        if token is None:
            return
        found.tokens.append(token)
        _note(found.runs, self._lane.last, index, 1)
        if inputs is not None:
            inputs.append(self._lane.inputs)

    def _prepared(self, block: Block, first_line: int) -> list[bytes] | None:
        """The lines without CR and with made-up ids; None where they are the block's own."""
        lines = None
        if block.text.find(b"\r", 0, block.size) >= 0:
            lines = [line.strip(LINE_SPACE) for line in block.lines()]
        if self._id_prefix:
            lines = block.lines() if lines is None else lines
            lines = [self._named(number, line) for number, line in enumerate(lines, first_line)]
        return lines

    def _named(self, number: int, line: bytes) -> bytes:
        """A line that surely has no custom_id gets one here, and can then take the lane."""
        if b'"custom_id"' in line or b'"body"' not in line or line[:1] != b"{":
            return line
        return with_id_in_front(line, canonical(f"{self._id_prefix}{number}"))

    # ------------------------------------------------------------ single lines

    def _examine(self, found: Judged, index: int, number: int, offset: int, line: bytes) -> bytes | None:
        """The exact way: accept, or record every fault."""
        trimmed = line.strip(LINE_SPACE)
        changes = found.changes
        if not trimmed:
            found.blank.append(index)
            changes[index] = None
            return None
        if len(trimmed) != len(line):
            changes[index] = trimmed
            fits = number not in self._duplicates and len(trimmed) <= self._longest
            if fits and (token := self._lane.accept(trimmed)) is not None:
                return token
        if number in self._duplicates:
            known = self._duplicates[number]
            changes[index] = None
            fault = Fault(known.code, known.message)
            found.refusals.append(Refusal(index, offset, known.custom_id, (fault,), trimmed))
            return None
        if len(trimmed) + 1 > self._rules.max_line_bytes:
            changes[index] = None
            fault = too_large(len(trimmed), self._rules.max_line_bytes)
            found.refusals.append(Refusal(index, offset, None, (fault,), trimmed))
            return None
        seen = examine(trimmed, self._rules, self.agreed)
        if self._id_prefix and seen.scanned is not None and seen.token is None:
            token = canonical(f"{self._id_prefix}{number}")
            seen = examine(with_custom_id(trimmed, token), self._rules, self.agreed)
        if not seen.faults:
            self._check_sent_size(seen)
        if seen.line is not line:
            changes[index] = seen.line
        if seen.faults:
            changes[index] = None
            shown = None if seen.custom_id is None else clean_text(seen.custom_id)
            found.refusals.append(Refusal(index, offset, shown, tuple(seen.faults), trimmed))
            if seen.token is not None:
                found.refused_tokens.append(seen.token)
            return None
        self._agree(seen)
        assert seen.token is not None
        return seen.token

    def _agree(self, seen: Examined) -> None:
        """Accept: the first line that comes here sets what later ones must have."""
        agreed = self.agreed
        agreed.kind = agreed.kind or seen.kind
        agreed.url = agreed.url or seen.url
        agreed.model = agreed.model or seen.model
        self._lane.learn(seen)
        self._lane.last = Verdict(seen.edited, seen.model, seen.unknown_keys)
        self._lane.inputs = seen.inputs

    def _check_sent_size(self, seen: Examined) -> None:
        if len(seen.line) + self._growth < self._rules.max_line_bytes:
            return
        kind = seen.kind or self.agreed.kind
        url = None if self._rules.keeps_url or kind is None else "/v1" + ENDPOINT_PATHS[kind]
        size = len(edit_line(seen.line, self._rules.model, url))
        if size + 1 > self._rules.max_line_bytes:
            seen.faults.append(too_large(size, self._rules.max_line_bytes))


def _note(runs: list[tuple[Verdict, int, int]], verdict: Verdict, first: int, count: int) -> None:
    """Count accepted lines, from index `first`, to a verdict: the one of those before, or a new one."""
    if runs and runs[-1][0] is verdict:
        runs[-1] = (verdict, runs[-1][1], runs[-1][2] + count)
    else:
        runs.append((verdict, first, count))
