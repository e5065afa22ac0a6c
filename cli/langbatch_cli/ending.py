"""`langbatch cancel`, `retry`, `reconcile`, `purge`: a job is stopped, sent again, settled, forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import langbatch
from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.job_text import job_lines
from langbatch_cli.render import amount
from langbatch_cli.session import Session, UsageError

if TYPE_CHECKING:
    from langbatch import JobStatus


def cancel(
    ctx: typer.Context, job: options.Job, json: options.Json = False, home: options.Home = None
) -> Exit:
    """Cancel a job; what has finished is kept."""
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        stopped = manager.cancel(job)
        status = manager.status(job, offline=True)
        if not stopped:
            session.say(f"{status.id} had ended before: {status.state}.")
        _show(session, status)
    return Exit.DONE


def retry(
    ctx: typer.Context,
    job: options.Job,
    force: Annotated[
        bool, typer.Option("--force", help="Pay again, even if the last three attempts brought nothing.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Send the requests without success again.

    Successes are kept and not paid again. After three paid attempts without a further success it asks for
    --force.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        try:
            status = manager.retry(job, force=force)
        except langbatch.LangBatchError as error:
            if not isinstance(error, langbatch.JobNotFound):
                session.stored = manager.status(job, offline=True).to_dict()
            raise
        _show(session, status)
        if status.all_succeeded and not session.json:
            session.say("Every request has succeeded: there is nothing to send again.")
        if not status.finished and not session.json:
            session.say(f"Next: {session.command('watch', status.id)}")
    return Exit.DONE


def reconcile(
    ctx: typer.Context,
    job: options.Job,
    adopt: Annotated[
        str | None,
        typer.Option("--adopt", metavar="BATCH_ID", help="This batch is the shard's.", show_default=False),
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="There is no batch: send the shard again, and pay for it.")
    ] = False,
    shard: Annotated[
        int | None, typer.Option("--shard", min=0, help="Which, if several need it.", show_default=False)
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Settle a shard that needs you.

    `langbatch status JOB` tells why it does. Look at the provider for its batch first: --resubmit pays again.
    """
    session = options.session_of(ctx, json, home)
    if (adopt is None) is not resubmit:
        raise UsageError("one of --adopt BATCH_ID and --resubmit is needed", "langbatch reconcile --help")
    with session.manager() as manager:
        if adopt is not None:
            status = manager.adopt(job, adopt, shard=shard)
        else:
            status = manager.resubmit(job, shard=shard)
        _show(session, status)
    return Exit.DONE


def purge(
    ctx: typer.Context,
    job: options.Job,
    force: Annotated[
        bool, typer.Option("--force", help="Also while it is running: cancel it first.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Delete a job with its prompts and results.

    Its files at the service are deleted, too.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        try:
            job_id = manager.status(job, offline=True).id
        except langbatch.JobNotFound:
            job_id = job  # a purge that was cut short has left its folder
        left = manager.purge(job_id, force=force)
    if session.json:
        session.put_document({"id": job_id, "purged": True, **({"remaining": list(left)} if left else {})})
        return Exit.DONE
    session.say(f"{job_id} is deleted, its prompts and results with it.")
    if left:
        session.say(
            f"{amount(len(left), 'file')} could not be deleted at the service. "
            f"Once it can be reached: {session.command('gc')}"
        )
    return Exit.DONE


def _show(session: Session, status: JobStatus) -> None:
    if session.json:
        session.put_document(status.to_dict())
    else:
        session.say(job_lines(status, session.width, session.limit))
