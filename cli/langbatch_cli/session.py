"""One run of the command line: where its output goes, and how it opens the job manager."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import langbatch
from langbatch_cli.render import TERMINAL_LIMIT, Line, visible

if TYPE_CHECKING:
    from langbatch import JobManager, Progress

#: How long `--wait` rides out an outage when a person watches; a run without a terminal never gives up.
WATCHED_OUTAGE_SECONDS = 600.0
#: Longer lines are hard to read, however wide the terminal is.
WIDEST = 120
_UNKNOWN_WIDTH = 80


class Display(Protocol):
    """Something drawn on the terminal that can make room for text."""

    def __call__(self, progress: Progress) -> None: ...

    def clear(self) -> None: ...


class UsageError(Exception):
    """The command line itself is at fault."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Detached(Exception):
    """Ctrl-C. `come_back` is the command that goes on from here; `jobs_go_on` where any are stored."""

    def __init__(self, come_back: str, *, jobs_go_on: bool = True) -> None:
        super().__init__(come_back)
        self.come_back = come_back
        self.jobs_go_on = jobs_go_on


_TABLES = (".csv", ".tsv", ".parquet", ".pq")


@dataclass
class Session:
    """Options that every command takes, and the two streams: data on stdout, text for people on stderr."""

    json: bool = False
    home: Path | None = None
    #: The job that an error document should carry: it is stored whatever follows.
    stored: Mapping[str, Any] = field(default_factory=dict)
    #: The file of this run, where its name is a table's: requests can be made of it.
    table: str | None = None
    #: The file of this run, as it was named.
    source: str = ""
    #: The service that this run was to speak with, where an option names it.
    provider: str | None = None
    #: Where a crash report may be written: the home in use, once it is known.
    reports: Path | None = None
    _bar: Display | None = None

    # ------------------------------------------------------------ the library

    @contextmanager
    def manager(self, profile: str | None = None) -> Iterator[JobManager]:
        """The job manager, with a progress bar where a person watches."""
        with langbatch.terminal_progress() as bar:
            self._bar = bar
            try:
                with langbatch.JobManager(
                    self.home, profile=profile, on_progress=self.on_progress if bar else None
                ) as manager:
                    self.reports = manager.home
                    yield manager
            except KeyboardInterrupt:
                # Here, because the parser's own handling would end without a word.
                raise Detached("the same command", jobs_go_on=False) from None
            finally:
                self._bar = None

    @contextmanager
    def showing(self, display: Display) -> Iterator[None]:
        """`display` in the progress bar's place."""
        self.clear_bar()
        before, self._bar = self._bar, display
        try:
            yield
        finally:
            display.clear()
            self._bar = before

    @contextmanager
    def input_file(self, manager: JobManager, name: str) -> Iterator[Path]:
        """The file of that name; for `-` what standard input holds, in a private file that goes away."""
        if name != "-":
            self.table = name if name.lower().endswith(_TABLES) else None
            self.source = name
            yield Path(name)
            return
        path = manager.spool(sys.stdin.buffer)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def on_progress(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar(progress)

    def outage_seconds(self, manager: JobManager) -> float | None:
        chosen = manager.settings.outage_seconds
        return WATCHED_OUTAGE_SECONDS if chosen is None and self.watched else chosen

    def command(self, *words: str) -> str:
        """A command line to type, on the same store as this one."""
        home = () if self.home is None else ("--home", str(self.home))
        text = shlex.join(("langbatch", *words, *home))
        return text if text.isprintable() else visible(text)

    # ------------------------------------------------------------ output

    @property
    def watched(self) -> bool:
        """Whether a person reads standard error as it comes."""
        return sys.stderr.isatty()

    @property
    def drawable(self) -> bool:
        """Whether what was written on standard error can be drawn over."""
        return self.watched and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")

    @property
    def width(self) -> int | None:
        """Columns for people's text; None where it goes to a file or a pipe, which is not wrapped."""
        if not self.watched:
            return None
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            columns = 0
        return min(columns or _UNKNOWN_WIDTH, WIDEST)

    @property
    def limit(self) -> int | None:
        """How many entries of a long list are shown."""
        return TERMINAL_LIMIT if self.watched else None

    def say(self, lines: Iterable[Line] | str) -> None:
        """Text for people."""
        self.clear_bar()
        shown: Iterable[Line] = [((lines, ""),)] if isinstance(lines, str) else lines
        if not self.watched:
            for line in shown:
                print("".join(text for text, _ in line), file=sys.stderr)
            sys.stderr.flush()
            return
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True, highlight=False)
        for line in shown:
            console.print(Text.assemble(*line), soft_wrap=True)

    def put(self, text: str) -> None:
        """One line of data, at once: a reader at the other end of a pipe may be waiting for it."""
        self.clear_bar()
        sys.stdout.buffer.write(os.fsencode(text) + b"\n")
        sys.stdout.buffer.flush()

    def put_document(self, document: Mapping[str, Any], *, one_line: bool = False) -> None:
        """A JSON document; indented where a person reads it."""
        indent = None if one_line or not sys.stdout.isatty() else 2
        self.put(json.dumps(document, indent=indent))

    def clear_bar(self) -> None:
        if self._bar is not None:
            self._bar.clear()
