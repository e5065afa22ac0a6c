"""Notices text that looks like a credential, to warn before it is sent away. Never keeps or shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from langbatch.requests.lines import Block

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
#: What stands before a mark is looked back at, not run over first: a picture in base64 is one long word,
#: and trying it anew from each of its letters would take minutes.
_CREDENTIAL = re.compile(
    rb"(?<![A-Za-z])sig=[A-Za-z0-9%+/_-]{16,}"
    rb"|(?i:AccountKey|SharedAccessKey|api[-_]?key)[\"'\\]{0,3}\s?[=:]\s?[\"'\\]{0,3}[A-Za-z0-9+/_-]{16,}"
    rb"|(?<=[A-Za-z0-9]{30})JQQJ99[A-Za-z0-9]{10,}"
)


def suspicious_lines(block: Block) -> list[int]:
    """Indexes of lines with text that looks like a key or a SAS token."""
    text, offset = block.text, block.offset
    if not (_ASSIGNMENT in text or _may_hold_secret_key(block) or _may_hold_more(block)):
        return []
    found = []
    for index, line in enumerate(block.lines()):
        others = _ASSIGNMENT in line or (offset < _BEGINNING_BYTES and _holds_more(line))
        if _SECRET_KEY.search(line) or (others and _CREDENTIAL.search(line)):
            found.append(index)
        offset += len(line) + 1
    return found


def _may_hold_secret_key(block: Block) -> bool:
    if block.offset >= _LARGE_BYTES:
        # For Rust the look back is part of what is found.
        return _may_hold(block, r"(?:^|[^A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}")
    return _KEY_START in block.text and _SECRET_KEY.search(block.text) is not None


def _may_hold_more(block: Block) -> bool:
    if block.offset >= _BEGINNING_BYTES:
        return False
    if block.offset >= _LARGE_BYTES:
        return _may_hold(block, "|".join(start.decode() for start in _MORE_STARTS))
    return _holds_more(block.text)


def _holds_more(text: bytes) -> bool:
    return any(start in text for start in _MORE_STARTS)


def _may_hold(block: Block, pattern: str) -> bool:
    """Whether Rust's `regex`, which pydantic brings, finds `pattern`, or cannot rule it out.

    It takes a fifth of the time of Python's own search for three bytes, which is a sixth of all the time of
    validation. It looks at proper UTF-8 only; what is read behind a block may end within a character.
    """
    return _found(pattern, block.text) and _found(pattern, block.text[: block.size])


def _found(pattern: str, text: bytes) -> bool:
    """False if it is text without `pattern`."""
    from pydantic_core import ValidationError

    try:
        _rust_search(pattern)(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return fault["type"] != "string_pattern_mismatch"
    return True


@cache
def _rust_search(pattern: str) -> Callable[[bytes], object]:
    from pydantic_core import SchemaValidator, core_schema

    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")).validate_python
