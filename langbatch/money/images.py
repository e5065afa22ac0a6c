"""What an image costs in input tokens, by the documented rules, or between what bounds.

Source: OpenAI's guide "Images and vision", section "Calculating costs". Two rules. Tiles: the image is scaled
to fit 2048 x 2048, then so that its shorter side is at most 768; each 512-pixel tile costs, and so does the
image itself; `detail: low` costs the latter alone. Patches: 32-pixel patches, at most 1,536, times a factor.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Tiles:
    base: int
    tile: int


@dataclass(frozen=True, slots=True)
class Patches:
    factor: float


_PATCHES_AT_MOST: Final = 1536
#: Longest prefix wins. A model of no family here is charged between the least and the most of all of them.
_RULES: Final[tuple[tuple[str, Tiles | Patches], ...]] = (
    ("gpt-4o", Tiles(85, 170)),
    ("chatgpt-4o", Tiles(85, 170)),
    ("gpt-4o-mini", Tiles(2833, 5667)),
    ("gpt-4-turbo", Tiles(85, 170)),
    ("gpt-4.5", Tiles(85, 170)),
    ("gpt-4.1", Tiles(85, 170)),
    ("gpt-4.1-mini", Patches(1.62)),
    ("gpt-4.1-nano", Patches(2.46)),
    ("gpt-5", Tiles(70, 140)),
    ("gpt-5-mini", Patches(1.62)),
    ("gpt-5-nano", Patches(2.46)),
    ("o1", Tiles(75, 150)),
    ("o3", Tiles(75, 150)),
    ("o4-mini", Patches(1.72)),
)
#: Where the size is unknown: one tile, and the 2048 x 768 pixels that scaling leaves at most.
_TILES_AT_MOST: Final = 8
#: Enough of a file for the size in its header; a photo's preview may come first.
_HEADER_BASE64: Final = 1 << 17
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImageTokens:
    low: int
    high: int


def image_tokens(model: str | None, url: str | None, detail: str | None) -> ImageTokens:
    """Bounds, the same where model, size and detail are known. The size is read from a data URL's bytes."""
    rule = _rule(model)
    if rule is None:
        every = [_bounds(known, None, detail) for _, known in _RULES]
        return ImageTokens(min(each.low for each in every), max(each.high for each in every))
    return _bounds(rule, image_size(url) if url else None, detail)


def _rule(model: str | None) -> Tiles | Patches | None:
    fitting = [
        (len(family), rule)
        for family, rule in _RULES
        if model is not None and (model == family or model.startswith((f"{family}-", f"{family}.")))
    ]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def _bounds(rule: Tiles | Patches, size: tuple[int, int] | None, detail: str | None) -> ImageTokens:
    if isinstance(rule, Patches):
        if size is None:
            return ImageTokens(math.ceil(rule.factor), math.ceil(_PATCHES_AT_MOST * rule.factor))
        patches = min(math.ceil(size[0] / 32) * math.ceil(size[1] / 32), _PATCHES_AT_MOST)
        tokens = math.ceil(patches * rule.factor)
        # An image above the limit is scaled to whole patches below it, as few as nine tenths.
        return ImageTokens(tokens if patches < _PATCHES_AT_MOST else tokens * 9 // 10, tokens)
    if detail == "low":
        return ImageTokens(rule.base, rule.base)
    least = 1
    most = _TILES_AT_MOST
    if size is not None:
        least = most = _tiles(*size)
    high = rule.base + most * rule.tile
    return ImageTokens(rule.base + least * rule.tile if detail == "high" else rule.base, high)


def _tiles(width: int, height: int) -> int:
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    return math.ceil(round(width * scale) / 512) * math.ceil(round(height * scale) / 512)


def image_size(url: str) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, JPEG or WebP (lossy or extended) in a data URL; None for others."""
    found = _DATA_URL.match(url)
    if found is None:
        return None
    text = url[found.end() : found.end() + _HEADER_BASE64]
    try:
        head = base64.b64decode(text[: len(text) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    size = None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    elif head.startswith((b"GIF87a", b"GIF89a")) and len(head) >= 10:
        size = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    elif head.startswith(b"\xff\xd8"):
        size = _jpeg_size(head)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        size = _webp_size(head)
    return size if size and min(size) > 0 else None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        # Start of frame, of every coding; C4, C8 and CC are other segments.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None
