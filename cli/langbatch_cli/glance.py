"""`langbatch status --offline` for a file or pipe: told before the parser and SQLAlchemy could be loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import langbatch
from langbatch_cli.job_text import plain_table
from langbatch_cli.render import Line


def listed(arguments: Sequence[str]) -> list[Line] | None:
    """The list of jobs, where these arguments ask for that and no more; None: the long way must tell."""
    match arguments:
        case ["status", "--offline"]:
            home = None
        case ["status", "--offline", "--home", folder] | ["status", "--home", folder, "--offline"]:
            home = folder
        case _:
            return None
    if sys.stderr.isatty() or home in ("", "--offline"):
        return None
    try:
        jobs = langbatch.glance(home)
    except langbatch.LangBatchError:
        return None
    return None if jobs is None else plain_table(jobs)
