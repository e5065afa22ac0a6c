"""How one process is to live and die: its program, its surroundings, and orders about failpoints."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

Act = Literal["kill", "stop", "fail"]
Program = Literal["langbatch", "unfenced", "naive"]

#: Stands for every failpoint: `any:40` is the fortieth hit of whatever name.
ANY = "any"


@dataclass(frozen=True, slots=True)
class Order:
    """What happens at the `hit`-th time (from 1) that failpoint `name` is reached.

    `kill` and `stop` are SIGKILL and SIGSTOP by the process itself; `fail` raises ENOSPC, then and at
    every later hit, as a disk does that stays full.
    """

    act: Act
    name: str
    hit: int

    @classmethod
    def parse(cls, act: Act, text: str) -> Order:
        name, _, hit = text.partition(":")
        return cls(act, name, int(hit or 1))


@dataclass(frozen=True, slots=True)
class Life:
    """One process. `hits` is a file that gets a line for every failpoint reached and order carried out.

    `lease_seconds` and `busy_seconds` shorten what langbatch takes 30 s for; `file_bytes` is RLIMIT_FSIZE;
    `ordinary_powers` makes root a user like others, for whom a read-only folder is one.
    """

    arguments: tuple[str, ...]
    orders: tuple[Order, ...] = ()
    program: Program = "langbatch"
    hits: str | None = None
    lease_seconds: float | None = None
    busy_seconds: float | None = None
    file_bytes: int | None = None
    ordinary_powers: bool = False

    @classmethod
    def of(cls, document: dict[str, Any]) -> Life:
        """Back from `dataclasses.asdict` by way of JSON."""
        orders = tuple(Order(**order) for order in document["orders"])
        return cls(**{**document, "arguments": tuple(document["arguments"]), "orders": orders})


class Listener:
    """Hears every failpoint of this process: notes it, and does what was ordered for it."""

    def __init__(self, life: Life) -> None:
        self._orders = life.orders
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._log = None if life.hits is None else os.open(life.hits, flags, 0o600)

    def __call__(self, name: str) -> None:
        with self._lock:
            self._counts.update((name, ANY))
            own, every = self._counts[name], self._counts[ANY]
            # Unbuffered, so that the line survives the kill that may follow.
            self._note(name)
            due = [order for order in self._orders if order.hit == (every if order.name == ANY else own)]
            full = any(o.act == "fail" and o.name in (name, ANY) and own >= o.hit for o in self._orders)
        for order in due:
            if order.name in (name, ANY) and order.act != "fail":
                self._note(f"!{order.act} {name}")
                os.kill(os.getpid(), signal.SIGKILL if order.act == "kill" else signal.SIGSTOP)
        if full:
            self._note(f"!fail {name}")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _note(self, text: str) -> None:
        if self._log is not None:
            with suppress(OSError):  # a life may have too little disk even for this
                os.write(self._log, f"{text}\n".encode())
