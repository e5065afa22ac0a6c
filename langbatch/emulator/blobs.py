"""How blobs are named: Azure's blob mode hands over URLs, here only their paths count."""

from __future__ import annotations


def blob_path(url: str) -> str:
    """A blob's key: the path of its URL, so that the storage's address does not matter."""
    path = url.split("://", 1)[-1]
    path = path.split("/", 1)[1] if "://" in url and "/" in path else path
    return path.strip("/").removeprefix("_blobs/")
