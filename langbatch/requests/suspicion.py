"""Notices text that looks like a credential, to warn before it is sent away. Never keeps or shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from langbatch.interrupts import interrupts_wait
from langbatch.requests.lines import Block

if TYPE_CHECKING:
    from pydantic_core import ValidationError

#: Looked for everywhere: what OpenAI's keys, SAS tokens and connection strings cannot be without. Each costs
#: a search over the whole input, so the list is short.
_KEY_START = b"sk-"
_ASSIGNMENT = b"="
#: Looked for only in lines that begin near the input's start: Azure's 84-character keys, headers, settings.
_MORE_STARTS = (b"JQQJ99", b"api-key", b"api_key", b"Api-Key", b"API_KEY")
_BEGINNING_BYTES = 8 << 20
#: Behind so much text loading a quicker search pays.
_LARGE_BYTES = 1 << 20

#: Begins with what is searched for, so that the search is one for plain bytes: `task-1` holds it, too.
_SECRET_KEY = re.compile(rb"sk-(?<![A-Za-z0-9]sk-)[A-Za-z0-9_-]{16,}")
#: The same for Rust, which cannot look back.
_SECRET_KEY_FOR_RUST = r"(?:^|[^A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"
#: What stands before a mark is looked back at, not run over first: a picture in base64 is one long word,
#: and trying it anew from each of its letters would take minutes.
_CREDENTIAL = re.compile(
    rb"(?<![A-Za-z])sig=[A-Za-z0-9%+/_-]{16,}"
    rb"|(?i:AccountKey|SharedAccessKey|api[-_]?key)[\"'\\]{0,3}\s?[=:]\s?[\"'\\]{0,3}[A-Za-z0-9+/_-]{16,}"
    rb"|(?<=[A-Za-z0-9]{30})JQQJ99[A-Za-z0-9]{10,}"
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look through a block has shown: the indexes of lines with text that looks like a key or a SAS
    token, and whether all of the block is known to be proper UTF-8."""

    suspicious: list[int]
    is_utf8: bool


def look_through(block: Block) -> Look:
    """Look for what may be a secret."""
    text, offset = block.text, block.offset
    key = _rust_finds(_SECRET_KEY_FOR_RUST, block)
    is_utf8 = key is not None
    if key is None:
        key = _KEY_START in text and _SECRET_KEY.search(text) is not None
    if not (key or _ASSIGNMENT in text or _may_hold_more(block)):
        return Look([], is_utf8)
    found = []
    for index, line in enumerate(block.lines()):
        others = _ASSIGNMENT in line or (offset < _BEGINNING_BYTES and _holds_more(line))
        if _SECRET_KEY.search(line) or (others and _CREDENTIAL.search(line)):
            found.append(index)
        offset += len(line) + 1
    return Look(found, is_utf8)


def _may_hold_more(block: Block) -> bool:
    if block.offset >= _BEGINNING_BYTES:
        return False
    found = _rust_finds("|".join(start.decode() for start in _MORE_STARTS), block)
    return _holds_more(block.text) if found is None else found


def _holds_more(text: bytes) -> bool:
    return any(start in text for start in _MORE_STARTS)


def _rust_finds(pattern: str, block: Block) -> bool | None:
    """Whether Rust's `regex`, which pydantic brings, finds `pattern` in the block or right behind it. None
    where that was not asked, or the block is not proper UTF-8, which is all it looks at.

    It takes a fifth of the time of Python's own search for three bytes, which is a sixth of all the time of
    validation.
    """
    if block.offset < _LARGE_BYTES:
        return None
    found = _finds(pattern, block.text)
    # What is read behind a block may end within a character.
    return _finds(pattern, block.text[: block.size]) if found is None else found


def _finds(pattern: str, text: bytes) -> bool | None:
    search, mismatch = _rust_search(pattern)
    try:
        search(text)
    except mismatch as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
        return False if fault == "string_pattern_mismatch" else None
    return True


@cache
def _rust_search(pattern: str) -> tuple[Callable[[bytes], object], type[ValidationError]]:
    """What searches, and what it raises where it finds nothing."""
    with interrupts_wait():
        from pydantic_core import SchemaValidator, ValidationError, core_schema

        schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
        return SchemaValidator(schema).validate_python, ValidationError
