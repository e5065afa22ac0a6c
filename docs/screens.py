"""Draws `docs/screens/*.svg`: what `langbatch watch` and `langbatch demo` look like on a terminal.

Run it from anywhere: `python docs/screens.py`. It needs langbatch and nothing else; jobs go to an emulator.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from langbatch import JobManager, Progress
from langbatch.emulator import EmulatorConfig, Timing, running_server
from langbatch_cli import demo
from langbatch_cli.live import LiveView
from langbatch_cli.render import Line
from langbatch_cli.session import Session

FOLDER = Path(__file__).parent / "screens"
COLUMNS = 80
#: The picture is taken when so much of the job is done.
MOMENT = 0.6
#: Room for some of the job's shards at a time: the others wait for quota.
QUOTA_TOKENS = 12_000
TIMING = Timing("seconds", file_pending=0, validating=0.5, running=5, finalizing=0.5, cancelling=0)


def paper(height: int = 40) -> Console:
    """A terminal that keeps what is written on it."""
    return Console(
        record=True, width=COLUMNS, height=height, file=io.StringIO(), force_terminal=True, highlight=False
    )


def save(console: Console, folder: Path, name: str, command: str) -> None:
    picture = console.export_svg(title=f"$ {command}", unique_id=f"langbatch-{name}")
    # Who looks at the documentation is not made to fetch a font from elsewhere.
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    # Lines without spaces at their ends, as the project keeps its text.
    lines = (line.rstrip() for line in picture.splitlines())
    (folder / f"{name}.svg").write_text("\n".join(line for line in lines if line) + "\n")


class Camera(LiveView):
    """A live view that is not drawn but looked at."""

    def _draw(self) -> None:
        pass


def watch(into: Path) -> None:
    """A job of eight shards in the middle of its life."""
    console = paper()
    view, pictures = Camera(console), list[RenderableType]()
    config = EmulatorConfig(timing=TIMING, enqueued_token_limit=QUOTA_TOKENS)
    with (
        tempfile.TemporaryDirectory() as folder,
        demo.own_environment(),
        running_server(config=config) as server,
        JobManager(Path(folder, "home")) as manager,
    ):
        requests = Path(folder, "reviews.jsonl")
        lines = demo.sample_requests().splitlines(keepends=True)[:6]
        requests.write_text(
            "".join(
                line.replace('"custom_id": "', f'"custom_id": "{n}-') for n in range(100) for line in lines
            )
        )
        job = manager.submit(
            requests,
            "azure",
            name="nightly",
            azure_endpoint=server.azure_endpoint,
            api_key="any",
            deployment="gpt-batch",
            max_requests_per_shard=75,
        ).id

        def look(progress: Progress) -> None:
            if progress.step == "wait":
                status = manager.status(job, offline=True)
                view.seen(status)
                if status.done >= MOMENT * status.total and not pictures:
                    pictures.append(view.picture())

        manager.wait(job, progress=look)
    console.print(pictures[0])
    save(console, into, "watch", "langbatch watch job_01")


@dataclass
class Recorded(Session):
    """A session whose text for people is kept."""

    console: Console = field(default_factory=paper)

    @property
    def width(self) -> int:
        return COLUMNS

    def say(self, lines: Iterable[Line] | str) -> None:
        for line in [((lines, ""),)] if isinstance(lines, str) else lines:
            self.console.print(Text.assemble(*line), soft_wrap=True)


def demonstration(into: Path) -> None:
    """All that `langbatch demo` leaves on the screen."""
    session = Recorded()
    with demo.own_environment(), tempfile.TemporaryDirectory() as folder:
        session.home = Path(folder, "home")
        demo.show(session, Path(folder, "capitals.jsonl"))
    save(session.console, into, "demo", "langbatch demo")


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    FOLDER.mkdir(exist_ok=True)
    watch(FOLDER)
    demonstration(FOLDER)
