"""`langbatch status`: one job, or the list."""

from __future__ import annotations

from typing import Annotated

import typer

from langbatch_cli import exits, options
from langbatch_cli.exits import Exit
from langbatch_cli.explain import tell_failures
from langbatch_cli.job_text import job_lines, job_table
from langbatch_cli.render import amount


def status(
    ctx: typer.Context,
    job: options.SomeJob = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask only the database, not the service.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Tell where a job is, or list all jobs.

    The service is asked first, unless --offline.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        if job is None:
            found = manager.jobs(offline=offline)
            if session.json:
                session.put_document({"jobs": [one.to_dict() for one in found]})
            else:
                session.say(job_table(found, session.width, session.limit))
                lost = 0 if found else sum(1 for _ in (manager.home / "jobs").glob("job_*/sent"))
                if lost:
                    session.say(
                        f"But {amount(lost, 'job')} of another database left folders here: if it was lost, "
                        "`langbatch recover --from-remote` brings them back."
                    )
            return Exit.DONE
        one = manager.status(job, offline=offline)
        if session.json:
            session.put_document(one.to_dict())
        else:
            session.say(job_lines(one, session.width, session.limit))
            tell_failures(session, manager, one)
    return exits.of_status(one)
