"""`langbatch recover`: jobs whose database is lost come back from the service."""

from __future__ import annotations

from typing import Annotated

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.job_text import job_table
from langbatch_cli.render import amount, visible
from langbatch_cli.session import UsageError


def recover(
    ctx: typer.Context,
    from_remote: Annotated[
        bool, typer.Option("--from-remote", help="Look at the service; there is no other way yet.")
    ] = False,
    store_id: Annotated[
        str | None,
        typer.Option(
            "--store-id",
            metavar="ID",
            help="Whose jobs, if several stores use the resource.",
            show_default=False,
        ),
    ] = None,
    provider: options.Provider = "azure",
    deployment: Annotated[
        list[str] | None,
        typer.Option(
            "--deployment",
            help="The Azure deployment given at submit. Repeated: all that were.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    api_version: options.ApiVersion = None,
    azure_endpoint: options.AzureEndpoint = None,
    base_url: options.BaseUrl = None,
    profile: options.Profile = None,
    allow_http: options.AllowHttp = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Bring jobs back after the database was lost.

    Files and batches of langbatch are recognised by their names and tags. Job folders that are left are
    used; without them the requests are those that had been uploaded. Nothing is paid twice, and it may be
    repeated. Give --profile, --deployment or --model as at submit: a job with several targets comes back only
    when all of them are named at once.
    """
    session = options.session_of(ctx, json, home)
    if not from_remote:
        raise UsageError("say where from: --from-remote", "langbatch recover --from-remote")
    several = deployment if deployment and len(deployment) > 1 else None
    with session.manager(profile) as manager:
        done = manager.recover(
            provider,
            store_id=store_id,
            model=options.one_model(model, deployment[0] if deployment and not several else None),
            deployment=several,
            api_version=api_version,
            azure_endpoint=azure_endpoint,
            base_url=base_url,
            allow_http=allow_http or None,
        )
        found = [manager.status(job_id, offline=True) for job_id in done.jobs]
    if session.json:
        session.put_document(
            {
                "jobs": [status.to_dict() for status in found],
                "known": list(done.known),
                "skipped": [{"id": job_id, "reason": reason} for job_id, reason in done.skipped],
                "other_stores": dict(done.other_stores),
            }
        )
    else:
        session.say(f"{amount(len(found), 'job')} brought back, {len(done.known)} were here already.")
        if found:
            session.say(job_table(found, session.width, session.limit))
        for job_id, reason in done.skipped:
            session.say(f"{job_id} could not be brought back: {visible(reason)}.")
        for other, count in done.other_stores.items():
            session.say(
                f"{amount(count, 'job')} of another store, {other}, left alone (--store-id {other} brings "
                "them back; only if that store is lost)."
            )
        if any(not status.finished for status in found):
            session.say(f"Next: {session.command('resume', '--wait')}")
    return Exit.OPERATOR if done.skipped else Exit.DONE
