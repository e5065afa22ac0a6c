"""A cheap proof that a row without success says what an earlier one said, of another request.

A service refuses requests in a few sentences, thousands of times. A sentence is read exactly when it comes
first; a later row that is the same bytes around its ids and its message ("retry after 7 s") says the same.
Whatever differs elsewhere is for the exact reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from langbatch.results.members import UNREADABLE, spans, spans_within
from langbatch.results.rows import Row

#: Sentences kept at once, and the longest row worth keeping.
_MAX_SENTENCES: Final = 16
_MAX_BYTES: Final = 8192
#: Bytes that stand for themselves in a JSON string: printable ASCII but `"` and `\\`.
_PLAIN: Final = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
_QUOTE: Final = 0x22


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A row's bytes around the strings that vary, whose these are, in their order, and what the row said.

    `error` is its error around the message, or as a whole. `response` is how far the response would lie
    from the row's start if the ids before it took no room, and how far its end from the row's; None where
    there is none.
    """

    literals: tuple[bytes, ...]
    names: tuple[str, ...]
    row: Row
    error: tuple[bytes, ...]
    response: tuple[int, int] | None

    def strings(self, line: bytes) -> dict[str, bytes] | None:
        """What varies, without quotes; None if the line is not this sentence around plain strings."""
        # Most sentences differ at their end; what comes before costs more to compare.
        if not line.endswith(self.literals[-1]):
            return None
        found = {}
        at = 0
        for literal, name in zip(self.literals, self.names, strict=False):
            if not line.startswith(literal, at):
                return None
            start = at + len(literal)
            at = line.find(b'"', start)
            if at < 0:
                return None
            found[name] = string = line[start:at]
            if string.translate(None, _PLAIN):
                return None
        return found if len(line) - len(self.literals[-1]) == at else None

    def of(self, line: bytes, strings: dict[str, bytes]) -> Row:
        """What the line says, in which these vary."""
        said = self.row
        response = None
        if self.response is not None:
            from_start, from_end = self.response
            before = len(strings["custom_id"]) + len(strings.get("id", b""))
            response = line[from_start + before : len(line) - from_end]
        extras = said.extras
        if "id" in strings:
            id_ = b'"%b"' % strings["id"]
            extras = tuple((key, id_ if key == b'"id"' else raw) for key, raw in extras)
        error = strings.get("message", b"").join(self.error)
        return Row(strings["custom_id"].decode(), said.outcome, said.code, response, error, None, extras)


class Failures:
    """The sentences of a file's rows without success, the latest first. Bounded."""

    def __init__(self) -> None:
        self._sentences: list[_Sentence] = []

    def read(self, line: bytes) -> Row | None:
        """What the row says, if an earlier one said the same."""
        for place, sentence in enumerate(self._sentences):
            strings = sentence.strings(line)
            if strings is not None:
                if place:
                    self._sentences.insert(0, self._sentences.pop(place))
                return sentence.of(line, strings)
        return None

    def learn(self, line: bytes, row: Row) -> None:
        """Remember what the row says, which was read exactly."""
        if row.outcome == "succeeded" or len(line) > _MAX_BYTES:
            return
        try:
            sentence = _sentence(line, row)
        except (*UNREADABLE, KeyError):
            return  # not as services write it: without an error object, or with a body that is none
        if sentence is not None:
            self._sentences.insert(0, sentence)
            del self._sentences[_MAX_SENTENCES:]


def _sentence(line: bytes, row: Row) -> _Sentence | None:
    """None where the ids do not lie as services write them: those of the row, then the response with its."""
    members = spans(line)
    found = _strings(line, members, "id", "custom_id")
    response = None
    if row.response is None:
        said = members["error"]
    else:
        start, end = members["response"]
        if any(stop > start for _, stop, _ in found):
            return None
        response = (start - sum(stop - first for first, stop, _ in found), len(line) - end)
        inner = spans_within(line, (start, end))
        found += _strings(line, inner, "request_id")
        over_http = line[slice(*members["error"])] == b"null"
        said = spans_within(line, inner["body"])["error"] if over_http else (0, 0)
    error: tuple[bytes, ...] = (row.error,)
    if line[said[0] : said[0] + 1] == b"{":
        message = _strings(line, spans_within(line, said), "message")
        parts = [row.error.split(b'"%b"' % line[start:end]) for start, end, _ in message]
        if parts and len(parts[0]) == 2:
            found += message
            error = (parts[0][0] + b'"', b'"' + parts[0][1])
    literals = []
    at = 0
    for start, end, _ in sorted(found):
        if line[start:end].translate(None, _PLAIN):
            return None
        literals.append(line[at:start])
        at = end
    names = tuple(name for _, _, name in sorted(found))
    return _Sentence((*literals, line[at:]), names, row, error, response) if "custom_id" in names else None


def _strings(line: bytes, members: Mapping[str, tuple[int, int]], *names: str) -> list[tuple[int, int, str]]:
    """Where the strings of these names lie, without their quotes."""
    found = [(*members[name], name) for name in names if name in members]
    return [(start + 1, end - 1, name) for start, end, name in found if line[start] == _QUOTE]
