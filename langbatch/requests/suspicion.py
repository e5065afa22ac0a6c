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
    if not _may_hold(text, offset):
        return []
    found = []
    for index, line in enumerate(block.lines()):
        if _SECRET_KEY.search(line) or (_may_hold_others(line, offset) and _CREDENTIAL.search(line)):
            found.append(index)
        offset += len(line) + 1
    return found


def _may_hold(text: bytes, offset: int) -> bool:
    if _holds(text, _KEY_START) and _SECRET_KEY.search(text):
        return True
    return _may_hold_others(text, offset)


def _may_hold_others(text: bytes, offset: int) -> bool:
    if _ASSIGNMENT in text:
        return True
    return offset < _BEGINNING_BYTES and any(start in text for start in _MORE_STARTS)


def _holds(text: bytes, needle: bytes) -> bool:
    """`needle in text`, ten times as fast where the C library's own search is: Python looks at every third
    byte, a quarter of all the time that validation takes."""
    search = _c_search()
    # To C a text ends at its first NUL. Behind its last byte Python keeps one.
    if search is None or b"\0" in text:
        return needle in text
    return search(text, needle) is not None


@cache
def _c_search() -> Callable[[bytes, bytes], int | None] | None:
    import ctypes  # a few milliseconds, which only validation needs

    try:
        search = ctypes.CDLL(None).strstr
    except (OSError, AttributeError, TypeError):
        return None
    search.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    search.restype = ctypes.c_void_p
    found: Callable[[bytes, bytes], int | None] = search
    return found
