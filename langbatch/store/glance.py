"""The list of jobs as stored, read with the standard library alone.

Shell prompts and scripts ask for it again and again, and importing SQLAlchemy takes longer than reading ten
thousand jobs. One query, nothing is written, and whatever is not plain goes the long way: `JobManager.jobs`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

from langbatch.config.settings import Settings, find_profile
from langbatch.records import OUTCOMES, JobState
from langbatch.status import Counts
from langbatch.store.version import SCHEMA_VERSION

_DATABASE, _JOURNAL = "langbatch.db", "journal"
_QUERY = f"SELECT id, name, input_name, state, attention, total, {', '.join(OUTCOMES)} FROM jobs ORDER BY key"


@dataclass(frozen=True, slots=True)
class JobGlance:
    """What a plain list tells of a job; names as in `JobStatus`."""

    id: str
    name: str | None
    input: str
    state: JobState
    attention: str | None
    counts: Counts


def glance(home: str | os.PathLike[str] | None = None) -> list[JobGlance] | None:
    """Every job of the store in `home`, oldest first; None where only `JobManager.jobs` can tell: another
    database or schema, a crash's journal to be read, a job that needs the operator, a profile."""
    settings = Settings.load(home)
    folder = settings.home
    if settings.database_url or find_profile(None, folder) is not None:
        return None
    if any((folder / _JOURNAL).glob("*.json")):
        return None
    try:
        uri = f"file:{quote(str(folder / _DATABASE))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            stuck = connection.execute("SELECT 1 FROM shards WHERE state = 'needs_operator' LIMIT 1")
            if versions != [(SCHEMA_VERSION,)] or stuck.fetchone():
                return None
            rows = connection.execute(_QUERY).fetchall()
    except sqlite3.Error:
        return None
    return [
        JobGlance(
            id_,
            name,
            input_,
            state,
            attention,
            Counts(**dict(zip(OUTCOMES, tally, strict=True)), pending=total - sum(tally)),
        )
        for id_, name, input_, state, attention, total, *tally in rows
    ]
