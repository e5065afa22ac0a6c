"""`langbatch gc`: what finished jobs left at the service, and dead processes here, is deleted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.render import amount


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> Exit:
    """Delete finished jobs' files at the service.

    Results that were fetched stay here. Files of other stores and of other programs are never touched, and
    files of this store that no job knows only once they are a day old. Leftovers of processes that died are
    swept here as well.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        done = manager.gc(dry_run=dry_run)
    document: dict[str, Any] = {"deleted": list(done.deleted), "kept": done.kept}
    if dry_run:
        document["dry_run"] = True
    if done.errors:
        # What was deleted elsewhere is told with the error.
        session.stored = document
    verb = "would be deleted" if dry_run else "deleted"
    if not session.json:
        for file_id in done.deleted:
            session.put(file_id)
        session.say(
            f"{amount(len(done.deleted), 'file')} {verb} at the service, {done.kept} still in use; "
            f"{amount(len(done.swept), 'leftover')} {verb} here."
        )
    for error in done.errors:
        raise error
    if session.json:
        session.put_document(document)
    return Exit.DONE
