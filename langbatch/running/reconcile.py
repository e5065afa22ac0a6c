"""Looking for what may or may not exist: bounded walks over a service's lists.

A walk says what it found and whether it saw everything that could matter. Not seeing everything
(an error, a repeated cursor, a page that does not say whether more follow) is "unknown", never "absent".
"""

from __future__ import annotations

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
    found: tuple[RemoteBatch, ...]
    complete: bool


def search_batches(
    list_batches: Callable[[str | None], BatchPage],
    wanted: Callable[[RemoteBatch], bool],
    since: float,
    now: float,
) -> BatchSearch:
    """Every batch that is `wanted`, among all made after `since` (our clock).

    Lists come newest first (seen), so a page made wholly before `since` ends the walk; the difference
    between our clock and the service's `Date` is taken off. Errors pass through: the caller's "unknown".
    """
    found: dict[str, RemoteBatch] = {}
    seen: set[str] = set()
    after: str | None = None
    skew: float | None = None
    for _ in range(MOST_PAGES):
        page = list_batches(after)
        if skew is None and page.server_time is not None:
            skew = page.server_time - now
        fresh = [batch for batch in page.batches if batch.id not in seen]
        seen.update(batch.id for batch in fresh)
        found.update((batch.id, batch) for batch in fresh if wanted(batch))
        if not page.batches:
            # An empty page ends a list that says so; a first page without has_more ends it too, since a
            # service that has batches would have shown them.
            return BatchSearch(tuple(found.values()), page.has_more is not True)
        if page.has_more is False:
            return BatchSearch(tuple(found.values()), True)
        if not fresh:
            return BatchSearch(tuple(found.values()), False)
        border = since + (skew or 0.0) - MARGIN_SECONDS
        if all(batch.created_at is not None and batch.created_at < border for batch in page.batches):
            return BatchSearch(tuple(found.values()), True)
        after = page.batches[-1].id
    return BatchSearch(tuple(found.values()), False)


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
