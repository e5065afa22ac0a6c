"""The live view on a terminal: what was seen last, drawn again and again so that its seconds count down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from langbatch_cli.pace import Pace
from langbatch_cli.session import WIDEST
from langbatch_cli.view import Scene, Window, view_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from langbatch import JobStatus, Progress

_DRAWN_PER_SECOND = 4


class LiveView:
    """Shows jobs as they are told of. It takes the progress bar's place while jobs are waited for."""

    def __init__(
        self,
        console: Console,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._now = now
        self._monotonic = monotonic
        # Replaced as a whole, because another thread draws it.
        self._scene = Scene(())
        self._live: Live | None = None

    def __call__(self, progress: Progress) -> None:
        """A step of the work: told in the last line until the next look."""
        self._scene = replace(self._scene, step=None if progress.step == "wait" else progress)
        self._draw()

    def begin(self, statuses: Iterable[JobStatus]) -> None:
        """Jobs as they are stored, before the first look: what that brings says nothing of their pace."""
        self._scene = Scene(tuple(statuses))
        self._draw()

    def seen(self, status: JobStatus) -> None:
        """A fresh look at one job."""
        scene = self._scene
        jobs = {job.id: job for job in scene.jobs} | {status.id: status}
        pace = scene.paces.get(status.id, Pace()).after(self._monotonic(), status.done)
        paces = {**scene.paces, status.id: pace}
        self._scene = replace(scene, jobs=tuple(jobs.values()), paces=paces, step=None)
        self._draw()

    def clear(self) -> None:
        """Take the view off the screen, so that text can be printed; the next look brings it back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def picture(self) -> RenderableType:
        """The view as it is at this moment."""
        from rich.text import Text

        width = min(self._console.width, WIDEST)
        window = Window(width, self._console.height, "-" if self._console.options.ascii_only else "━")
        lines = view_lines(replace(self._scene, now=self._now()), window)
        drawn = Text("\n").join(Text.assemble(*line) for line in lines)
        drawn.no_wrap, drawn.overflow = True, "crop"
        return drawn

    def _draw(self) -> None:
        if not self._scene.jobs:
            return
        if self._live is None:
            from rich.live import Live

            # Standard output carries data and must not be caught by the view's redirection.
            self._live = Live(
                get_renderable=self.picture,
                console=self._console,
                refresh_per_second=_DRAWN_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            # Drawn by its own thread alone: Ctrl-C, which reaches this one, cannot cut a picture in two.
            self._live.start()
