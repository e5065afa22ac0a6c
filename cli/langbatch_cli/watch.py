"""`langbatch watch` and `langbatch resume`: jobs are advanced, and looked on at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from langbatch_cli import exits, failures, options
from langbatch_cli.exits import Exit
from langbatch_cli.explain import tell_failures
from langbatch_cli.job_text import job_lines, job_table
from langbatch_cli.render import error_lines
from langbatch_cli.session import Detached, Session
from langbatch_cli.waiting import wait_and_come_back, wait_for_all

if TYPE_CHECKING:
    from langbatch import JobManager, JobStatus, LangBatchError


def watch(
    ctx: typer.Context,
    jobs: options.Jobs,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Show live progress until jobs are finished.

    Ctrl-C detaches and prints the command to come back; the jobs go on.

    With --json: one status document per line, whenever something changed.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        ids = list(dict.fromkeys(manager.status(job, offline=True).id for job in jobs))
        if len(ids) == 1:
            status, code = wait_and_come_back(session, manager, ids[0], events=session.json)
            if not session.json:
                session.say(job_lines(status, session.width, session.limit))
                tell_failures(session, manager, status)
                next_command = "retry" if status.state == "failed" else "fetch"
                session.say(f"Next: {session.command(next_command, status.id)}")
            return code
        errors = _wait(session, manager, ids, events=session.json, come_back=session.command("watch", *ids))
        found = [manager.status(job_id, offline=True) for job_id in ids]
    if session.json:
        for error in errors.values():
            session.put_document({"error": failures.of_library(error)}, one_line=True)
    else:
        session.say(job_table(found, session.width))
        _say_errors(session, errors)
    return _code(found, errors)


def resume(
    ctx: typer.Context,
    job: options.SomeJob = None,
    wait: options.Wait = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Advance jobs once, or until they are done, and exit.

    For cron, and after a restart. Without --wait, exit code 7 says that a later resume gets further.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        if job is not None:
            return _resume_one(session, manager, job, wait=wait)
        if not wait:
            manager.advance(eager=True)
            found = manager.jobs()
            _show(session, found, {})
            return exits.of_one_round(found)
        ids = [status.id for status in manager.jobs() if not status.finished and status.state != "draft"]
        errors = _wait(session, manager, ids, come_back=session.command("resume", "--wait"))
        found = manager.jobs()
        _show(session, found, errors)
        return _code(found, errors)


def _resume_one(session: Session, manager: JobManager, job: str, *, wait: bool) -> Exit:
    if wait:
        status, code = wait_and_come_back(session, manager, manager.status(job, offline=True).id)
    else:
        status = manager.status(job)
        code = exits.of_one_round([status])
    if session.json:
        session.put_document(status.to_dict())
    else:
        session.say(job_lines(status, session.width, session.limit))
    return code


def _wait(
    session: Session, manager: JobManager, ids: list[str], *, come_back: str, events: bool = False
) -> dict[str, LangBatchError]:
    try:
        return wait_for_all(session, manager, ids, events=events)
    except KeyboardInterrupt:
        session.stored = {} if events else {"jobs": [one.to_dict() for one in manager.jobs()]}
        raise Detached(come_back) from None


def _show(session: Session, found: list[JobStatus], errors: dict[str, LangBatchError]) -> None:
    if session.json:
        document: dict[str, Any] = {"jobs": [one.to_dict() for one in found]}
        if errors:
            worst = exits.worst([exits.of_error(error) for error in errors.values()])
            first = next(error for error in errors.values() if exits.of_error(error) is worst)
            document["error"] = failures.of_library(first)
        session.put_document(document)
        return
    session.say(job_table(found, session.width, session.limit))
    _say_errors(session, errors)


def _say_errors(session: Session, errors: dict[str, LangBatchError]) -> None:
    for job_id, error in errors.items():
        session.say(error_lines(f"{job_id}: {error.message}", error.hint, session.width))


def _code(found: list[JobStatus], errors: dict[str, LangBatchError]) -> Exit:
    ended = [exits.of_results(status) for status in found if status.finished]
    return exits.worst([*(exits.of_error(error) for error in errors.values()), *ended])
