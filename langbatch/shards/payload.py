"""What one attempt uploads: a shard's lines with the target's edits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from langbatch.errors import BatchStorageError
from langbatch.publish import publishing

#: `edit(line, model, url)`: the line as the target needs it; model or url None leaves that part alone.
Edit = Callable[[bytes, str | None, str | None], bytes]


@dataclass(frozen=True, slots=True)
class Payload:
    """A file ready to be uploaded. `edited` counts lines that differ from the snapshot's."""

    path: Path
    bytes: int
    sha256: str
    requests: int
    edited: int


def write_payload(
    lines: Iterable[bytes],
    path: Path,
    *,
    model: str | None,
    url: str | None,
    edit: Edit,
    ordinals: Container[int] | None = None,
) -> Payload:
    """Publish `lines`, edited, as `path`.

    `ordinals` counts within `lines` from 0 and selects what a retry sends; None takes all. A payload
    without a request is refused: a service could only answer `empty_file`.
    """
    digest = hashlib.sha256()
    size = requests = edited = 0
    with publishing(path) as out:
        for ordinal, given in enumerate(lines):
            if ordinals is not None and ordinal not in ordinals:
                continue
            line = given.removesuffix(b"\n")
            sent = line if model is None and url is None else edit(line, model, url).removesuffix(b"\n")
            edited += sent != line
            sent += b"\n"
            digest.update(sent)
            out.write(sent)
            size += len(sent)
            requests += 1
        if requests == 0:
            raise BatchStorageError("there is no request to send", code="empty_payload")
    return Payload(path, size, digest.hexdigest(), requests, edited)
