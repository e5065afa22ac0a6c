"""Where processes are born: it has imported everything and forks one for each life it is asked for.

Starting the interpreter and importing take a second, a fork a few milliseconds. What is forked is a
process like any other: its own memory, its own connections (none is open before the fork), its own
death. Commands come as JSON lines on standard input, events go out on standard output:

| in | does | | out | means |
|---|---|---|---|---|
| `{"n", "life", "folder", "variables", "out", "err"}` | forks | | `{"n", "pid"}` | it lives |
| `{"n", "signal"}` | sends it, unless the process has ended | | `{"n", "stopped": true}` | it stands still |
| end of file | kills all, ends | | `{"n", "status"}` | it has ended (negative: by a signal) |

Signals go by way of this process, because it alone knows that a pid is not reaped, and so not reused.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import selectors
import signal
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

from killing.child import live
from killing.lives import Life

_PR_SET_PDEATHSIG = 1


def main() -> None:
    _import_everything()
    wake_out, wake_in = os.pipe()
    for descriptor in (wake_out, wake_in):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    numbers: dict[int, int] = {}
    pids: dict[int, int] = {}
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake_out, selectors.EVENT_READ)
        _tell({"ready": True})
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake_out in ready:
                os.read(wake_out, 4096)
            _reap(numbers, pids)
            if 0 not in ready:
                continue
            block = os.read(0, 1 << 16)
            if not block:
                break
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                command = json.loads(line)
                n = command["n"]
                if "signal" in command:
                    if n in pids:
                        os.kill(pids[n], command["signal"])
                else:
                    pid = _fork(command)
                    numbers[pid], pids[n] = n, pid
                    _tell({"n": n, "pid": pid})
    for pid in numbers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _reap(numbers: dict[int, int], pids: dict[int, int]) -> None:
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            _tell({"n": numbers[pid], "stopped": True, "at": time.time()})
            continue
        n = numbers.pop(pid)
        del pids[n]
        _tell({"n": n, "status": os.waitstatus_to_exitcode(status), "at": time.time()})


def _tell(event: dict[str, Any]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def _fork(command: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _begin(command)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - must not unwind into the parent's code
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _begin(command: dict[str, Any]) -> int:
    # A nursery that is killed takes everybody along, the frozen ones too.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, path in ((0, os.devnull), (1, command["out"]), (2, command["err"])):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["variables"])
    return live(Life.of(command["life"]))


def _import_everything() -> None:
    """What a run of the command line imports, so that children need not."""
    for name in (
        "alembic.command",
        "alembic.config",
        "killing.naive",
        "langbatch.handles",
        "langbatch.running.leases",
        "langbatch.manager",
        "langbatch.progress",
        "langbatch.providers.azure",
        "langbatch.providers.openai",
        "langbatch.results.result",
        "langbatch.running.runner",
        "langbatch.running.settlement",
        "langbatch.store.endpoint_facts",
        "langbatch_cli.app",
        "openai.lib.azure",
        "openai.resources",
        "sqlalchemy.dialects.sqlite.pysqlite",
    ):
        importlib.import_module(name)
    for name in ("httpcore", "httpcore2", "truststore"):
        # Which of them the SDK uses depends on its version.
        with suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    main()
