"""`langbatch submit`: a file becomes a job, and what may be sent is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import langbatch
from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.explain import tell_failures
from langbatch_cli.job_text import job_lines
from langbatch_cli.money_text import preview_lines, reuse_text
from langbatch_cli.render import (
    amount,
    intake_lines,
    plain,
    visible,
    warning_lines,
)
from langbatch_cli.session import Detached, Session
from langbatch_cli.validate import intake_document
from langbatch_cli.waiting import wait_and_come_back

if TYPE_CHECKING:
    from langbatch import JobManager, Submission


def submit(
    ctx: typer.Context,
    file: options.InputFile,
    provider: options.Provider = "azure",
    deployment: Annotated[
        list[str] | None,
        typer.Option(
            "--deployment",
            help="The Azure deployment to write into every line. Repeated: shards go where there is room.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    api_version: options.ApiVersion = None,
    azure_endpoint: options.AzureEndpoint = None,
    base_url: options.BaseUrl = None,
    profile: options.Profile = None,
    name: Annotated[str | None, typer.Option("--name", help="A name for people.", show_default=False)] = None,
    new: Annotated[bool, typer.Option("--new", help="Send and pay again, even if this job exists.")] = False,
    skip_invalid: Annotated[
        bool,
        typer.Option("--skip-invalid", help="Set faulty lines aside in rejects.jsonl and send the rest."),
    ] = False,
    auto_id: options.AutoId = False,
    split_by_model: options.SplitByModel = False,
    gzip: options.Gzip = False,
    max_requests_per_shard: Annotated[
        int | None,
        typer.Option("--max-requests-per-shard", min=1, help="Cut into smaller batches.", show_default=False),
    ] = None,
    dedupe: Annotated[
        bool,
        typer.Option("--dedupe", help="Send requests that ask the same once; each gets the result."),
    ] = False,
    cache: Annotated[
        bool,
        typer.Option("--cache", help="Do not send what earlier jobs here have an answer to; it is copied."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be sent. No network; nothing is stored.")
    ] = False,
    max_cost: Annotated[
        str | None,
        typer.Option(
            "--max-cost",
            metavar="AMOUNT",
            help="Send nothing that could make the job cost more, by the list that `langbatch prices` shows.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="Send nothing that could make the job use more tokens, input and output together.",
            show_default=False,
        ),
    ] = None,
    wait: options.Wait = False,
    allow_http: options.AllowHttp = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Make FILE a job and start it. Prints the job's id as soon as it is stored, before anything is sent.

    The same file for the same target is the same job: submitting again changes nothing but its budget, and
    costs nothing.
    """
    session = options.session_of(ctx, json, home)
    several = deployment if deployment and len(deployment) > 1 else None
    reading: dict[str, Any] = {
        "model": options.one_model(model, deployment[0] if deployment and not several else None),
        "skip_invalid": skip_invalid,
        "auto_id": auto_id,
        "split_by_model": split_by_model,
        "gzip": gzip,
        "max_requests_per_shard": max_requests_per_shard,
        "dedupe": dedupe,
        "cache": cache,
        "max_cost": options.amount_of_money(max_cost, "--max-cost"),
        "max_tokens": max_tokens,
        "api_version": api_version,
        "azure_endpoint": azure_endpoint,
        "base_url": base_url,
        "allow_http": allow_http or None,
        "deployment": several,
    }
    with session.manager(profile) as manager, session.input_file(manager, file) as source:
        if dry_run:
            return _dry_run(session, manager, source, provider, reading)
        wishes = {**reading, "name": name, "new": new}
        return _submit(session, manager, source, provider, wishes, wait=wait)


def _submit(
    session: Session, manager: JobManager, source: Path, provider: str, wishes: dict[str, Any], *, wait: bool
) -> Exit:
    job_id = ""

    def on_stored(submission: Submission) -> None:
        nonlocal job_id
        job_id = submission.id
        session.stored = manager.status(job_id, offline=True).to_dict()
        if not session.json:
            session.put(job_id)
        if not submission.created:
            session.say(
                f"This file was submitted to this target before: it is job {job_id}. Nothing is sent twice "
                "(--new sends and pays again)."
            )
        for warning in submission.warnings:
            session.say(f"warning: {warning}")
        session.say(warning_lines(submission.intake, session.width))
        reuse = session.stored["reuse"]
        if submission.created and reuse is not None:
            session.say(f"Of its requests {reuse_text(**reuse)}.")
        rejects = manager.rejects_file(job_id) if submission.intake.rejected else None
        if rejects is not None:
            refused = amount(submission.intake.rejected, "line")
            session.say(f"{refused} refused, with the reasons in {visible(str(rejects))}")

    try:
        manager.submit(source, provider, on_stored=on_stored, **wishes)
    except KeyboardInterrupt:
        if not job_id:
            raise
        raise Detached(session.command("watch", job_id)) from None
    except langbatch.LangBatchError:
        if job_id:
            session.stored = manager.status(job_id, offline=True).to_dict()
        raise
    code = Exit.DONE
    if wait:
        _, code = wait_and_come_back(session, manager, job_id)
    status = manager.status(job_id, offline=True)
    if session.json:
        session.put_document(status.to_dict())
    else:
        session.say(job_lines(status, session.width, session.limit))
        tell_failures(session, manager, status)
        if status.state == "failed":
            session.say("Nothing could be run. Once the cause is mended:")
            session.say(f"Next: {session.command('retry', job_id)}")
        else:
            next_command = "fetch" if status.finished else "watch"
            session.say(f"Next: {session.command(next_command, job_id)}")
    return code


def _dry_run(
    session: Session, manager: JobManager, source: Path, provider: str, reading: dict[str, Any]
) -> Exit:
    preview = manager.preview(source, provider, **reading)
    if session.json:
        document = intake_document(preview.intake)
        session.put_document({**document, "dry_run": True, "provider": provider, **preview.to_dict()})
        return Exit.DONE
    width = session.width
    lines = [plain("Nothing was sent or stored. A submit would send:", "bold")]
    lines += intake_lines(preview.intake, width, tokens=False)
    session.say(lines + preview_lines(preview, width, session.limit))
    return Exit.DONE
