"""Prompt templates: `{column}` stands for a row's value, `{{` and `}}` for braces. Nothing else is special.

`str.format` would follow attributes and indexes of the values (`{row.__class__…}`); here what stands between
braces is a column's name, letter by letter, and a value's own braces stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from langbatch.errors import BatchInitializationError

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
#: So many columns are named when one is not found.
_COLUMNS_NAMED: Final = 20


class RowFault(Exception):
    """Something is wrong with one row. `code` is stable, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Template:
    """Text pieces, and between each two of them a column."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises `BatchInitializationError` for a brace without its partner, or nothing between two."""
        texts, names = [""], []
        end = 0
        for found in _PIECE.finditer(text):
            texts[-1] += text[end : found.start()]
            end = found.end()
            token, name = found[0], found[1]
            if token in ("{{", "}}"):
                texts[-1] += token[0]
            elif not name:
                raise BatchInitializationError(
                    f"the template has a stray {token!r} at character {found.start() + 1}",
                    hint="Write {column} for a column's value, {{ and }} for braces.",
                    code="template",
                )
            else:
                names.append(name)
                texts.append("")
        texts[-1] += text[end:]
        return cls(tuple(texts), tuple(names))

    def fill(self, row: Mapping[str, Any]) -> str:
        """The text for one row; `RowFault` for a column it lacks, or one without a value."""
        if not self.names:
            return self.texts[0]
        parts = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            parts += (text_of(row, name), text)
        return "".join(parts)


def text_of(row: Mapping[str, Any], name: str) -> str:
    """A row's value as text: JSON for lists and dicts, otherwise as Python writes it."""
    value = row.get(name)
    if value is None:
        if name not in row:
            raise RowFault("missing_column", f"there is no column {name!r}; {columns_there_are(row)}")
        raise RowFault("no_value", f"column {name!r} has no value")
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise RowFault("odd_value", f"column {name!r} holds half a surrogate pair") from None
        return value
    if isinstance(value, float) and value != value:
        # Tables have NaN where nothing stands.
        raise RowFault("no_value", f"column {name!r} has no value")
    if isinstance(value, (dict, list, tuple)):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            raise RowFault("odd_value", f"column {name!r} holds what JSON cannot write") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise RowFault("odd_value", f"column {name!r} holds bytes, not text")
    return str(value)


def columns_there_are(names: Iterable[str]) -> str:
    known = [str(name) for name in names]
    more = f" and {len(known) - _COLUMNS_NAMED} more" if len(known) > _COLUMNS_NAMED else ""
    return f"the columns are: {', '.join(known[:_COLUMNS_NAMED]) or 'none'}{more}"
