"""The user's input file, read in one streaming pass: every problem, every warning, the private snapshot.

What a line is held against is in `examine`, why most lines need no examination in `lane`; `lines` cuts the
file, `judging` judges a block of lines, `ranges` has others do it, `reading` adds up one pass, `identities`
finds repeated ids, `snapshot` keeps the copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from langbatch.parallel import WORTH_REQUEST_BYTES, sharing_executor
from langbatch.records import EndpointKind, OnProgress, Problem
from langbatch.requests.edits import Editor, edit_line
from langbatch.requests.examine import KNOWN_URLS, Rules, canonical
from langbatch.requests.frames import UNREADABLE
from langbatch.requests.identities import Suspects
from langbatch.requests.intake import Intake, ModelRun, estimate_tokens, refusal
from langbatch.requests.lines import Fingerprint, InputFile, open_input, spool_stdin
from langbatch.requests.ranges import RANGE_BYTES
from langbatch.requests.reading import Reading

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from langbatch.shards.snapshot import SnapshotWriter

__all__ = [
    "Editor",
    "Intake",
    "ModelRun",
    "Rules",
    "edit_line",
    "estimate_tokens",
    "kind_of_first",
    "read_requests",
    "refusal",
    "spool_stdin",
]


def read_requests(
    source: Path,
    rules: Rules,
    *,
    into: SnapshotWriter | None = None,
    on_progress: OnProgress | None = None,
    executor: Executor | None = None,
    range_bytes: int = RANGE_BYTES,
) -> Intake:
    """Read, judge and, with `into`, copy every line of `source`.

    Faulty lines are returned as `problems`; a file that is no set of requests at all raises
    `BatchValidationError`. `into` is closed when the input can be sent, and discarded when it cannot: with
    problems and without `skip_invalid`.

    With an `executor`, ranges of about `range_bytes` are judged by its workers, which must see the file
    under the same path. What is found, and what is copied, is the same to the byte. It pays for large files
    only, which without one are judged by processes where there are cores for them; packed files, and lines
    that get ids by their number, are read in one go all the same.
    """
    with (
        open_input(
            source,
            gzip=rules.gzip,
            max_unpacked_bytes=rules.max_unpacked_bytes,
            max_unpacked_ratio=rules.max_unpacked_ratio,
        ) as file,
        sharing_executor(executor, file.size_bytes, WORTH_REQUEST_BYTES) as judges,
    ):
        prefix = _free_prefix(file, rules) if rules.auto_id else ""
        reading = Reading(file, rules, into, on_progress, prefix)
        reading.run(judges, range_bytes)
        suspects = reading.identities.suspects()
        if suspects is not None:
            _look_again(file, rules, suspects, reading.problems if rules.skip_invalid else [])
            if suspects.problems and rules.skip_invalid:
                # Only now is it known which lines must not be in the copy.
                if into is not None:
                    into.restart()
                reading = Reading(
                    file, rules, into, on_progress, prefix, {p.line: p for p in suspects.problems}
                )
                reading.run()
            elif suspects.problems:
                reading.add_duplicates(suspects.problems)
        file.check_unchanged()
        intake = reading.intake(suspects, Fingerprint(source, file.identity))
        if into is not None:
            if intake.problems and (intake.total == 0 or not rules.skip_invalid):
                into.discard()
            else:
                reading.finish_snapshot()
    if rules.skip_invalid and intake.total == 0:
        raise refusal(intake)
    return intake


def kind_of_first(source: Path, *, gzip: bool = False) -> EndpointKind | None:
    """The kind that the first readable line's url names, by reading no further than that."""
    with open_input(source, gzip=gzip) as file:
        for block in file.blocks(64 << 20):
            for line in block.lines():
                try:
                    kind = KNOWN_URLS.get(_decode_url(line).url)
                except UNREADABLE:
                    continue
                if kind is not None:
                    return kind
    return None


class _WithId(msgspec.Struct, gc=False):
    custom_id: str


class _WithUrl(msgspec.Struct, gc=False):
    url: str


_decode_id: Callable[[bytes], _WithId] = msgspec.json.Decoder(_WithId).decode
_decode_url: Callable[[bytes], _WithUrl] = msgspec.json.Decoder(_WithUrl).decode


def _ids(file: InputFile, rules: Rules) -> Iterator[tuple[int, int, str]]:
    """Line, byte offset and custom_id of every line from which one can be read."""
    number = 0
    for block in file.blocks(rules.max_line_bytes):
        offset = block.offset
        number += block.oversized_bytes > 0
        for line in block.lines():
            number += 1
            try:
                yield number, offset, _decode_id(line).custom_id
            except UNREADABLE:
                pass
            offset += len(line) + 1


def _free_prefix(file: InputFile, rules: Rules) -> str:
    """What made-up ids begin with: `line-`, or `auto-line-` and so on where the user's own begin like that.

    The same file always gets the same ids.
    """
    taken = {match[1] for _, _, custom_id in _ids(file, rules) if (match := _MADE_UP.match(custom_id))}
    prefix = ""
    while prefix in taken:
        prefix += "auto-"
    return prefix + "line-"


_MADE_UP = re.compile(r"((?:auto-)*)line-")


def _look_again(file: InputFile, rules: Rules, suspects: Suspects, refused: list[Problem]) -> None:
    lines = {problem.line for problem in refused}
    for line, offset, custom_id in _ids(file, rules):
        if custom_id and line not in lines:
            suspects.look(canonical(custom_id), line, offset, custom_id)
