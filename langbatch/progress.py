"""A progress bar for people who watch. Programs, logs and pipes get none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from langbatch.records import Progress, ProgressStep
from langbatch.redaction import clean_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_TITLES: dict[ProgressStep, str] = {
    "validate": "Validating",
    "compare": "Comparing requests",
    "count": "Counting tokens",
    "upload": "Uploading",
    "wait": "Waiting",
    "download": "Downloading",
    "join": "Joining",
}
#: A terminal narrower than this shows no bar, only the numbers.
_BAR_FROM_COLUMNS = 50


class TerminalProgress:
    """One bar at a time on a terminal: that of the step last reported. An `OnProgress`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step: ProgressStep | None = None
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None

    def __call__(self, progress: Progress) -> None:
        if self._bars is None or progress.step != self._step:
            self.clear()
            self._show(progress)
        if self._bars is not None and self._task is not None:
            self._bars.update(
                self._task,
                completed=progress.done,
                total=progress.total,
                numbers=numbers(progress),
                detail=clean_text(progress.detail),
            )

    def clear(self) -> None:
        """Take the bar off the screen, so that text can be printed; the next report brings it back."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._task = self._step = None

    def _show(self, progress: Progress) -> None:
        from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
        if self._console.width >= _BAR_FROM_COLUMNS:
            columns.append(BarColumn(bar_width=16))
        columns += [TextColumn("{task.fields[numbers]}", markup=False), TimeElapsedColumn()]
        # The detail takes what room is left, and is cut rather than wrapped.
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns.append(TextColumn("{task.fields[detail]}", markup=False, table_column=rest))
        # Standard output carries data and must not be caught by the bar's redirection.
        self._bars = RichProgress(
            *columns,
            console=self._console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bars.add_task(
            _TITLES[progress.step], total=progress.total, numbers=numbers(progress), detail=""
        )
        self._step = progress.step
        self._bars.start()


@contextmanager
def terminal_progress() -> Iterator[TerminalProgress | None]:
    """Something to pass as `on_progress` or `progress`; None where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    # Room for the ^C that a terminal prints: it would wrap, and the line below be cleared for the bar's.
    columns = max(Console(stderr=True).width - 3, 20)
    bars = TerminalProgress(Console(stderr=True, width=columns))
    try:
        yield bars
    finally:
        bars.clear()


def numbers(progress: Progress) -> str:
    """How far, in the step's unit: `12 of 40`, `1.5 of 200.0 MB`."""
    if progress.unit == "requests":
        return f"{progress.done:,}" if progress.total is None else f"{progress.done:,} of {progress.total:,}"
    # Decimal, as providers state their limits.
    size, unit = (1e3, "kB") if max(progress.done, progress.total or 0) < 100_000 else (1e6, "MB")
    done = f"{progress.done / size:.1f}"
    return f"{done} {unit}" if progress.total is None else f"{done} of {progress.total / size:.1f} {unit}"
