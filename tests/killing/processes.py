"""The driver's side of the nursery: start a process, signal it, learn how it ended."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import langbatch
import langbatch_cli
from killing.lives import Life

#: Who reaches no failpoint for so many seconds hangs. Nothing waits as long, on whatever machine.
QUIET_SECONDS = 300.0
#: Who notes more than this goes round in circles: a run of a small job notes less than 20,000 bytes.
NOTES_OF_RUN = 2_000_000
#: Where the program is, for processes of their own.
CODE = [str(Path(str(module.__file__)).parents[1]) for module in (langbatch, langbatch_cli)]
CODE.append(str(Path(__file__).parents[1]))


class Hung(AssertionError):
    """A process did not end; liveness is one of the promises."""


class Progress:
    """Tells work from a hang by the failpoints that are reached, so that a slow machine is only slow."""

    def __init__(self, most_bytes: float) -> None:
        self._most_bytes = most_bytes
        self._seen = -1
        self._since = 0.0

    def check(self, noted_bytes: int, who: object) -> None:
        """`noted_bytes` are the notes so far. Raises `Hung` for too many of them, or none for long."""
        now = time.monotonic()
        if noted_bytes != self._seen:
            self._seen, self._since = noted_bytes, now
        if noted_bytes > self._most_bytes:
            raise Hung(f"no end after {noted_bytes} bytes of notes: {who}")
        if now - self._since > QUIET_SECONDS:
            raise Hung(f"no failpoint reached for {QUIET_SECONDS:g} s: {who}")


@dataclass(slots=True)
class Child:
    """One process. `code` is its exit code, negative for the signal that ended it, None while it lives."""

    n: int
    life: Life
    files: Path
    pid: int = 0
    code: int | None = None
    #: SIGSTOPs that it was seen to obey, its own and ours.
    stops: int = 0
    standing_still: bool = False
    started_at: float = field(default_factory=time.time)
    #: By the nursery's clock, which is the machine's.
    ended_at: float = 0.0
    stopped_at: float = 0.0

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def out(self) -> str:
        return _text(self.files / f"{self.n}.out")

    @property
    def err(self) -> str:
        return _text(self.files / f"{self.n}.err")

    @property
    def hits(self) -> Counter[str]:
        """How often each failpoint was reached."""
        return Counter(line for line in self._lines() if not line.startswith("!"))

    @property
    def carried_out(self) -> list[str]:
        """Orders carried out: `kill commit.after`."""
        return [line[1:] for line in self._lines() if line.startswith("!")]

    @property
    def noted_bytes(self) -> int:
        """The length of its notes, which grow with every failpoint it reaches."""
        try:
            return (self.files / f"{self.n}.hits").stat().st_size
        except FileNotFoundError:
            return 0

    def _lines(self) -> list[str]:
        return _text(self.files / f"{self.n}.hits").splitlines()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class Nursery:
    """Starts processes by forking one that has imported everything; none outlives the block."""

    def __init__(self, files: Path) -> None:
        self._files = files
        files.mkdir(parents=True, exist_ok=True)
        self._children: dict[int, Child] = {}
        self._pending = b""
        self._born = 0

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "killing.nursery"],
            env={**surroundings(), "PYTHONPATH": os.pathsep.join(CODE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        try:
            while not self.happenings(QUIET_SECONDS):
                pass
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._selector.close()
        self._process.communicate()

    def start(self, life: Life, folder: Path, variables: Mapping[str, str]) -> Child:
        self._born += 1
        n = self._born
        life = replace(life, hits=str(self._files / f"{n}.hits"))
        child = self._children[n] = Child(n, life, self._files)
        self._send(
            n=n,
            life=asdict(life),
            folder=str(folder),
            variables={**surroundings(), **variables},
            out=str(self._files / f"{n}.out"),
            err=str(self._files / f"{n}.err"),
        )
        return child

    def signal(self, child: Child, number: signal.Signals) -> None:
        """Send it, unless the process has ended by then."""
        if number == signal.SIGCONT:
            child.standing_still = False
        self._send(n=child.n, signal=int(number))

    def run(self, life: Life, folder: Path, variables: Mapping[str, str]) -> Child:
        """Start a process and wait for its end."""
        child = self.start(life, folder, variables)
        return self.ended(child)

    def ended(self, child: Child) -> Child:
        """Wait for this process's end."""
        progress = Progress(NOTES_OF_RUN)
        while child.code is None:
            self.happenings(0.5)
            progress.check(child.noted_bytes, (child.life, child.err[-2000:]))
        return child

    def stopped(self, child: Child) -> Child:
        """Wait until this process stands still, as it was ordered to."""
        progress = Progress(NOTES_OF_RUN)
        while not child.standing_still:
            assert child.code is None, f"ended before it was to stop: {child.life} {child.err}"
            self.happenings(0.5)
            progress.check(child.noted_bytes, child.life)
        return child

    def happenings(self, seconds: float) -> bool:
        """Take in what has happened, waiting up to so long for the first of it; whether anything has."""
        if not self._selector.select(max(0.0, seconds)):
            return False
        assert self._process.stdout is not None
        block = os.read(self._process.stdout.fileno(), 1 << 16)
        if not block:
            raise RuntimeError("the nursery has died")
        *lines, self._pending = (self._pending + block).split(b"\n")
        for line in lines:
            self._take_in(json.loads(line))
        return True

    def _take_in(self, event: dict[str, Any]) -> None:
        child = self._children.get(event.get("n", 0))
        if child is None:
            return
        if "pid" in event:
            child.pid = event["pid"]
        elif "stopped" in event:
            child.stops += 1
            child.standing_still = True
            child.stopped_at = event["at"]
        elif "status" in event:
            child.code, child.ended_at = event["status"], event["at"]
            child.standing_still = False
            del self._children[child.n]

    def _send(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()


def surroundings() -> dict[str, str]:
    """The environment without anybody's credentials, settings or proxies."""
    foreign = ("AZURE_", "OPENAI_", "LANGBATCH_", "PYTHON")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.upper().endswith("_PROXY")
    }
