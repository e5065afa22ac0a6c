"""One pass over an input: adds up what its blocks come to, and feeds the snapshot."""

from __future__ import annotations

import base64
import hashlib
from array import array
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langbatch.records import InputWarning, OnProgress, Problem, Progress
from langbatch.redaction import clean_text
from langbatch.requests.examine import Agreement, Rules
from langbatch.requests.express import Verdict
from langbatch.requests.identities import Identities, Suspects
from langbatch.requests.intake import Intake, ModelRuns, estimate_tokens
from langbatch.requests.judging import Judge, Judged, Refusal
from langbatch.requests.lines import BOM, Fingerprint, InputFile, refuse_file
from langbatch.requests.ranges import judge_ranges

if TYPE_CHECKING:
    from concurrent.futures import Executor

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
        self._judge = Judge(rules, Agreement(rules.kind), id_prefix, duplicates)
        #: An input whose lines cannot be judged without knowing their numbers is read in one go.
        self._counted = bool(id_prefix or duplicates)
        #: Of all text so far, while the snapshot repeats it.
        self._digest = None if into is None or file.packed else hashlib.sha256()
        self.identities = Identities()
        self.problems: list[Problem] = []
        self._rejected = 0
        self._lines = self._total = self._bytes = self._inputs = self._edited = self._longest = 0
        self._blank = self._first_blank = 0
        self._suspicious = self._first_suspicious = 0
        self._unknown = self._first_unknown = 0
        self._first_return = 0
        self._unknown_names: dict[str, None] = {}
        self._models: dict[str, int] = {}
        self._runs = ModelRuns()

    def run(self, executor: Executor | None = None, range_bytes: int = 0) -> None:
        """Read it all; with an executor in ranges of about `range_bytes`, as soon as it is known what the
        lines must have in common."""
        path = self._file.real_path()
        if executor is None or path is None or self._file.packed or self._counted:
            self._read(0, None)
        else:
            at, size, agreed = 0, self._file.size_bytes, self._judge.agreed
            while at < size and not (agreed.kind and agreed.url and agreed.model):
                end = self._file.line_start(min(at + max(range_bytes, 1), size))
                self._read(at, end)
                at = end
            for found in judge_ranges(executor, self._file, path, self._rules, agreed, at, range_bytes):
                text = None
                if self._into is not None and not found.oversized:
                    text = self._file.text(found.offset, found.end - found.offset)
                self._take(found, text)
        if self._lines == self._blank:
            raise refuse_file("empty_file", "the file holds no requests; write one JSON object per line")

    def _read(self, start: int, end: int | None) -> None:
        for block in self._file.blocks(self._rules.max_line_bytes, start, end):
            self._take(self._judge.judge(block, self._lines + 1), block.text)

    # ------------------------------------------------------------ one block

    def _take(self, found: Judged, text: bytes | None) -> None:
        first_line = self._lines + 1
        self._lines += found.count
        self._longest = max(self._longest, found.longest)
        self._count(found, first_line)
        for refusal in found.refusals:
            self._refuse(refusal, first_line)
        self.identities.add(found.tokens)
        if found.refused_tokens and not self._rules.skip_invalid:
            self.identities.add(found.refused_tokens)
        self._total += len(found.tokens)
        self._bytes += sum(found.lengths)
        self._inputs += len(found.tokens) if found.inputs is None else sum(found.inputs)
        self._keep(found, text, first_line)
        if self._on_progress is not None:
            total = None if self._file.packed else self._file.size_bytes
            done = min(found.end, total or found.end)
            self._on_progress(Progress("validate", done, total, "bytes"))

    def _keep(self, found: Judged, text: bytes | None, first_line: int) -> None:
        into = self._into
        if into is None:
            return
        if not self.problems or self._rules.skip_invalid:
            if not found.verbatim or self._file.packed or (found.offset == len(BOM) and self._file.had_bom):
                into.follow(hashlib.sha256() if self._digest is None else self._digest.copy())
            part: bytes | memoryview
            if found.verbatim and text is not None:
                part = memoryview(text)[: found.end - found.offset]
            else:
                part = b"\n".join(found.kept(text)) + b"\n"
            numbers = array("I", [first_line + index for index in found.kept_indexes()])
            into.add((part,), found.lengths, numbers, found.tokens, found.inputs)
        if self._digest is not None:
            # After the snapshot took it: a snapshot that leaves the text follows the digest of before.
            if found.offset == len(BOM) and self._file.had_bom:
                self._digest.update(BOM)
            if text is None or found.oversized:
                self._file.digest(found.offset, found.end, self._digest)
            else:
                self._digest.update(memoryview(text)[: found.end - found.offset])

    def _refuse(self, refusal: Refusal, first_line: int) -> None:
        self._rejected += 1
        line = first_line + refusal.index
        for fault in refusal.faults:
            self.problems.append(Problem(line, refusal.offset, refusal.custom_id, fault.code, fault.message))
        if self._into is not None and self._rules.skip_invalid:
            self._into.reject(_reject_record(refusal, line))

    # ------------------------------------------------------------ sums

    def _count(self, found: Judged, first_line: int) -> None:
        for verdict, index, count in found.runs:
            self._tally(verdict, first_line + index, count)
        if found.blank:
            self._blank += len(found.blank)
            self._first_blank = self._first_blank or first_line + found.blank[0]
        if found.suspicious:
            self._suspicious += len(found.suspicious)
            self._first_suspicious = self._first_suspicious or first_line + found.suspicious[0]

    def _tally(self, verdict: Verdict, first_line: int, count: int) -> None:
        if verdict.edited:
            self._edited += count
        if verdict.model is not None:
            known = verdict.model in self._models
            model = self._models.setdefault(verdict.model, len(self._models))
            if self._rules.split_by_model:
                if known and self._runs.models[-1] != model:
                    self._first_return = self._first_return or first_line
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

    def finish_snapshot(self) -> None:
        """Put the snapshot on disk."""
        if self._into is not None:
            self._into.close(self._digest)

    def intake(self, suspects: Suspects | None, fingerprint: Fingerprint) -> Intake:
        """`fingerprint` learns the file's hash here, if it was taken."""
        if self._digest is not None:
            fingerprint.known = self._digest.hexdigest()
        return Intake(
            kind=self._judge.agreed.kind,
            total=self._total,
            rejected=self._rejected,
            lines=self._lines,
            bytes=self._file.size_bytes,
            models=tuple(self._models),
            edited_lines=self._edited,
            problems=tuple(self.problems),
            warnings=tuple(self._warnings(suspects)),
            estimated_tokens=estimate_tokens(self._bytes, self._total),
            max_line_bytes=self._longest,
            request_bytes=self._bytes,
            embedding_inputs=self._inputs,
            fingerprint=fingerprint,
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
        if self._suspicious:
            message = "lines hold text that looks like a key or a SAS token; it would be sent to the service"
            yield InputWarning("possible_secret", self._suspicious, self._first_suspicious, message)
        if self._first_return:
            runs, models = len(self._runs.counts), len(self._models)
            message = f"{models} models take turns: {runs} batches at least, or {models} once sorted by model"
            yield InputWarning("mixed_models", 1, self._first_return, message)
        if suspects is not None and suspects.similar:
            message = "custom_ids differ only in case or Unicode form; they are kept apart"
            yield InputWarning("similar_custom_ids", suspects.similar, suspects.first_similar_line, message)


def _reject_record(refusal: Refusal, line: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "line": line,
        "byte_offset": refusal.offset,
        "custom_id": refusal.custom_id,
        "problems": [{"code": fault.code, "message": fault.message} for fault in refusal.faults],
    }
    if refusal.text is not None:
        try:
            record["text"] = refusal.text.decode()
        except UnicodeDecodeError:
            record["base64"] = base64.b64encode(refusal.text).decode()
    return record
