"""Notices text that looks like a credential, to warn before it is sent away. Never keeps or shows it."""

from __future__ import annotations

import re

#: Looked for everywhere: what OpenAI's keys, SAS tokens and connection strings cannot be without. Each costs
#: a search over the whole input, so the list is short; `=` is rare in prose and searched at memory speed.
_KEY_START = b"sk-"
_ASSIGNMENT = b"="
#: Looked for only in the beginning of an input: Azure's 84-character keys, and headers and settings.
_MORE_STARTS = (b"JQQJ99", b"api-key", b"api_key", b"Api-Key", b"API_KEY")
_BEGINNING_BYTES = 8 << 20

_CREDENTIAL = re.compile(
    rb"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"
    rb"|(?<![A-Za-z])sig=[A-Za-z0-9%+/_-]{16,}"
    rb"|(?i:AccountKey|SharedAccessKey|api[-_]?key)[\"'\\]{0,3}\s?[=:]\s?[\"'\\]{0,3}[A-Za-z0-9+/_-]{16,}"
    rb"|[A-Za-z0-9]{30,}JQQJ99[A-Za-z0-9]{10,}"
)


class Suspicion:
    """Counts lines with text that looks like a key or a SAS token."""

    def __init__(self) -> None:
        self.count = 0
        self.first_line = 0
        self._seen_bytes = 0

    def look(self, lines: list[bytes], block: bytes | None, first_line: int) -> None:
        """Look through a block. `block` are the bytes of all lines but perhaps the first, if at hand."""
        if block is None or not lines or self._may_hold(block):
            suspects = list(enumerate(lines))
        else:
            suspects = [(0, lines[0])]
        self._seen_bytes += sum(map(len, lines)) if block is None else len(block)
        for index, line in suspects:
            if self._may_hold(line) and _CREDENTIAL.search(line):
                self.count += 1
                self.first_line = self.first_line or first_line + index

    def _may_hold(self, text: bytes) -> bool:
        if _KEY_START in text or _ASSIGNMENT in text:
            return True
        return self._seen_bytes < _BEGINNING_BYTES and any(start in text for start in _MORE_STARTS)
