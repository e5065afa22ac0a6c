"""Which custom_ids occur twice, at eight bytes a request.

Ids that ascend, as counters do, are all different. For others one pass keeps a 64-bit hash of every id. Equal
hashes are a suspicion, not a verdict: the file is read once more and the ids themselves are compared, so that
no collision, made or met, refuses a good line.
"""

from __future__ import annotations

import json
import operator
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence

from langbatch.records import Problem
from langbatch.redaction import clean_text

#: Hashes sorted out at once; more are split first, so that the set over them stays small.
_AT_ONCE = 1 << 17

Token = bytes


def fold(token: Token) -> Token:
    """What ids that differ only by case or by Unicode normalisation have in common."""
    if token.isascii():
        return token.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", json.loads(token)).casefold())
    return json.dumps(folded, ensure_ascii=False).encode()


class Identities:
    """The ids of one pass. `add` takes canonical JSON tokens (see `examine.canonical`)."""

    def __init__(self, hashing: Callable[[Token], int] = hash) -> None:
        self._hash = hashing
        self._exact = array("q")
        #: Folded hashes, only of ids that folding changes; the others' are their exact hashes.
        self._folded = array("q")
        #: The last id while each has been behind the one before, shorter ones first; None from then on.
        self._last: Token | None = b""

    def add(self, tokens: Sequence[Token]) -> None:
        self._exact.extend(map(self._hash, tokens))
        joined = b"\n".join(tokens)
        if tokens and self._last is not None:
            self._last = tokens[-1] if _ascend(self._last, tokens, joined) else None
        if joined.isascii() and joined == joined.lower():
            return
        for token in tokens:
            folded = fold(token)
            if folded != token:
                self._folded.append(self._hash(folded))

    def suspects(self) -> Suspects | None:
        """What must be looked at again; None if all ids are surely different, however folded."""
        if self._last is not None and not self._folded:
            return None
        exact: set[int] = set()
        folded: set[int] = set()
        for part, others in zip(_split(self._exact), _split(self._folded, len(self._exact)), strict=True):
            exact |= _twice(part)
            if others:
                folded |= _twice(others) | set(others).intersection(part)
        return Suspects(exact, folded, self._hash) if exact or folded else None


class Suspects:
    """Hashes that several ids share; `look` at every line's id, in order, then read the findings."""

    def __init__(self, exact: set[int], folded: set[int], hashing: Callable[[Token], int]) -> None:
        self._exact = exact
        self._folded = folded
        self._hash = hashing
        self._first_lines: dict[Token, int] = {}
        self._first_spellings: dict[Token, Token] = {}
        self.problems: list[Problem] = []
        self.similar = 0
        self.first_similar_line = 0

    def look(self, token: Token, line: int, byte_offset: int, custom_id: str) -> None:
        if self._hash(token) in self._exact:
            first = self._first_lines.setdefault(token, line)
            if first != line:
                message = f"custom_id stands already on line {first}; give each request its own"
                self.problems.append(
                    Problem(line, byte_offset, clean_text(custom_id), "duplicate_custom_id", message)
                )
                return
        if self._folded:
            folded = fold(token)
            if (
                self._hash(folded) in self._folded
                and self._first_spellings.setdefault(folded, token) != token
            ):
                self.similar += 1
                self.first_similar_line = self.first_similar_line or line


def _ascend(last: Token, tokens: Sequence[Token], joined: bytes) -> bool:
    """Whether each of the tokens, the first behind `last`, is longer than the one before or greater. `joined`
    are they by newlines, which none holds."""
    first, size = tokens[0], len(tokens[0])
    if (size, first) <= (len(last), last):
        return False
    if len(tokens[-1]) == size and joined[size :: size + 1] == b"\n" * (len(tokens) - 1):  # all have the size
        return all(map(operator.lt, tokens, tokens[1:]))
    sized = [(len(token), token) for token in tokens]
    return all(map(operator.lt, sized, sized[1:]))


def _split(values: array[int], for_count: int | None = None) -> Iterable[array[int]]:
    """The values sorted into parts by their low bits, as many as `for_count` values would need."""
    parts = 1
    while (len(values) if for_count is None else for_count) > parts * _AT_ONCE:
        parts *= 2
    if parts == 1:
        return [values]
    split = [array("q") for _ in range(parts)]
    for value in values:
        split[value & (parts - 1)].append(value)
    return split


def _twice(values: array[int]) -> set[int]:
    once = set(values)
    if len(once) == len(values):
        return set()
    seen: set[int] = set()
    twice: set[int] = set()
    for value in values:
        (twice if value in seen else seen).add(value)
    return twice
