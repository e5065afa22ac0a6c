"""`langbatch validate`: everything about an input file, nothing sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import langbatch
from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.failures import error_document, problem_documents
from langbatch_cli.money_text import token_lines
from langbatch_cli.render import amount, hint_lines, intake_lines, plain, problem_lines, visible

if TYPE_CHECKING:
    from langbatch import Intake, Problem


def validate(
    ctx: typer.Context,
    file: options.InputFile,
    provider: options.Provider = "azure",
    deployment: options.Deployment = None,
    model: options.Model = None,
    auto_id: options.AutoId = False,
    split_by_model: options.SplitByModel = False,
    gzip: options.Gzip = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Count tokens, instead of telling them roughly from the bytes.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Tell every problem of FILE, line by line.

    Also how many requests, bytes and (roughly) tokens it holds. Sends and stores nothing.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager, session.input_file(manager, file) as source:
        reading: dict[str, Any] = {
            "model": options.one_model(model, deployment),
            "auto_id": auto_id,
            "split_by_model": split_by_model,
            "gzip": gzip,
        }
        try:
            intake = manager.validate(source, provider, **reading)
            counted = manager.preview(source, provider, **reading) if tokens and not intake.problems else None
        except langbatch.BatchValidationError as error:
            # Told as for submit, and as the document of a valid file is: with the problems at the top, too.
            session.stored = {"valid": False, "problems": problem_documents(error.problems)}
            raise
        # Here, while a spooled standard input is still there to be hashed.
        document = intake_document(intake) if session.json else None
        if document is not None and counted is not None:
            document["tokens"] = counted.to_dict()["tokens"]
    if document is not None:
        session.put_document(document)
    else:
        width, name = session.width, "standard input" if file == "-" else source.name
        session.say(problem_lines(intake.problems, width, session.limit, name))
        verdict = "valid" if not intake.problems else _refused(intake.problems)
        lines = [plain(f"{visible(name)}: {verdict}", "bold")]
        lines += intake_lines(intake, width, tokens=counted is None)
        if intake.advice is not None and not intake.total:
            lines += hint_lines(intake.advice, width)
        session.say(lines if counted is None else lines + token_lines(counted, width))
    return Exit.INPUT_INVALID if intake.problems else Exit.DONE


def intake_document(intake: Intake) -> dict[str, Any]:
    document: dict[str, Any] = {
        "valid": not intake.problems,
        "total": intake.total,
        "rejected": intake.rejected,
        "lines": intake.lines,
        "bytes": intake.bytes,
        "estimated_tokens": intake.estimated_tokens,
        "sha256": intake.sha256,
        "kind": intake.kind,
        "models": list(intake.models),
        "edited_lines": intake.edited_lines,
        "warnings": [
            {"code": w.code, "count": w.count, "first_line": w.first_line, "message": w.message}
            for w in intake.warnings
        ],
        "problems": problem_documents(intake.problems),
    }
    if intake.problems:
        document["error"] = error_document("input_invalid", _refused(intake.problems), None, intake.problems)
    return document


def _refused(problems: tuple[Problem, ...] | list[Problem]) -> str:
    return f"{amount(len(problems), 'problem')}; nothing would be sent"
