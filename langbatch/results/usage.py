"""The tokens that responses say they used, in langbatch's words."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from langbatch.results.members import UNREADABLE

if TYPE_CHECKING:
    from langbatch.records import Usage


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _UsageObject(msgspec.Struct, gc=False):
    """Both spellings: chat, completions and embeddings first, Responses after."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


_usage_decoder: Final = msgspec.json.Decoder(_UsageObject)
_usages_decoder: Final = msgspec.json.Decoder(list[_UsageObject])
_USAGE_BATCH: Final = 64


def read_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """A response's `usage` object in langbatch's words; None where it says nothing or is unusual."""
    tokens = UsageSum()
    tokens.add(bytes(raw))
    return tokens.total() if tokens.says_something else None


class UsageSum:
    """Adds up tokens; a kind that no row reported stays None."""

    __slots__ = ("_seen", "_waiting")

    def __init__(self) -> None:
        self._seen: list[int | None] = [None, None, None, None]
        self._waiting: list[bytes | msgspec.Raw] = []

    def add(self, raw: bytes) -> None:
        """Count a response's `usage` object; one that is not as documented counts nothing."""
        # Many at once decode in half the time.
        self._waiting.append(raw)
        if len(self._waiting) == _USAGE_BATCH:
            self._settle()

    def add_all(self, raws: Iterable[bytes | msgspec.Raw]) -> None:
        """As `add` each, and hold on to none of them."""
        self._waiting += raws
        self._settle()

    def add_sum(self, other: UsageSum) -> None:
        """Count what another sum has counted."""
        other._settle()
        for place, tokens in enumerate(other._seen):
            if tokens is not None:
                self._seen[place] = tokens + (self._seen[place] or 0)

    @property
    def says_something(self) -> bool:
        self._settle()
        return any(tokens is not None for tokens in self._seen)

    def total(self) -> Usage:
        # Here, since processes that only add up are not to wait for it.
        from langbatch.records import Usage

        self._settle()
        return Usage(*self._seen)

    def _settle(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        try:
            usages = _usages_decoder.decode(b"[%b]" % b",".join(waiting))
        except UNREADABLE:
            usages = []
            for raw in waiting:
                with suppress(*UNREADABLE):
                    usages.append(_usage_decoder.decode(raw))
        for place, counts in enumerate(_columns(usages)):
            try:
                self._seen[place] = sum(counts, self._seen[place] or 0)  # type: ignore[arg-type]
            except TypeError:  # some rows do not report it
                reported = [count for count in counts if count is not None]
                if reported:
                    self._seen[place] = sum(reported, self._seen[place] or 0)


def _columns(usages: list[_UsageObject]) -> tuple[list[int | None], ...]:
    if not usages:
        return ()
    given = [usage.prompt_tokens_details or usage.input_tokens_details for usage in usages]
    taken = [usage.completion_tokens_details or usage.output_tokens_details for usage in usages]
    return (
        [u.prompt_tokens if u.input_tokens is None else u.input_tokens for u in usages],
        [u.completion_tokens if u.output_tokens is None else u.output_tokens for u in usages],
        [None if details is None else details.cached_tokens for details in given],
        [None if details is None else details.reasoning_tokens for details in taken],
    )
