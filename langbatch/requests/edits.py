"""Changing one value of a line while every other byte stays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langbatch.requests.frames import FrameShelf, body_place, frame_of
from langbatch.requests.jsonscan import find, scan_line

_MODEL = body_place("model")


@dataclass(frozen=True, slots=True)
class _Places:
    url: int
    model: int


class Editor:
    """Writes one model and one url into lines; None leaves that part as it is.

    For sound lines, as `read_requests` accepts them. Lines like the one before cost a few microseconds:
    their frame is compared, not scanned (see `frames`).
    """

    def __init__(self, model: str | None, url: str | None) -> None:
        self._model = None if model is None else json.dumps(model, ensure_ascii=False).encode()
        self._url = None if url is None else json.dumps(url).encode()
        self._shelf: FrameShelf[_Places] = FrameShelf()

    def edit(self, line: bytes) -> bytes:
        taken = self._shelf.take(line)
        if taken is None:
            return self._edit_scanned(line)
        places, pieces = taken
        self._put(pieces, places.url, self._url)
        self._put(pieces, places.model, self._model)
        return b"".join(pieces)

    @staticmethod
    def _put(pieces: list[Any], place: int, value: bytes | None) -> None:
        if value is not None and not _same(bytes(pieces[place]), value):
            pieces[place] = value

    def _edit_scanned(self, line: bytes) -> bytes:
        scanned = scan_line(line)
        frame = frame_of(line, scanned)
        if frame is not None and _MODEL in frame.places:
            self._shelf.add(frame, _Places(frame.places["url"], frame.places[_MODEL]))
        changes: list[tuple[int, int, bytes]] = []
        url = scanned.member("url")
        if url is not None:
            self._change(changes, line, url.value_start, url.value_end, self._url)
        body = scanned.member("body")
        if scanned.body is not None and body is not None:
            model = find(scanned.body, "model")
            if model is not None:
                self._change(changes, line, model.value_start, model.value_end, self._model)
            elif self._model is not None:
                between = b"" if not scanned.body else b", "
                changes.append(
                    (body.value_start + 1, body.value_start + 1, b'"model": ' + self._model + between)
                )
        for start, end, value in sorted(changes, reverse=True):
            line = line[:start] + value + line[end:]
        return line

    @staticmethod
    def _change(
        changes: list[tuple[int, int, bytes]], line: bytes, start: int, end: int, value: bytes | None
    ) -> None:
        if value is not None and not _same(line[start:end], value):
            changes.append((start, end, value))


@lru_cache(maxsize=256)
def _same(written: bytes, wanted: bytes) -> bool:
    """Whether two JSON strings say the same. One written with other escapes stays as the user wrote it."""
    return bool(json.loads(written) == json.loads(wanted))


@lru_cache(maxsize=8)
def _editor(model: str | None, url: str | None) -> Editor:
    return Editor(model, url)


def edit_line(line: bytes, model: str | None, url: str | None) -> bytes:
    """The line with `body.model` and `url` set, byte for byte the same otherwise; None leaves a part alone.

    A body without a model gets one, in front. A newline at the end stays.
    """
    if model is None and url is None:
        return line
    return _editor(model, url).edit(line)


def with_custom_id(line: bytes, token: bytes) -> bytes:
    """The trimmed line with this custom_id (a JSON token): in place of what it has, or else in front."""
    scanned = scan_line(line)
    member = scanned.member("custom_id")
    if member is not None:
        return line[: member.value_start] + token + line[member.value_end :]
    return with_id_in_front(line, token, empty=not scanned.members)


def with_id_in_front(line: bytes, token: bytes, *, empty: bool = False) -> bytes:
    """The line, which starts with `{` and has no custom_id, with one put first."""
    return b'{"custom_id": ' + token + (b"" if empty else b", ") + line[1:]
