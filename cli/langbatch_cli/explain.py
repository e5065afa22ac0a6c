"""`langbatch explain`: what the code of an error means, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import langbatch
from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.job_text import failure_lines
from langbatch_cli.render import Line, labelled, plain, visible, wrapped
from langbatch_cli.session import Session, UsageError

if TYPE_CHECKING:
    from langbatch import Explanation, JobManager, JobStatus

_ABOUT = {"request": "one request", "batch": "a whole batch", "call": "a call to the service"}
_RETRY = {
    "by itself": "langbatch tries again by itself",
    "worth it": "worth it: langbatch retry JOB",
    "after mending": "once its cause is away",
    "useless": "the same request would end the same way",
}


def explain(
    ctx: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="[CODE]",
            help="A code, as results, status or the service say it; without: all.",
            autocompletion=lambda incomplete: _codes(incomplete),
        ),
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Tell in words what an error code means, and what to do.

    For the codes of Azure OpenAI and OpenAI, of langbatch itself, and HTTP statuses.
    """
    session = options.session_of(ctx, json, home)
    if code is None:
        return _all(session)
    found = langbatch.explain(code)
    if found is None:
        raise UsageError(f"nothing is known of the code {visible(code, 60)}", "langbatch explain")
    if session.json:
        session.put_document(found.to_dict())
        return Exit.DONE
    width = session.width
    session.say([((found.code, "bold"),)])
    session.say(labelled("about", _ABOUT[found.about], width))
    session.say(labelled("means", found.meaning, width))
    session.say(labelled("do", found.remedy, width))
    session.say(labelled("retry", _RETRY[found.retry], width))
    return Exit.DONE


def _all(session: Session) -> Exit:
    known = langbatch.explanations()
    if session.json:
        session.put_document({"codes": [one.to_dict() for one in known]})
        return Exit.DONE
    about = ""
    lines: list[Line] = []
    for one in known:
        if one.about != about:
            about = one.about
            lines.append(plain(f"About {_ABOUT[about]}:", "bold"))
        lines += _short(one, session.width)
    session.say(lines)
    session.say("Next: langbatch explain CODE")
    return Exit.DONE


def _short(one: Explanation, width: int | None) -> list[Line]:
    if width is None:
        return [((f"  {one.code}", "cyan"), (f": {one.meaning}", ""))]
    return [((f"  {one.code}", "cyan"),), *(plain(text) for text in wrapped(one.meaning, width, 4))]


def _codes(incomplete: str) -> list[str]:
    return [one.code for one in langbatch.explanations() if one.code.startswith(incomplete)]


def tell_failures(session: Session, manager: JobManager, status: JobStatus) -> None:
    """Below what is said of a job: why some of its requests have no answer, and what to do."""
    if session.json or status.counts.succeeded + status.counts.pending == status.total:
        return
    failures = manager.failures(status.id)
    if failures:
        retry = session.command("retry", status.id)
        session.say([plain("Without success:", "bold"), *failure_lines(failures, session.width, retry)])
