"""Waiting for jobs while telling how they come along."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import langbatch
from langbatch_cli import exits
from langbatch_cli.exits import Exit
from langbatch_cli.job_text import progress_text
from langbatch_cli.session import Detached, Session

if TYPE_CHECKING:
    from langbatch import JobManager, JobStatus, Progress

Seen = Callable[["JobStatus"], None]
#: Each answer of a service has an id of its own, also where it is the same trouble as before.
_REQUEST = re.compile(r" \(request [^)]*\)")


class Observer:
    """Tells of every change of a job: an event on standard output where asked for, else a line of text
    where nothing can be drawn."""

    def __init__(self, session: Session, *, events: bool) -> None:
        self._session = session
        self._events = events
        self._last: dict[str, JobStatus | str] = {}

    def __call__(self, status: JobStatus) -> None:
        text = progress_text(status)
        # Another look that found nothing new is no change.
        told: JobStatus | str = replace(status, next_look_at=None) if self._events else _REQUEST.sub("", text)
        if self._last.get(status.id) == told:
            return
        self._last[status.id] = told
        if self._events:
            self._session.put_document(status.to_dict(), one_line=True)
        elif not self._session.drawable:
            self._session.say(text)


@contextmanager
def _told(
    session: Session, manager: JobManager, job_ids: Sequence[str], *, events: bool = False
) -> Iterator[Seen]:
    """Who is to be told of the jobs: a live view on a terminal, events or lines anywhere else."""
    if events or not session.drawable:
        yield Observer(session, events=events)
        return
    from rich.console import Console

    from langbatch_cli.live import LiveView

    view = LiveView(Console(stderr=True, highlight=False))
    with session.showing(view):
        view.begin(manager.status(job_id, offline=True) for job_id in job_ids)
        yield view.seen


def wait_for_one(session: Session, manager: JobManager, job_id: str, seen: Seen) -> JobStatus:
    """Until the job is finished; raises what `JobManager.wait` raises."""

    def on_progress(progress: Progress) -> None:
        session.on_progress(progress)
        if progress.step == "wait":
            seen(manager.status(job_id, offline=True))

    status = manager.wait(job_id, progress=on_progress, outage_seconds=session.outage_seconds(manager))
    seen(status)
    return status


def wait_for_all(
    session: Session, manager: JobManager, job_ids: Sequence[str], *, events: bool = False
) -> dict[str, langbatch.LangBatchError]:
    """Until every job is finished or cannot go on without a person; the errors of those that cannot."""
    with _told(session, manager, job_ids, events=events) as seen:
        # Asked for again, because only a single job's status knows its quotas.
        return manager.wait_all(
            job_ids,
            on_status=lambda status: seen(manager.status(status.id, offline=True)),
            outage_seconds=session.outage_seconds(manager),
        )


def wait_and_come_back(
    session: Session, manager: JobManager, job_id: str, *, events: bool = False
) -> tuple[JobStatus, Exit]:
    """`wait_for_one` for a command; Ctrl-C leaves the job as it is and says how to see it again."""
    session.stored = manager.status(job_id, offline=True).to_dict()
    try:
        with _told(session, manager, [job_id], events=events) as seen:
            status = wait_for_one(session, manager, job_id, seen)
    except KeyboardInterrupt:
        session.stored = manager.status(job_id, offline=True).to_dict()
        raise Detached(session.command("watch", job_id)) from None
    except langbatch.LangBatchError:
        session.stored = manager.status(job_id, offline=True).to_dict()
        raise
    return status, exits.of_results(status)
