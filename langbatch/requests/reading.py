"""One pass over an input: accepts, refuses, counts, and feeds the snapshot."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from langbatch.records import ENDPOINT_PATHS, InputWarning, OnProgress, Problem, Progress
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
from langbatch.requests.identities import Identities, Suspects
from langbatch.requests.intake import Intake, ModelRuns, estimate_tokens
from langbatch.requests.lane import Lane, Verdict
from langbatch.requests.lines import Block, InputFile, refuse_file
from langbatch.requests.suspicion import Suspicion

if TYPE_CHECKING:
    from langbatch.shards.snapshot import SnapshotWriter


class Reading:
    """One pass in progress. `duplicates`: lines an earlier pass has found to repeat a custom_id."""

    def __init__(
        self,
        file: InputFile,
        rules: Rules,
        into: SnapshotWriter | None,
        on_progress: OnProgress | None,
        id_prefix: str,
        duplicates: Mapping[int, Problem] | None = None,
    ) -> None:
        self._file = file
        self._rules = rules
        self._into = into
        self._on_progress = on_progress
        self._id_prefix = id_prefix
        self._duplicates = duplicates or {}
        self._agreed = Agreement(rules.kind)
        self._lane = Lane(rules, self._agreed)
        self._suspicion = Suspicion()
        self.identities = Identities()
        self.problems: list[Problem] = []
        self._rejected = 0
        self._lines = self._total = self._bytes = self._inputs = self._edited = self._longest = 0
        self._blank = self._first_blank = 0
        self._unknown = self._first_unknown = 0
        self._unknown_names: dict[str, None] = {}
        self._models: dict[str, int] = {}
        self._runs = ModelRuns()
        # The most that the target's edits can add to a line.
        self._growth = len("/v1") + (len(canonical(rules.model)) + len('"model": , ') if rules.model else 0)

    # ------------------------------------------------------------ the pass

    def run(self) -> None:
        for block in self._file.blocks(self._rules.max_line_bytes):
            if block.oversized_bytes:
                self._lines += 1
                if self._into is not None:
                    self._into.follow(self._file.digest_before_block())
                self._refuse(
                    block.first_line, block.offset, None, [self._too_large(block.oversized_bytes)], None
                )
            else:
                self._take(block)
            if self._on_progress is not None:
                total = None if self._file.packed else self._file.size_bytes
                done = block.offset + sum(map(len, block.lines)) + len(block.lines)
                self._on_progress(Progress("validate", min(done, total or done), total, "bytes"))
        if self._lines == self._blank:
            raise refuse_file("empty_file", "the file holds no requests; write one JSON object per line")

    def _take(self, block: Block) -> None:
        self._lines += len(block.lines)
        lines, verbatim = self._prepared(block)
        self._longest = max(self._longest, max(map(len, lines), default=0) + 1)
        by_hand = self._by_hand(block, lines)
        accept, lane = self._lane.accept, self._lane
        counts_inputs = self._agreed.kind in (None, "embeddings")
        tokens: list[bytes] = []
        inputs: list[int] = []
        changes: dict[int, bytes | None] = {}
        run: Verdict | None = None
        run_from = run_line = 0
        for index, line in enumerate(lines):
            token = accept(line) if index not in by_hand else None
            if token is None:
                token = self._examine(block, index, line, changes)
                if token is None:
                    continue
            tokens.append(token)
            if lane.last is not run:
                self._tally(run, run_line, len(tokens) - 1 - run_from)
                run, run_from, run_line = lane.last, len(tokens) - 1, block.first_line + index
            if counts_inputs:
                inputs.append(lane.inputs)
        self._tally(run, run_line, len(tokens) - run_from)
        self.identities.add(tokens)
        self._total += len(tokens)
        self._keep(block, lines, verbatim and not changes, changes, tokens, inputs)

    def _prepared(self, block: Block) -> tuple[list[bytes], bool]:
        """The block's lines without CR and with made-up ids; whether they are still the file's own."""
        lines = block.lines
        verbatim = block.parts is not None
        text: bytes | None = None
        if block.parts is not None:
            view = block.parts[1]
            text = view.obj if isinstance(view, memoryview) and isinstance(view.obj, bytes) else None
        self._suspicion.look(lines, text, block.first_line)
        if text is None or b"\r" in text or b"\r" in lines[0]:
            stripped = [line.strip(LINE_SPACE) for line in lines]
            verbatim = verbatim and stripped == lines
            lines = stripped
        if self._id_prefix:
            named = [self._named(number, line) for number, line in enumerate(lines, block.first_line)]
            verbatim = verbatim and named == lines
            lines = named
        return lines, verbatim

    def _named(self, number: int, line: bytes) -> bytes:
        """A line that surely has no custom_id gets one here, and can then take the lane."""
        if b'"custom_id"' in line or b'"body"' not in line or line[:1] != b"{":
            return line
        return with_id_in_front(line, canonical(f"{self._id_prefix}{number}"))

    def _by_hand(self, block: Block, lines: list[bytes]) -> frozenset[int]:
        """Lines the lane must not take: perhaps too large after edits, or known to repeat an id."""
        limit = self._rules.max_line_bytes - self._growth - 1
        chosen = (
            {index for index, line in enumerate(lines) if len(line) > limit}
            if self._longest > limit
            else set()
        )
        if self._duplicates:
            chosen |= {index for index in range(len(lines)) if block.first_line + index in self._duplicates}
        return frozenset(chosen)

    def _keep(
        self,
        block: Block,
        lines: list[bytes],
        verbatim: bool,
        changes: Mapping[int, bytes | None],
        tokens: list[bytes],
        inputs: list[int],
    ) -> None:
        numbers = range(block.first_line, block.first_line + len(lines))
        if changes:
            kept = [
                (number, line)
                for index, number in enumerate(numbers)
                if (line := changes.get(index, lines[index])) is not None
            ]
            lines = [line for _, line in kept]
            line_numbers = array("I", [number for number, _ in kept])
        else:
            line_numbers = array("I", numbers)
        self._bytes += sum(map(len, lines)) + len(lines)
        counted = array("I", inputs) if self._agreed.kind == "embeddings" else None
        self._inputs += sum(inputs) if counted is not None else len(tokens)
        into = self._into
        if into is None or (self.problems and not self._rules.skip_invalid):
            return
        if not verbatim or self._file.packed:
            into.follow(self._file.digest_before_block())
        parts = block.parts if verbatim and block.parts is not None else (b"\n".join(lines) + b"\n",)
        into.add(parts, array("I", [len(line) + 1 for line in lines]), line_numbers, tokens, counted)

    # ------------------------------------------------------------ single lines

    def _examine(
        self, block: Block, index: int, line: bytes, changes: dict[int, bytes | None]
    ) -> bytes | None:
        """The exact way: accept, or record every fault. `changes` learns of lines not kept as they are."""
        trimmed = line.strip(LINE_SPACE)
        number = block.first_line + index
        if not trimmed:
            self._blank += 1
            self._first_blank = self._first_blank or number
            changes[index] = None
            return None
        if len(trimmed) != len(line):
            changes[index] = trimmed
            if number not in self._duplicates and (token := self._lane.accept(trimmed)) is not None:
                return token
        offset = _offset(block, index)
        if number in self._duplicates:
            known = self._duplicates[number]
            changes[index] = None
            self._refuse(number, offset, known.custom_id, [Fault(known.code, known.message)], trimmed)
            return None
        if len(trimmed) + 1 > self._rules.max_line_bytes:
            changes[index] = None
            self._refuse(number, offset, None, [self._too_large(len(trimmed))], trimmed)
            return None
        seen = examine(trimmed, self._rules, self._agreed)
        if self._id_prefix and seen.scanned is not None and seen.token is None:
            token = canonical(f"{self._id_prefix}{number}")
            seen = examine(with_custom_id(trimmed, token), self._rules, self._agreed)
        if not seen.faults:
            self._check_sent_size(seen)
        if seen.line is not line:
            changes[index] = seen.line
        if seen.faults:
            changes[index] = None
            shown = None if seen.custom_id is None else clean_text(seen.custom_id)
            self._refuse(number, offset, shown, seen.faults, trimmed)
            if seen.token is not None and not self._rules.skip_invalid:
                # The line will be mended, not left out: its id is taken.
                self.identities.add([seen.token])
            return None
        self._agree(seen)
        assert seen.token is not None
        return seen.token

    def _agree(self, seen: Examined) -> None:
        """Accept: the first line that comes here sets what later ones must have."""
        agreed = self._agreed
        agreed.kind = agreed.kind or seen.kind
        agreed.url = agreed.url or seen.url
        agreed.model = agreed.model or seen.model
        self._lane.learn(seen)
        self._lane.last = Verdict(seen.edited, seen.model, seen.unknown_keys)
        self._lane.inputs = seen.inputs

    def _check_sent_size(self, seen: Examined) -> None:
        if len(seen.line) + self._growth < self._rules.max_line_bytes:
            return
        kind = seen.kind or self._agreed.kind
        url = None if self._rules.keeps_url or kind is None else "/v1" + ENDPOINT_PATHS[kind]
        size = len(edit_line(seen.line, self._rules.model, url))
        if size + 1 > self._rules.max_line_bytes:
            seen.faults.append(self._too_large(size))

    def _too_large(self, size: int) -> Fault:
        return too_large(size, self._rules.max_line_bytes)

    def _refuse(
        self, line: int, offset: int, custom_id: str | None, faults: list[Fault], text: bytes | None
    ) -> None:
        self._rejected += 1
        self.problems += [Problem(line, offset, custom_id, fault.code, fault.message) for fault in faults]
        if self._into is not None and self._rules.skip_invalid:
            self._into.reject(_reject_record(line, offset, custom_id, faults, text))

    # ------------------------------------------------------------ sums

    def _tally(self, verdict: Verdict | None, first_line: int, count: int) -> None:
        if verdict is None or count == 0:
            return
        if verdict.edited:
            self._edited += count
        if verdict.model is not None:
            model = self._models.setdefault(verdict.model, len(self._models))
            if self._rules.split_by_model:
                self._runs.extend(model, count)
        if verdict.unknown_keys:
            self._unknown += count
            self._first_unknown = self._first_unknown or first_line
            for name in verdict.unknown_keys:
                if len(self._unknown_names) < 3:
                    self._unknown_names[clean_text(name, 40)] = None

    def add_duplicates(self, found: list[Problem]) -> None:
        """Count lines as refused that only a second look showed to repeat an id."""
        refused = {problem.line for problem in self.problems}
        fresh = sum(problem.line not in refused for problem in found)
        self._rejected += fresh
        self._total -= fresh
        self.problems = sorted(self.problems + found, key=lambda problem: problem.line)

    def intake(self, suspects: Suspects | None) -> Intake:
        return Intake(
            kind=self._agreed.kind,
            total=self._total,
            rejected=self._rejected,
            lines=self._lines,
            bytes=self._file.size_bytes,
            sha256=self._file.sha256(),
            models=tuple(self._models),
            edited_lines=self._edited,
            problems=tuple(self.problems),
            warnings=tuple(self._warnings(suspects)),
            estimated_tokens=estimate_tokens(self._bytes, self._total),
            max_line_bytes=self._longest,
            request_bytes=self._bytes,
            embedding_inputs=self._inputs,
            runs=self._runs,
        )

    def _warnings(self, suspects: Suspects | None) -> Iterator[InputWarning]:
        if self._file.had_bom:
            yield InputWarning("byte_order_mark", 1, 1, "the byte order mark at the file's start is left out")
        if self._blank:
            yield InputWarning("blank_lines", self._blank, self._first_blank, "blank lines are skipped")
        if self._unknown:
            names = ", ".join(f"'{name}'" for name in self._unknown_names)
            message = f"lines with keys that langbatch does not know are sent as they are: {names}"
            yield InputWarning("unknown_keys", self._unknown, self._first_unknown, message)
        if self._suspicion.count:
            message = "lines hold text that looks like a key or a SAS token; it would be sent to the service"
            yield InputWarning("possible_secret", self._suspicion.count, self._suspicion.first_line, message)
        if suspects is not None and suspects.similar:
            message = "custom_ids differ only in case or Unicode form; they are kept apart"
            yield InputWarning("similar_custom_ids", suspects.similar, suspects.first_similar_line, message)


def _offset(block: Block, index: int) -> int:
    """Where a line of the block begins. Sums are kept: a block of bad lines is not summed for each."""
    if not block.starts:
        block.starts.extend(accumulate((len(line) + 1 for line in block.lines), initial=block.offset))
    return block.starts[index]


def _reject_record(
    line: int, offset: int, custom_id: str | None, faults: list[Fault], text: bytes | None
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "line": line,
        "byte_offset": offset,
        "custom_id": custom_id,
        "problems": [{"code": fault.code, "message": fault.message} for fault in faults],
    }
    if text is not None:
        try:
            record["text"] = text.decode()
        except UnicodeDecodeError:
            record["base64"] = base64.b64encode(text).decode()
    return record
