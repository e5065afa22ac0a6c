"""Images in requests: an address passes as it is; a file becomes a data URL, streamed when written."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from langbatch.building.template import RowFault
from langbatch.errors import BatchInitializationError

#: The largest image that the services take (Azure OpenAI's guide to vision: 20 MB an image).
IMAGE_LIMIT_BYTES: Final = 20_000_000
_ADDRESSES: Final = ("https://", "http://", "data:image/")
#: A multiple of three, so that the pieces' base64 joins without padding.
_BLOCK_BYTES: Final = 3 << 18


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that was looked at, and what it held then."""

    path: Path
    media_type: str
    size: int
    sha256: str

    def data_url(self) -> Iterator[bytes]:
        """In pieces. Raises `BatchInitializationError` where the file has changed since it was looked at."""
        yield f"data:{self.media_type};base64,".encode()
        digest, left = hashlib.sha256(), self.size
        with _opened(self.path) as file:
            # A full block unless the file ends: base64 pieces must not be padded in between.
            while block := file.read(min(_BLOCK_BYTES, left)):
                digest.update(block)
                left -= len(block)
                yield base64.b64encode(block)
        if left or digest.hexdigest() != self.sha256:
            raise BatchInitializationError(
                f"the image {self.path.name} changed while it was read",
                hint="Build again.",
                code="image_changed",
            )


def find_image(said: str, folder: Path) -> str | ImageFile:
    """The image a cell names: an address as it is, or a file, relative to `folder`.

    A column may name any file of this machine, so only what begins as an image does is ever sent.
    """
    if said.lower().startswith(_ADDRESSES):
        return said
    path = folder / said
    try:
        with _opened(path) as file:
            head = file.read(16)
            digest = hashlib.sha256(head)
            size = len(head)
            media_type = _media_type(head)
            if media_type is None:
                raise RowFault("not_an_image", f"{path.name} is no PNG, JPEG, GIF or WebP image")
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                if size > IMAGE_LIMIT_BYTES:
                    raise RowFault(
                        "image_too_large",
                        f"{path.name} is larger than the {IMAGE_LIMIT_BYTES:,} bytes that services take",
                    )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no usable name"
        raise RowFault("no_image", f"the image {said[:200]!r} cannot be read: {why}") from None
    return ImageFile(path, media_type, size, digest.hexdigest())


def _opened(path: Path) -> BinaryIO:
    # A pipe with an image's name would block for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RowFault("no_image", f"{path.name} is not a file")
    return open(descriptor, "rb")


def _media_type(head: bytes) -> str | None:
    """By the first bytes: endings lie, and the services look at the bytes, too."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None
