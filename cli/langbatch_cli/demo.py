"""`langbatch demo`: a whole job on an emulator of its own, without any setting up."""

from __future__ import annotations

import io
import json as json_format
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.render import plain, result_table
from langbatch_cli.session import Session
from langbatch_cli.waiting import Observer, wait_for_one

if TYPE_CHECKING:
    from langbatch.emulator import RowError

#: Seconds between looks: a demonstration's batch takes two.
_POLL_SECONDS = "0.25"
_FOREIGN_VARIABLES = ("AZURE_", "OPENAI_", "LANGBATCH_")

_CAPITALS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Canada": "Ottawa",
    "Norway": "Oslo",
}
#: Requests that go wrong, because real jobs have some, too.
_BLOCKED, _BROKEN = "Atlantis", "Utopia"


def demo(ctx: typer.Context, json: options.Json = False, home: options.Home = None) -> Exit:
    """Run a sample job on an emulator and show its results.

    Needs no account and no settings, and leaves nothing behind.
    """
    session = options.session_of(ctx, json, home)
    with own_environment(), tempfile.TemporaryDirectory(prefix="langbatch-demo-") as folder:
        # The demonstration's jobs are its own, wherever the user's are kept.
        session.home = Path(folder, "home")
        return show(session, Path(folder, "capitals.jsonl"))


def show(session: Session, sample: Path) -> Exit:
    """The whole demonstration, with the sample written to `sample`."""
    from langbatch.emulator import EmulatorConfig, running_server

    sample.write_text(sample_requests(), encoding="utf-8")
    _tell(session, f"A sample of {len(_CAPITALS) + 2} requests, sent to an emulator on this machine:")
    with running_server(config=EmulatorConfig.demo(answer=_answer)) as server, session.manager() as manager:
        submission = manager.submit(
            sample,
            "azure",
            name="demo",
            azure_endpoint=server.azure_endpoint,
            api_key="demo",
            api_version="2024-10-21",
            deployment="gpt-demo",
        )
        status = wait_for_one(session, manager, submission.id, Observer(session, events=False))
        if session.json:
            joined = io.BytesIO()
            manager.export(submission.id, joined)
            records = [json_format.loads(line) for line in joined.getvalue().splitlines()]
            session.put_document({"status": status.to_dict(), "results": records})
            return Exit.DONE
        session.say([plain("One result per request, in input order:", "bold")])
        session.say(result_table(manager.results(submission.id), session.width or 100))
    session.say([plain("Next:", "bold")])
    session.say("  langbatch emulator                        the same service, to keep")
    session.say("  langbatch validate FILE                   is my file in order?")
    session.say("  langbatch submit FILE --deployment NAME   send it to Azure")
    return Exit.DONE


def _tell(session: Session, text: str) -> None:
    if not session.json:
        session.say([plain(text, "bold")])


def sample_requests() -> str:
    """The input file: a question per line."""
    lines = []
    for country in (*_CAPITALS, _BLOCKED, _BROKEN):
        body = {
            "model": "gpt-demo",
            "messages": [{"role": "user", "content": f"What is the capital of {country}?"}],
        }
        request = {"custom_id": country.lower(), "method": "POST", "url": "/chat/completions", "body": body}
        lines.append(json_format.dumps(request) + "\n")
    return "".join(lines)


def _answer(body: dict[str, Any], custom_id: str) -> str | RowError:
    from langbatch.emulator import RowError

    if custom_id == _BLOCKED.lower():
        return RowError(400, "content_filter", "The prompt was filtered.")
    if custom_id == _BROKEN.lower():
        return RowError(500, "InternalServerError", "The server had an error.")
    return f"{_CAPITALS[custom_id.capitalize()]}."


@contextmanager
def own_environment() -> Iterator[None]:
    """Without any variable that says where to send, what with, or where to keep it: a demonstration goes to
    its emulator and nowhere else. Proxies are left aside for the same reason."""
    saved = dict(os.environ)
    for name in saved:
        if name.startswith(_FOREIGN_VARIABLES) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["LANGBATCH_POLL_SECONDS"] = _POLL_SECONDS
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
