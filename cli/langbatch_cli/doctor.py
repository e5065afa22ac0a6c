"""`langbatch doctor`: what is wrong with this machine, this setup or this endpoint, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.render import Line, plain, visible, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langbatch import Diagnosis

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("problem", "bold red")}
#: Columns of a finding's level, before its text.
_LEVEL_COLUMNS = 9


def doctor(
    ctx: typer.Context,
    provider: options.Provider = "azure",
    deployment: options.Deployment = None,
    model: options.Model = None,
    api_version: options.ApiVersion = None,
    azure_endpoint: options.AzureEndpoint = None,
    base_url: options.BaseUrl = None,
    profile: options.Profile = None,
    canary: Annotated[
        bool,
        typer.Option(
            "--canary",
            help="Also measure the endpoint with a batch of one request, cancelled at once (under a cent).",
        ),
    ] = False,
    allow_http: options.AllowHttp = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Check setup, sign-in, clock, disk and database.

    Tells what is wrong and how to mend it, with a profile at each of its targets. Exit code 5 if anything
    stands in the way of a job.

    With --canary, and a --deployment on Azure, it is also measured how late batches are listed and whether
    a batch can be made from a deleted file: where it cannot, waits after a lost reply become shorter.
    """
    session = options.session_of(ctx, json, home)
    with session.manager(profile) as manager:
        diagnosis = manager.doctor(
            provider,
            model=options.one_model(model, deployment),
            canary=canary,
            api_version=api_version,
            azure_endpoint=azure_endpoint,
            base_url=base_url,
            allow_http=allow_http or None,
        )
    if session.json:
        session.put_document(diagnosis.to_dict())
    else:
        session.say(_lines(diagnosis, session.width))
    return Exit.DONE if diagnosis.healthy else Exit.SETUP


def _lines(diagnosis: Diagnosis, width: int | None) -> Iterator[Line]:
    """Each finding, and below it how to mend it."""
    indent = _LEVEL_COLUMNS + 2
    for finding in diagnosis:
        mark, style = _MARKS[finding.level]
        first, *rest = wrapped(visible(f"{finding.check}: {finding.what}", 2000), width, indent)
        yield ((f"  {mark:<{_LEVEL_COLUMNS}}", style), (first[indent:], ""))
        for text in rest:
            yield plain(text)
        if finding.mend is not None:
            for text in wrapped(visible(f"→ {finding.mend}", 2000), width, indent + 2, indent):
                yield plain(text, "bold")
    problems = sum(finding.level == "problem" for finding in diagnosis)
    warnings = sum(finding.level == "warning" for finding in diagnosis)
    if problems or warnings:
        yield plain(f"{problems} to mend, {warnings} to think about.")
    else:
        yield plain("All is well.", "green")
