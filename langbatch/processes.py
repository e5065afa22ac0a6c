"""Who holds a lease, in words that let another process on this machine see that the holder is gone."""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from pathlib import Path


@cache
def _machine() -> str:
    """Host name and boot id: after a reboot, every earlier process is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "-"
    return f"{socket.gethostname()}/{boot}"


def _started(pid: int) -> str | None:
    """The process's start time in clock ticks (field 22 of /proc/PID/stat), so that a reused pid is
    not taken for its predecessor. None: no such process; `-`: it lives, but this cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "-"
    except OSError:
        return "-"
    fields = stat.rpartition(")")[2].split()
    # A zombie has ended; only its parent has not looked yet.
    return None if fields[0] in "ZX" else fields[19]


def identity() -> str:
    """A name for one holder: machine, process, its start, and a random part for this very object."""
    pid = os.getpid()
    return f"{_machine()}|{pid}|{_started(pid) or '-'}|{secrets.token_hex(4)}"


def is_gone(holder: str) -> bool:
    """True only where it is certain: the holder ran on this machine and no longer does."""
    try:
        machine, pid, started, _ = holder.split("|")
        number = int(pid)
    except ValueError:
        return False
    host, _, boot = machine.partition("/")
    here_host, _, here_boot = _machine().partition("/")
    if host != here_host:
        return False
    if boot != here_boot:
        return True
    now_started = _started(number)
    return now_started is None or (now_started != started and "-" not in (started, now_started))
