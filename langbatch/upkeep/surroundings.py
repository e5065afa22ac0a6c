"""This machine, as far as langbatch depends on it: home, disk, database, proxies. Changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.config import Settings
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
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    if not place.is_dir():
        yield problem("home", f"{place} is not a folder", "Move it away, or set LANGBATCH_HOME elsewhere.")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        mend = "Make it writable for this user, or set LANGBATCH_HOME to a folder that is."
        yield problem("home", f"{place} cannot be written by this user", mend)
    elif place != home:
        yield fine("home", f"{home} will be made when the first job is stored")
    else:
        yield _privacy(home)
    if settings.database_url is None:
        try:
            refuse_network_disk(place)
        except BatchStorageError as error:
            yield of_error("network_disk", error)
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:,.1f} GB free on the disk of {place}"
    if free < RESERVE_BYTES:
        yield problem("disk", said, "Free some space: no job can be stored.")
    elif free < LITTLE_ROOM_BYTES:
        mend = "Free some space, or set LANGBATCH_HOME to another disk, before a large job."
        yield warning("disk", said, mend)
    else:
        yield fine("disk", said)


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
    if found.schema is None:
        return fine("database", "there is none yet; it is made when the first job is stored"), found
    text = f"schema {found.schema}, store {found.store_id or 'not named yet'}, jobs: {found.jobs}"
    return fine("database", text), found


def check_other_stores(settings: Settings, environ: Mapping[str, str], usual: Path) -> Iterator[Finding]:
    """Stores elsewhere on this machine: jobs in one are not seen from another. `usual`: the default home."""
    named = environ.get("LANGBATCH_HOME")
    places: Iterable[Path] = {usual, Path(named).expanduser().absolute() if named else usual}
    for place in sorted(places):
        if place != settings.home and (place / "langbatch.db").exists():
            mend = f"To see the jobs there: --home {place}, or LANGBATCH_HOME."
            yield warning("other_stores", f"there is another store in {place}", mend)


def check_proxies(environ: Mapping[str, str], host: str | None, loopback: bool) -> Iterator[Finding]:
    """Proxy variables decide which way every call goes, without being asked. Values may hold passwords."""
    names = [name for upper in _PROXIES for name in (upper, upper.lower()) if environ.get(name, "").strip()]
    if not names or loopback:
        return
    mend = f"If {host or 'the service'} is to be reached directly, name it in NO_PROXY."
    yield warning("proxy", f"calls go through a proxy: {', '.join(names)} is set", mend)
