"""What a campaign has played so far, in a file, so that it may be stopped at any time and gone on with later.

One line a chunk of seeds. Chunks count only for the code that played them: the first line says which it was.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from played_code import OtherCode, code_digest
from simulation.campaign import Totals

_BETWEEN = "\t"
_OWN = Path(__file__).parent


class Kept:
    """The chunks in `path`; begins the file where there is none. Raises `OtherCode`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.totals = Totals()
        self.chunks: set[tuple[int, int]] = set()
        self.seconds = 0.0
        head, *lines = self._lines()
        if head["code"] != code_digest(_OWN):
            raise OtherCode(
                f"{path} holds seeds of another state of the code: delete it, or go back to that state"
            )
        for line in lines:
            self.chunks.add((line["first"], line["count"]))
            self.seconds += line["seconds"]
            self.totals.add(_totals(line["totals"]))

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            self._append({"code": code_digest(_OWN)})
        whole, _, _cut_off = self.path.read_bytes().rpartition(b"\n")
        os.truncate(self.path, len(whole) + 1)
        return map(json.loads, whole.splitlines())

    def keep(self, chunk: range, totals: Totals, seconds: float) -> None:
        """`seconds`: of the clock on the wall, by which the campaign got longer."""
        self._append(
            {
                "first": chunk.start,
                "count": len(chunk),
                "seconds": round(seconds, 3),
                "totals": _plain(totals),
            }
        )

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")


def _plain(totals: Totals) -> dict[str, Any]:
    found = {item.name: getattr(totals, item.name) for item in fields(totals)}
    found["moves_after"] = {_BETWEEN.join(key): count for key, count in totals.moves_after.items()}
    return found


def _totals(found: dict[str, Any]) -> Totals:
    for item in fields(Totals):
        if isinstance(getattr(Totals(), item.name), Counter):
            found[item.name] = Counter(found[item.name])
    after = found["moves_after"].items()
    found["moves_after"] = Counter({tuple(key.split(_BETWEEN)): count for key, count in after})
    return Totals(**found)
