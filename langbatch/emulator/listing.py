"""Azure's `$filter` on batch lists: `status eq 'Completed'`, `created_at gt N`, joined by `and` (§3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from langbatch.emulator.objects import BatchRecord
from langbatch.emulator.wire import Refusal

_STATUS = re.compile(r"status\s+(eq|ne)\s+'(\w+)'")
_CREATED = re.compile(r"created_at\s+(gt|ge|lt|le|eq)\s+(\d+)")


@dataclass(frozen=True, slots=True)
class BatchFilter:
    """`status` is (operator, word in lower case without underscores), `created` (operator, seconds)."""

    status: tuple[str, str] | None = None
    created: tuple[tuple[str, int], ...] = ()

    @classmethod
    def read(cls, text: str | None) -> BatchFilter:
        status: tuple[str, str] | None = None
        created: list[tuple[str, int]] = []
        for clause in re.split(r"\s+and\s+", text.strip()) if text else ():
            if match := _STATUS.fullmatch(clause):
                status = (match[1], _plain(match[2]))
            elif match := _CREATED.fullmatch(clause):
                created.append((match[1], int(match[2])))
            else:
                raise Refusal(400, "invalidPayload", "The $filter cannot be read.", param="$filter")
        return cls(status, tuple(created))

    def by_time(self, record: BatchRecord) -> bool:
        at = int(record.created_at)
        compare = {
            "gt": lambda edge: at > edge,
            "ge": lambda edge: at >= edge,
            "lt": lambda edge: at < edge,
            "le": lambda edge: at <= edge,
            "eq": lambda edge: at == edge,
        }
        return all(compare[operator](edge) for operator, edge in self.created)

    def by_status(self, status: str) -> bool:
        if self.status is None:
            return True
        operator, word = self.status
        return (_plain(status) == word) == (operator == "eq")


def _plain(word: str) -> str:
    """`InProgress` and `in_progress` are one word; the filter's spelling is capitalised."""
    return word.replace("_", "").lower()
