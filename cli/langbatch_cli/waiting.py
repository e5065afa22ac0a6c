"""Waiting for jobs while telling how they come along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import langbatch
from langbatch_cli import exits
from langbatch_cli.exits import Exit
from langbatch_cli.render import progress_text
from langbatch_cli.session import Detached, Session

if TYPE_CHECKING:
    from langbatch import JobManager, JobStatus, Progress

Seen = Callable[["JobStatus"], None]


class Observer:
    """Tells of every change of a job: an event on standard output where asked for, else a line of text
    where there is no bar."""

    def __init__(self, session: Session, *, events: bool) -> None:
        self._session = session
        self._events = events
        self._last: dict[str, JobStatus | str] = {}

    def __call__(self, status: JobStatus) -> None:
        text = progress_text(status)
        told: JobStatus | str = status if self._events else text
        if self._last.get(status.id) == told:
            return
        self._last[status.id] = told
        if self._events:
            self._session.put_document(status.to_dict(), one_line=True)
        elif not self._session.watched:
            self._session.say(text)


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
    session: Session, manager: JobManager, job_ids: Sequence[str], seen: Seen
) -> dict[str, langbatch.LangBatchError]:
    """Until every job is finished or cannot go on without a person; the errors of those that cannot."""
    latest = {job_id: manager.status(job_id, offline=True) for job_id in job_ids}

    def on_status(status: JobStatus) -> None:
        latest[status.id] = status
        seen(status)
        session.on_progress(_together(list(latest.values())))

    return manager.wait_all(list(latest), on_status=on_status, outage_seconds=session.outage_seconds(manager))


def _together(statuses: Sequence[JobStatus]) -> Progress:
    ended = sum(status.finished for status in statuses)
    return langbatch.Progress(
        "wait",
        sum(status.total - status.counts.pending for status in statuses),
        sum(status.total for status in statuses),
        "requests",
        f"{ended} of {len(statuses)} jobs finished",
    )


def wait_and_come_back(
    session: Session, manager: JobManager, job_id: str, *, events: bool = False
) -> tuple[JobStatus, Exit]:
    """`wait_for_one` for a command; Ctrl-C leaves the job as it is and says how to see it again."""
    observer = Observer(session, events=events)
    session.stored = manager.status(job_id, offline=True).to_dict()
    try:
        status = wait_for_one(session, manager, job_id, observer)
    except KeyboardInterrupt:
        session.stored = manager.status(job_id, offline=True).to_dict()
        raise Detached(session.command("watch", job_id)) from None
    except langbatch.LangBatchError:
        session.stored = manager.status(job_id, offline=True).to_dict()
        raise
    return status, exits.of_results(status)
