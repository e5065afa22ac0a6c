"""One process of a campaign: `python -m killing.child --kill NAME:N -- submit …`.

It arms a listener at the failpoints and then calls the real command line. Nothing of langbatch is
replaced but the program `unfenced`, which is made wrong on purpose so that the campaign can be seen
to notice.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import sys
from collections.abc import Sequence

from killing.lives import Life, Listener, Order

#: Linux's capability header version 3, for capset(2).
_CAPABILITY_VERSION_3 = 0x20080522


def live(life: Life) -> int:
    """Run the life in this process; its exit code, if it comes to one."""
    if life.ordinary_powers and os.geteuid() == 0:
        _give_up_powers()
    if life.file_bytes is not None:
        # Python ignores SIGXFSZ, so that a write beyond it is an OSError.
        resource.setrlimit(resource.RLIMIT_FSIZE, (life.file_bytes, life.file_bytes))
    from langbatch import failpoints

    _shorten(life)
    if life.program == "unfenced":
        _take_away_the_fence()
    with failpoints.listening(Listener(life)):
        if life.program == "naive":
            from killing import naive

            return naive.main(life.arguments)
        from langbatch_cli.app import main

        return int(main(list(life.arguments)))


def _shorten(life: Life) -> None:
    from langbatch.running import leases, runner
    from langbatch.store import database, store

    if life.lease_seconds is not None:
        # `leases` has a name of its own for it.
        shorter = life.lease_seconds / store.LEASE_SECONDS
        store.LEASE_SECONDS = leases.LEASE_SECONDS = life.lease_seconds  # type: ignore[attr-defined]
        runner.HELD_ELSEWHERE_SECONDS *= shorter
    if life.busy_seconds is not None:
        database.BUSY_SECONDS = life.busy_seconds


def _take_away_the_fence() -> None:
    """langbatch as it would be if it believed an absence without deleting the input file first."""
    from langbatch.providers.openai import FilesAndBatches

    def keep_file(self: FilesAndBatches, file_id: str) -> None:
        return None

    FilesAndBatches.delete_file = keep_file  # type: ignore[method-assign]


def _give_up_powers() -> None:
    """Root without capabilities: permissions count, as for anybody."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="killing.child", description=__doc__)
    for act in ("kill", "stop", "fail"):
        parser.add_argument(f"--{act}", metavar="NAME:N", action="append", default=[])
    parser.add_argument("--program", choices=("langbatch", "unfenced", "naive"), default="langbatch")
    parser.add_argument("--hits", metavar="FILE", help="note every failpoint reached there")
    parser.add_argument("--lease-seconds", type=float)
    parser.add_argument("--busy-seconds", type=float)
    parser.add_argument("--file-bytes", type=int, help="no file may grow beyond this")
    parser.add_argument("--ordinary-powers", action="store_true", help="as root: respect permissions")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and a langbatch command")
    given = parser.parse_args(arguments)
    orders = (
        *(Order.parse("kill", text) for text in given.kill),
        *(Order.parse("stop", text) for text in given.stop),
        *(Order.parse("fail", text) for text in given.fail),
    )
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    return live(
        Life(
            tuple(command),
            orders,
            given.program,
            given.hits,
            given.lease_seconds,
            given.busy_seconds,
            given.file_bytes,
            given.ordinary_powers,
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
