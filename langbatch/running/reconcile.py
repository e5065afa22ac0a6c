"""Looking for what may or may not exist: bounded walks over a service's lists.

A walk says what it found and whether it saw everything that could matter. Not seeing everything
(an error, a repeated cursor, a page that does not say whether more follow) is "unknown", never "absent".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from langbatch.errors import ProviderError
from langbatch.records import BatchPage, FilePage, RemoteBatch, RemoteFile

#: A page holds 100 batches; no walk needs more pages than this to get past a day of heavy use.
MOST_PAGES = 2_000
#: How far back before the intent a walk looks, on the service's clock, in seconds.
MARGIN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class BatchSearch:
    """What a walk saw. `server_time`: the service's clock at its first page, where that says it."""

    found: tuple[RemoteBatch, ...]
    complete: bool
    server_time: float | None = None


@dataclass(slots=True)
class _Order:
    """In which order a list's batches come, as far as it was seen. Neighbours may be swapped by up to
    `MARGIN_SECONDS`: a service is many machines, whose clocks do not agree to the second."""

    _may_fall: bool = True
    _may_rise: bool = True
    _least: float = math.inf
    _most: float = -math.inf

    def see(self, batches: Sequence[RemoteBatch]) -> None:
        for batch in batches:
            if batch.created_at is not None:
                self._may_fall &= batch.created_at <= self._least + MARGIN_SECONDS
                self._may_rise &= batch.created_at >= self._most - MARGIN_SECONDS
                self._least = min(self._least, batch.created_at)
                self._most = max(self._most, batch.created_at)

    @property
    def is_newest_first(self) -> bool:
        return self._may_fall and not self._may_rise

    @property
    def is_mixed(self) -> bool:
        """The pages were not taken from one list: what lies between them may be missing."""
        return not self._may_fall and not self._may_rise


def search_batches(
    list_batches: Callable[[str | None], BatchPage],
    wanted: Callable[[RemoteBatch], bool],
    since: float,
    now: float,
    *,
    since_there: float | None = None,
) -> BatchSearch:
    """Every batch that is `wanted`, among all made after `since` (our clock) or `since_there` (the
    service's), whichever is earlier: our clock may have been set in between.

    Lists come newest first (seen), so a page made wholly before that ends the walk, but only where the list
    shows that order; the difference between our clock and the service's `Date` is taken off. Errors pass
    through: the caller's "unknown".
    """
    found: dict[str, RemoteBatch] = {}
    seen: set[str] = set()
    order = _Order()
    after: str | None = None
    server_time: float | None = None

    def done(complete: bool) -> BatchSearch:
        return BatchSearch(tuple(found.values()), complete and not order.is_mixed, server_time)

    for _ in range(MOST_PAGES):
        page = list_batches(after)
        if server_time is None:
            server_time = page.server_time
        fresh = [batch for batch in page.batches if batch.id not in seen]
        seen.update(batch.id for batch in fresh)
        found.update((batch.id, batch) for batch in fresh if wanted(batch))
        if page.has_more is False and after is None:
            return BatchSearch(tuple(found.values()), True, server_time)  # whole, in whatever order
        order.see(fresh)
        if not page.batches:
            # An empty page ends a list that says so; a first page without has_more ends it too, since a
            # service that has batches would have shown them.
            return done(page.has_more is not True)
        if page.has_more is False:
            return done(True)
        if not fresh:
            return done(False)
        border = since + (0.0 if server_time is None else server_time - now)
        border = min(border, math.inf if since_there is None else since_there) - MARGIN_SECONDS
        old = all(batch.created_at is not None and batch.created_at < border for batch in page.batches)
        if old and order.is_newest_first:
            return done(True)
        after = page.batches[-1].id
    return done(False)


def walk_batches(list_batches: Callable[[str | None], BatchPage], now: float) -> BatchSearch:
    """Every batch that is listed, however old."""
    return search_batches(list_batches, lambda _: True, 0.0, now)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a walk for batches known by their ids saw. `error` broke it off: whoever was not seen until then
    may be on a later page. Without one, looking for the rest by pages does not pay."""

    seen: dict[str, RemoteBatch]
    pages: int
    error: ProviderError | None = None


def sight_batches(
    list_batches: Callable[[str | None], BatchPage], wanted: Collection[str], since: float, now: float
) -> Sighting:
    """As many of the batches with the `wanted` ids as pages show more cheaply than a call for each would.

    `since`: when the oldest of them was made, by our clock. Absence means nothing here, and what came
    before an error counts; so no error passes through.
    """
    left, seen = set(wanted), dict[str, RemoteBatch]()
    after: str | None = None
    skew: float | None = None
    pages = fruitless = 0
    # Whatever the list is like, the walk costs no more than the calls would have, so both at most twice that;
    # and a stretch without any of ours is left once it has cost what the rest would.
    while fruitless < len(left) and pages < len(wanted):
        try:
            page = list_batches(after)
        except ProviderError as error:
            return Sighting(seen, pages + 1, error)
        pages += 1
        if skew is None:
            skew = None if page.server_time is None else page.server_time - now
        found = {batch.id: batch for batch in page.batches if batch.id in left}
        seen |= found
        left -= found.keys()
        fruitless = 0 if found else fruitless + 1
        if not page.batches or page.has_more is False or page.batches[-1].id == after:
            break
        border = since + (skew or 0.0) - MARGIN_SECONDS
        if all(batch.created_at is not None and batch.created_at < border for batch in page.batches):
            break
        after = page.batches[-1].id
    return Sighting(seen, pages)


def search_file(
    list_files: Callable[[str | None], FilePage], name: str, sent_bytes: int | None
) -> RemoteFile | None:
    """The file uploaded under our unique `name`, if the service lists it and its size does not differ."""
    seen: set[str] = set()
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = list_files(after)
        fresh: Sequence[RemoteFile] = [file for file in page.files if file.id not in seen]
        for file in fresh:
            if (
                file.filename == name
                and file.status not in ("error", "deleted")
                and (file.bytes in (None, 0, sent_bytes) or sent_bytes is None)
            ):
                return file
        if not fresh or page.has_more is not True:
            return None
        seen.update(file.id for file in fresh)
        after = page.files[-1].id
    return None


def walk_files(
    list_files: Callable[[str | None], FilePage], until: str | None = None
) -> tuple[list[RemoteFile], bool]:
    """Every input file that is listed, or those up to the page with file `until`, and whether these are
    surely all.

    A service that never says `has_more` lists all at once (2024-10-21 knows no paging; wire reference, 1):
    its list ends where nothing new comes.
    """
    found: dict[str, RemoteFile] = {}
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = list_files(after)
        fresh = [file for file in page.files if file.id not in found]
        found.update((file.id, file) for file in fresh)
        if until in found:
            return list(found.values()), False
        if page.has_more is False or not page.files:
            return list(found.values()), page.has_more is not True
        if not fresh:
            return list(found.values()), page.has_more is None
        after = page.files[-1].id
    return list(found.values()), False


def file_is_listed(list_files: Callable[[str | None], FilePage], file_id: str) -> bool | None:
    """Whether the service lists a file; None where its list cannot be read to its end."""
    files, complete = walk_files(list_files, until=file_id)
    if any(file.id == file_id for file in files):
        return True
    return False if complete else None
