"""`langbatch events`: what has happened, from the store's log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.render import Line, visible
from langbatch_cli.session import Detached, Session

if TYPE_CHECKING:
    from langbatch import JobManager
    from langbatch.events import Event

#: Between two looks at the database.
_LOOK_SECONDS = 1.0


def events(
    ctx: typer.Context,
    job: options.SomeJob = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until JOB is finished.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Tell what has happened to a job, or to all. Asks only the database.

    With --follow and --json: one event per line.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        job_id = None if job is None else manager.status(job, offline=True).id
        if session.json and not follow:
            session.put_document({"events": [event.to_dict() for event in manager.events(job_id)]})
            return Exit.DONE
        if follow:
            _follow(session, manager, job_id)
        else:
            _tell(session, manager, job_id, 0)
    return Exit.DONE


def _follow(session: Session, manager: JobManager, job_id: str | None) -> None:
    words = ("events", *([] if job_id is None else [job_id]), "--follow")
    try:
        last = 0
        while True:
            finished = job_id is not None and manager.status(job_id, offline=True).finished
            last = _tell(session, manager, job_id, last)
            if finished:
                return
            time.sleep(min(_LOOK_SECONDS, manager.settings.poll_seconds))
    except KeyboardInterrupt:
        raise Detached(session.command(*words)) from None


def _tell(session: Session, manager: JobManager, job_id: str | None, after: int) -> int:
    """The events after number `after`; the number of the last."""
    for event in manager.events(job_id, after=after):
        after = event.n
        if session.json:
            session.put_document(event.to_dict(), one_line=True)
        else:
            session.say([event_line(event, of_one_job=job_id is not None)])
    return after


def event_line(event: Event, *, of_one_job: bool) -> Line:
    """One event for people."""
    at = str(event.to_dict()["at"]).replace("T", " ")[:19]
    where = [] if of_one_job else [event.job]
    if event.shard is not None:
        where.append(f"shard {event.shard}" + (f" attempt {event.attempt}" if event.attempt else ""))
    moved = event.to is not None and event.to != event.origin
    what = event.move.replace("_", " ")
    if moved:
        what += f": {event.origin or 'new'} → {event.to}"
    note = visible(event.note or "")
    return ((f"{at} ", "dim"), *((f"{word} ", "") for word in where), (what, "bold"), (f"  {note}", "dim"))
