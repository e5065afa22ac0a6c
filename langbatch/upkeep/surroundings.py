"""This machine, as far as langbatch depends on it: home, disk, database, proxies. Changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.config.settings import Settings
from langbatch.errors import BatchStorageError
from langbatch.running import journal
from langbatch.running.space import RESERVE_BYTES, refuse_network_disk
from langbatch.upkeep.findings import Finding, fine, of_error, problem, warning

if TYPE_CHECKING:
    from langbatch.store.examination import Examined

#: Less free space than this is told of: one large job with its results takes as much.
LITTLE_ROOM_BYTES = 1_000_000_000
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def check_home(settings: Settings) -> Iterator[Finding]:
    """Whether the folder may be written, by its owner alone, on a disk with room and with locks."""
    home = settings.home
    elsewhere = "or set LANGBATCH_HOME to a folder that is."
    try:
        place = next(folder for folder in (home, *home.parents) if os.path.lexists(folder))
        place.stat()
        folder = place.is_dir()
    except OSError as error:
        # A folder on the way that may not be entered, links in a circle, or to nowhere.
        what = f"{home} cannot be reached: {error.strerror}"
        yield problem("home", what, f"Make it readable for this user, {elsewhere}")
        return
    if not folder:
        yield problem("home", f"{place} is not a folder", "Move it away, or set LANGBATCH_HOME elsewhere.")
        return
    if not _allowed(place, os.R_OK | os.W_OK | os.X_OK):
        doing = "written" if _allowed(place, os.R_OK | os.X_OK) else "read"
        mend = f"Make it readable and writable for this user, {elsewhere}"
        yield problem("home", f"{place} cannot be {doing} by this user", mend)
        return
    if place != home:
        yield fine("home", f"{home} will be made when the first job is stored")
    else:
        yield _privacy(home)
    if settings.database_url is None:
        try:
            refuse_network_disk(place)
        except BatchStorageError as error:
            yield of_error("network_disk", error)
    yield check_room(place, shutil.disk_usage(place).free)


def _allowed(path: Path, mode: int) -> bool:
    # Files are opened as the effective user, which is another one under sudo and in some containers.
    effective = os.access in os.supports_effective_ids
    return os.access(path, mode, effective_ids=effective)


def check_room(place: Path, free: int) -> Finding:
    """Whether the disk of `place` has room for a job; `free` is in bytes."""
    said = f"{free / 1e9:,.1f} GB free on the disk of {place}"
    if free < RESERVE_BYTES:
        return problem("disk", said, "Free some space (`langbatch gc`, `langbatch purge JOB`): nothing fits.")
    if free < LITTLE_ROOM_BYTES:
        mend = "Free some space, or set LANGBATCH_HOME to another disk, before a large job."
        return warning("disk", said, mend)
    return fine("disk", said)


def _privacy(home: Path) -> Finding:
    """Folders 0700, files 0600; those on the way to prompts are looked at, not all of them."""
    seen = [home, home / "jobs", home / "langbatch.db", home / journal.NAME]
    seen += [entry for entry in (home / "jobs").glob("*") if not entry.is_symlink()]
    open_ones = [path for path in seen if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    if not open_ones:
        return fine("home", f"{home} is writable, and readable by you alone")
    first = open_ones[0]
    more = f" and {len(open_ones) - 1} more" if len(open_ones) > 1 else ""
    return warning("home", f"others may read {first}{more}", f"chmod -R go-rwx {home}")


def check_database(settings: Settings) -> tuple[Finding, Examined | None]:
    """Whether the database can be used, and what is in it."""
    from langbatch.store.examination import examine_file, examine_url

    try:
        if settings.database_url is None:
            found = examine_file(settings.home / "langbatch.db")
        else:
            found = examine_url(settings.database_url)
    except BatchStorageError as error:
        return of_error("database", error), None
    except OSError as error:
        mend = "Make LANGBATCH_HOME and what is in it readable for this user, or set it to another folder."
        return problem("database", f"the database cannot be reached: {error.strerror}", mend), None
    return check_schema(found), found


def check_schema(found: Examined) -> Finding:
    """What is in a database that can be used, and whether it will be changed on its next use."""
    from langbatch.store.version import SCHEMA_VERSION

    if found.schema is None:
        return fine("database", "there is none yet; it is made when the first job is stored")
    if found.schema != SCHEMA_VERSION:
        mend = "The next command on jobs brings it up to date, and leaves a copy of the old one beside it."
        return warning("database", f"its schema {found.schema} is older than this langbatch's", mend)
    return fine(
        "database", f"schema {found.schema}, store {found.store_id or 'not named yet'}, jobs: {found.jobs}"
    )


def check_other_stores(settings: Settings, environ: Mapping[str, str], usual: Path) -> Iterator[Finding]:
    """Stores elsewhere on this machine: jobs in one are not seen from another. `usual`: the default home."""
    named = environ.get("LANGBATCH_HOME")
    places: Iterable[Path] = {usual, Path(named).expanduser().absolute() if named else usual}
    for place in sorted(places):
        # Not `exists()`, which raises where a folder may not be entered.
        if place != settings.home and os.path.exists(place / "langbatch.db"):
            mend = f"To see the jobs there: --home {place}, or LANGBATCH_HOME."
            yield warning("other_stores", f"there is another store in {place}", mend)


def check_proxies(environ: Mapping[str, str], host: str | None, loopback: bool) -> Iterator[Finding]:
    """Proxy variables decide which way every call goes, without being asked. Values may hold passwords."""
    names = [name for upper in _PROXIES for name in (upper, upper.lower()) if environ.get(name, "").strip()]
    if not names or loopback:
        return
    mend = f"If {host or 'the service'} is to be reached directly, name it in NO_PROXY."
    yield warning("proxy", f"calls go through a proxy: {', '.join(names)} is set", mend)
