"""`langbatch fetch`: the joined results, to a file or to standard output."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated

import typer

from langbatch_cli import exits, options
from langbatch_cli.exits import Exit
from langbatch_cli.explain import tell_failures
from langbatch_cli.job_text import outcome_text
from langbatch_cli.render import number, visible
from langbatch_cli.session import UsageError

#: Endings of inputs that say nothing about the requests in them.
_INPUT_ENDINGS = (".gz", ".jsonl", ".ndjson", ".json", ".txt")


class Format(StrEnum):
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


#: Endings that say what a file shall hold.
_ENDINGS = {".csv": Format.csv, ".parquet": Format.parquet, ".pq": Format.parquet}


def fetch(
    ctx: typer.Context,
    job: options.Job,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write; - is standard output.", show_default=False
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="What to write. Default: as FILE ends, else jsonl.", show_default=False
        ),
    ] = None,
    flatten: Annotated[
        bool, typer.Option("--flatten", help="A column for each part of the answers that are JSON.")
    ] = False,
    with_request: Annotated[bool, typer.Option("--with-request", help="Add each request's body.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Write what there is of an unfinished job.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Write one result per request, in input order. Prints where they are.

    CSV has the text of each answer; Parquet (an extra: pip install "langbatch-manager[parquet]") the whole
    response as well. With --flatten answers that are JSON objects become columns, in any format.
    """
    session = options.session_of(ctx, json, home)
    ending = PurePath(output or "").suffix.lower()
    if form is None and ending in (".xlsx", ".xls", ".ods"):
        raise UsageError(f"results are not written as {ending}", "-o FILE.csv, which spreadsheets open")
    form = form or _ENDINGS.get(ending, Format.jsonl)
    if output == "-" and session.json:
        raise UsageError("-o - and --json both want standard output", "leave out one of them")
    if with_request and form is Format.csv:
        raise UsageError(
            "a CSV file has no column for requests", "leave out --with-request, or use --format jsonl"
        )
    if output == "-" and form is Format.parquet and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", "name a file with -o, or send it into a pipe")
    with session.manager() as manager:
        status = manager.status(job)
        path = Path(output or default_name(status.input, form.value))
        if output == "-":
            manager.export(
                status.id,
                sys.stdout.buffer,
                format=form.value,
                flatten=flatten,
                with_request=with_request,
                partial=partial,
            )
            sys.stdout.buffer.flush()
        else:
            # Asked again, for good, when the file takes its name: another fetch may be faster.
            if path.is_dir():
                named = default_name(status.input, form.value)
                raise UsageError(f"{visible(str(path))} is a folder", f"name a file in it: -o {path / named}")
            if not force and os.path.lexists(path):
                raise UsageError(
                    f"{visible(str(path))} exists", "add --force to overwrite it, or name another with -o"
                )
            manager.export(
                status.id,
                path,
                format=form.value,
                flatten=flatten,
                with_request=with_request,
                partial=partial,
                replace=force,
            )
            if session.json:
                written = status.total - status.counts.pending
                session.put_document(
                    {
                        **status.to_dict(),
                        "path": str(path),
                        "format": form.value,
                        "written": written,
                        "failures": [failure.to_dict() for failure in manager.failures(status.id)],
                    }
                )
            else:
                session.put(str(path))
        if not session.json:
            session.say(f"{number(status.total - status.counts.pending)} results: {outcome_text(status)}")
            tell_failures(session, manager, status)
    return exits.of_results(status)


def default_name(input_name: str, ending: str) -> str:
    """`requests.jsonl` gives `requests.results.jsonl`."""
    name = PurePath(input_name).name
    while PurePath(name).suffix.lower() in _INPUT_ENDINGS:
        name = PurePath(name).stem
    return f"{name or 'job'}.results.{ending}"
