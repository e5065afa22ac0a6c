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
    if not (_holds_secret_key(block) or _may_hold_others(text, offset)):
        return []
    found = []
    for index, line in enumerate(block.lines()):
        if _SECRET_KEY.search(line) or (_may_hold_others(line, offset) and _CREDENTIAL.search(line)):
            found.append(index)
        offset += len(line) + 1
    return found


def _may_hold_others(text: bytes, offset: int) -> bool:
    if _ASSIGNMENT in text:
        return True
    return offset < _BEGINNING_BYTES and any(start in text for start in _MORE_STARTS)


def _holds_secret_key(block: Block) -> bool:
    """Whether `_SECRET_KEY` is found in the text.

    Python's own search for three bytes takes a sixth of all the time of validation; that of Rust's `regex`,
    which pydantic brings, a fifth of that. It looks at proper UTF-8 only, and what is read behind the block
    may end within a character.
    """
    for text in (block.text, block.text[: block.size]):
        fault = _unlike_secret_key(text)
        if fault is None:
            return True
        if fault == "string_pattern_mismatch":
            return False
    return _SECRET_KEY.search(block.text) is not None


def _unlike_secret_key(text: bytes) -> str | None:
    """What pydantic calls the reason why `text` is no text with a key in it; None if it is."""
    from pydantic_core import ValidationError  # loaded where there is something to search

    try:
        _rust_search()(text)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False, include_input=False)[0]["type"]
    return None


@cache
def _rust_search() -> Callable[[bytes], object]:
    from pydantic_core import SchemaValidator, core_schema

    pattern = "(?:^|[^A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")).validate_python
