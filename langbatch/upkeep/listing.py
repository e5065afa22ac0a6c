"""A service's lists, walked from end to end."""

from __future__ import annotations

from collections.abc import Callable

from langbatch.records import BatchPage, FilePage, RemoteFile
from langbatch.running.reconcile import MOST_PAGES, BatchSearch, search_batches


def walk_files(list_files: Callable[[str | None], FilePage]) -> tuple[list[RemoteFile], bool]:
    """Every input file that is listed, and whether these are surely all.

    A service that never says `has_more` lists all at once (2024-10-21 knows no paging; wire reference, 1):
    its list ends where nothing new comes.
    """
    found: dict[str, RemoteFile] = {}
    after: str | None = None
    for _ in range(MOST_PAGES):
        page = list_files(after)
        fresh = [file for file in page.files if file.id not in found]
        found.update((file.id, file) for file in fresh)
        if page.has_more is False or not page.files:
            return list(found.values()), page.has_more is not True
        if not fresh:
            return list(found.values()), page.has_more is None
        after = page.files[-1].id
    return list(found.values()), False


def walk_batches(list_batches: Callable[[str | None], BatchPage], now: float) -> BatchSearch:
    """Every batch that is listed, however old."""
    return search_batches(list_batches, lambda _: True, 0.0, now)
