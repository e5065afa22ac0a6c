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
from langbatch_cli.render import number, outcome_text, visible
from langbatch_cli.session import UsageError

#: Endings of inputs that say nothing about the requests in them.
_INPUT_ENDINGS = (".gz", ".jsonl", ".ndjson", ".json", ".txt")


class Format(StrEnum):
    jsonl = "jsonl"
    csv = "csv"


def fetch(
    ctx: typer.Context,
    job: options.Job,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write; - is standard output.", show_default=False
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.jsonl,
    with_request: Annotated[bool, typer.Option("--with-request", help="Add each request's body.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Write what there is of an unfinished job.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Write one result per request, in input order. Prints where they are."""
    session = options.session_of(ctx, json, home)
    if output == "-" and session.json:
        raise UsageError("-o - and --json both want standard output", "leave out one of them")
    if with_request and form is Format.csv:
        raise UsageError(
            "a CSV file has no column for requests", "leave out --with-request, or use --format jsonl"
        )
    with session.manager() as manager:
        status = manager.status(job)
        path = Path(output or default_name(status.input, form.value))
        if output == "-":
            manager.export(
                status.id, sys.stdout.buffer, format=form.value, with_request=with_request, partial=partial
            )
            sys.stdout.buffer.flush()
        else:
            # Asked again, for good, when the file takes its name: another fetch may be faster.
            if not force and os.path.lexists(path):
                raise UsageError(
                    f"{visible(str(path))} exists", "add --force to overwrite it, or name another with -o"
                )
            manager.export(
                status.id,
                path,
                format=form.value,
                with_request=with_request,
                partial=partial,
                replace=force,
            )
            if session.json:
                written = status.total - status.counts.pending
                session.put_document(
                    {**status.to_dict(), "path": str(path), "format": form.value, "written": written}
                )
            else:
                session.put(str(path))
        if not session.json:
            session.say(f"{number(status.total - status.counts.pending)} results: {outcome_text(status)}")
    return exits.of_results(status)


def default_name(input_name: str, ending: str) -> str:
    """`requests.jsonl` gives `requests.results.jsonl`."""
    name = PurePath(input_name).name
    while PurePath(name).suffix.lower() in _INPUT_ENDINGS:
        name = PurePath(name).stem
    return f"{name or 'job'}.results.{ending}"
