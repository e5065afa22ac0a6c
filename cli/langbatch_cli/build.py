"""`langbatch build`: rows of a table become a file of requests."""

from __future__ import annotations

import json as json_text
import os
import sys
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated, Any

import typer

import langbatch
from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.failures import problem_documents
from langbatch_cli.render import amount, problem_lines, visible
from langbatch_cli.session import UsageError


class InputFormat(StrEnum):
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def build(
    ctx: typer.Context,
    rows: Annotated[
        str, typer.Argument(metavar="ROWS", help="A CSV, JSONL or Parquet file; - is standard input.")
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help='Text for each row: "Classify: {text}". {{ is a brace.', show_default=False
        ),
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", help="The same, from a file.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="A system text, with {columns} too.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model, or the Azure deployment.", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            help="/chat/completions (default), /responses, /embeddings or /completions.",
            show_default=False,
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id-column", help="Names the requests. Default: a hash of each.", show_default=False),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", help="A JSON schema that answers shall fit.", show_default=False),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, help="The longest answer, in tokens.", show_default=False),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option("--image-column", help="Images: addresses, or files beside ROWS.", show_default=False),
    ] = None,
    embed_column: Annotated[
        str | None,
        typer.Option("--embed-column", help="Make embedding requests of this column.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Into every body: temperature=0.", show_default=False
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write; - is standard output.", show_default=False
        ),
    ] = None,
    form: Annotated[
        InputFormat | None,
        typer.Option("--format", help="What ROWS is. Default: as its name ends.", show_default=False),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out faulty rows instead of refusing the file.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Make a file of requests from the rows of a table. Prints where it is; sends nothing.

    Every faulty row is told with its line, and then nothing is written.
    """
    session = options.session_of(ctx, json, home)
    if output == "-" and session.json:
        raise UsageError("-o - and --json both want standard output", "leave out one of them")
    if prompt is not None and prompt_file is not None:
        raise UsageError("--prompt and --prompt-file are both given", "leave out one of them")
    if prompt is None and prompt_file is None and embed_column is None:
        raise UsageError(
            "nothing says what to send of each row",
            "--prompt TEXT, --prompt-file FILE or --embed-column NAME",
        )
    wishes: dict[str, Any] = {
        "prompt": prompt if prompt_file is None else _text_of(prompt_file),
        "system": system,
        "model": model,
        "url": url,
        "id_column": id_column,
        "response_format": None if schema is None else _schema(schema),
        "max_tokens": max_tokens,
        "image_column": image_column,
        "embed_column": embed_column,
        "settings": _settings(settings or []),
        "skip_invalid": skip_invalid,
        "input_format": form.value if form else None,
    }
    path = Path(output or _default_name(rows))
    if output != "-" and not force and os.path.lexists(path):
        raise UsageError(
            f"{visible(str(path))} exists", "add --force to overwrite it, or name another with -o"
        )
    with session.manager() as manager, session.input_file(manager, rows) as source:
        session.table = None  # whatever is wrong with it, this is the command for it
        if rows == "-":
            # Images named in standard input lie where the caller stands, not beside the spool.
            wishes |= {"input_format": wishes["input_format"] or "csv", "image_folder": Path()}
        if output == "-":
            built = langbatch.write_requests(source, sys.stdout.buffer, **wishes)
            sys.stdout.buffer.flush()
        else:
            built = langbatch.write_requests(source, path, replace=force, **wishes)
    if session.json:
        session.put_document(
            {
                "path": str(path),
                "requests": built.requests,
                "rejected": len(built.problems),
                "problems": problem_documents(built.problems),
            }
        )
        return Exit.DONE
    if output != "-":
        session.put(str(path))
    session.say(problem_lines(built.problems, session.width, session.limit))
    left_out = f", {amount(len(built.problems), 'row')} left out" if built.problems else ""
    session.say(f"{amount(built.requests, 'request')}{left_out}")
    if output != "-" and built.requests:
        missing = () if model is not None else ("--deployment", "NAME")
        session.say(f"Next: {session.command('submit', str(path), *missing)}")
    return Exit.DONE


#: Options of this command that name no setting of a body.
_OPTIONS = frozenset({"prompt", "system", "url", "id_column", "image_column", "embed_column", "schema"})


def _settings(given: list[str]) -> dict[str, Any]:
    """`temperature=0` and the like; a value that is no JSON is text."""
    found: dict[str, Any] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {visible(setting, 60)} has no value", "--set temperature=0")
        if name in _OPTIONS:
            raise UsageError(f"--set {name} would put it into the bodies", f"use --{name.replace('_', '-')}")
        try:
            found[name] = json_text.loads(value, parse_constant=_no_constant)
        except ValueError:
            found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _schema(path: Path) -> dict[str, Any]:
    try:
        schema = json_text.loads(_text_of(path))
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise UsageError(f"{visible(str(path))} is not a JSON schema", "it must hold one JSON object")
    if "title" not in schema and "properties" in schema:
        # The answers' form needs a name.
        schema["title"] = path.name.partition(".")[0]
    return schema


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no file {visible(str(path))}", "check its name") from None
    except IsADirectoryError:
        raise UsageError(f"{visible(str(path))} is a folder", "name a file in it") from None
    except UnicodeDecodeError:
        raise UsageError(f"{visible(str(path))} is not UTF-8 text", "save it as UTF-8") from None


def _default_name(rows: str) -> str:
    """`rows.csv` gives `rows.requests.jsonl`."""
    return f"{'rows' if rows == '-' else PurePath(rows).stem}.requests.jsonl"
