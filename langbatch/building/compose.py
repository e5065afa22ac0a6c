"""Rows become requests: as dicts to iterate over, or as the lines of a file. One row is held at a time."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from langbatch.building.images import ImageFile
from langbatch.building.naming import Names
from langbatch.building.sources import FileFormat, Rows, open_rows
from langbatch.building.template import RowFault
from langbatch.building.wishes import Wishes
from langbatch.errors import BatchResultsError, BatchValidationError
from langbatch.publish import publishing
from langbatch.records import Problem


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a file's rows."""

    requests: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request; where its image is a file, `mark` stands in the body in place of the image's bytes."""

    line: int
    custom_id: str
    url: str
    body: Mapping[str, Any]
    image: ImageFile | None
    mark: str

    def request(self, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {
            "custom_id": self.custom_id,
            "method": "POST",
            "url": self.url,
            "body": self.body if body is None else body,
        }

    def pieces(self) -> Iterator[bytes]:
        """The request's line, an image's bytes streamed."""
        line = json.dumps(self.request(), ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        if self.image is None:
            yield line
            return
        before, after = line.split(self.mark.encode())
        yield before
        yield from self.image.data_url()
        yield after


class _Building:
    """One pass over the rows. `problems` holds what was wrong with the rows left out."""

    def __init__(self, source: Any, wishes: Wishes, form: FileFormat | None) -> None:
        self.problems: list[Problem] = []
        self._wishes = wishes
        # Drawn anew each time, so that no row can hold it.
        self._mark = f"image-{secrets.token_hex(16)}"
        self.rows: Rows = open_rows(source, self._fault, form)
        if self.rows.columns is not None:
            wishes.check_columns(self.rows.columns)

    def drafts(self) -> Iterator[_Draft]:
        with closing(Names(self._wishes.id_column)) as names:
            for line, row in self.rows.rows:
                try:
                    draft = self._draft(line, row, names)
                except RowFault as fault:
                    self._fault(line, fault.code, fault.message)
                    continue
                yield draft

    def refuse(self) -> None:
        """Raise `BatchValidationError` if any row was left out."""
        if self.problems:
            count = len(self.problems)
            first = self.problems[0]
            more = f"; {count - 1} more" if count > 1 else ""
            raise BatchValidationError(
                f"{count} {'row' if count == 1 else 'rows'} cannot become requests: "
                f"line {first.line}: {first.message}{more}",
                self.problems,
                hint="mend the rows, or leave them out with --skip-invalid",
            )

    def _fault(self, line: int, code: str, message: str) -> None:
        self.problems.append(Problem(line, 0, None, code, message))

    def _draft(self, line: int, row: Mapping[str, Any], names: Names) -> _Draft:
        wishes = self._wishes
        prompt = wishes.prompt.fill(row)
        system = None if wishes.system is None else wishes.system.fill(row)
        if not prompt.strip():
            raise RowFault("empty_prompt", "there is nothing to send: the prompt is empty")
        image = wishes.image(row, self.rows.folder)
        file = image if isinstance(image, ImageFile) else None
        body = wishes.body(prompt, system, None if file else image)  # type: ignore[arg-type]
        if file is not None:
            # Hashed without the mark, which is another one in each run.
            named = wishes.body(prompt, system, "")
            body = wishes.body(prompt, system, self._mark)
        else:
            named = body
        digests = [file.sha256] if file else []
        custom_id = names.name(row, line, wishes.url, named, digests)
        return _Draft(line, custom_id, wishes.url, body, file, self._mark)


def build_requests(
    rows: Any,
    *,
    prompt: str | None = None,
    system: str | None = None,
    model: str | None = None,
    url: str | None = None,
    id_column: str | None = None,
    response_format: Any = None,
    max_tokens: int | None = None,
    image_column: str | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    embed_column: str | None = None,
    input_format: FileFormat | None = None,
    **body: Any,
) -> Iterator[dict[str, Any]]:
    """One request per row, as `create_from_requests` takes them; rows are read as they are asked for.

    `rows`: a CSV, JSONL or Parquet file's path, a pandas or polars frame, an Arrow table, or an iterable of
    dicts. `prompt` and `system` are templates: `{column}` is a row's value. `embed_column` instead makes
    embedding requests. `id_column` names the requests; without it an id is a hash of what is sent.
    `response_format`: a pydantic model, or a JSON schema. `image_column`: addresses or files, the latter
    relative to `image_folder`, else to the rows' file. `body`: what goes into every body besides.

    Wishes that cannot be met raise `BatchInitializationError` at once. Faulty rows are passed over, and at
    the end `BatchValidationError` tells all of them: nothing is ever left out in silence.
    """
    wishes = Wishes.of(
        prompt=prompt,
        system=system,
        model=model,
        url=url,
        id_column=id_column,
        response_format=response_format,
        max_tokens=max_tokens,
        image_column=image_column,
        image_folder=image_folder,
        embed_column=embed_column,
        **body,
    )
    return _requests(_Building(rows, wishes, input_format))


def _requests(building: _Building) -> Iterator[dict[str, Any]]:
    for draft in building.drafts():
        if draft.image is None:
            yield draft.request()
            continue
        yield json.loads(b"".join(draft.pieces()))
    building.refuse()


def write_requests(
    rows: Any,
    out: Path | BinaryIO,
    *,
    input_format: FileFormat | None = None,
    skip_invalid: bool = False,
    replace: bool = True,
    **wishes: Any,
) -> Built:
    """As `build_requests`, with its keywords, into a file (0600, whole or not at all) or an open stream.

    Images are streamed. Raises `BatchValidationError` for faulty rows, and writes nothing; `skip_invalid`
    leaves them out, and the answer's `problems` tells them. Without `replace`, an existing file stays:
    `BatchResultsError`.
    """
    building = _Building(rows, Wishes.of(**wishes), input_format)
    if not isinstance(out, Path):
        # A stream cannot be taken back when a late row turns out to be faulty.
        with TemporaryFile() as spool:
            count = _write(building, spool, skip_invalid)
            spool.seek(0)
            shutil.copyfileobj(spool, out)
        return Built(count, tuple(building.problems))
    if not out.parent.is_dir():
        raise BatchResultsError(
            f"there is no folder {out.parent}", hint="make it first", code="output_no_folder"
        )
    with publishing(out, replace=replace) as sink:
        count = _write(building, sink, skip_invalid)
    return Built(count, tuple(building.problems))


def _write(building: _Building, sink: BinaryIO, skip_invalid: bool) -> int:
    count = 0
    for draft in building.drafts():
        for piece in draft.pieces():
            sink.write(piece)
        count += 1
    if not skip_invalid:
        building.refuse()
    return count
