"""Draws `docs/screens/*.svg`, what langbatch looks like on a terminal: `make pictures`.

It needs langbatch and nothing else; jobs go to an emulator.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from langbatch import JobManager, Progress
from langbatch.emulator import EmulatorConfig, RowError, RunningServer, Timing, running_server
from langbatch_cli import demo
from langbatch_cli.app import app
from langbatch_cli.failures import report
from langbatch_cli.live import LiveView
from langbatch_cli.render import Line
from langbatch_cli.session import Session

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "screens"
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
    """A session whose text for people is kept, without the names of the folders it was made in."""

    console: Console = field(default_factory=paper)
    #: What is shown in a folder's place.
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return COLUMNS

    def say(self, lines: Iterable[Line] | str) -> None:
        for line in [((lines, ""),)] if isinstance(lines, str) else lines:
            parts = [(self._placed(text), style) for text, style in line]
            self.console.print(Text.assemble(*parts), soft_wrap=True)

    def _placed(self, text: str) -> str:
        for folder, shown in self.places.items():
            text = text.replace(folder, shown)
        return text


def demonstration(into: Path) -> None:
    """All that `langbatch demo` leaves on the screen."""
    session = Recorded()
    with demo.own_environment(), tempfile.TemporaryDirectory() as folder:
        session.home = Path(folder, "home")
        demo.show(session, Path(folder, "capitals.jsonl"))
    save(session.console, into, "demo", "langbatch demo")


def answer(_: dict[str, Any], custom_id: str) -> str | RowError:
    if custom_id == "atlantis":
        return RowError(400, "content_filter", "The prompt was filtered.")
    return "It is well known."


@contextmanager
def ground(**config: Any) -> Iterator[RunningServer]:
    """A folder and a home of its own, and an emulator that the environment points at."""
    before = Path.cwd()
    with (
        tempfile.TemporaryDirectory() as folder,
        demo.own_environment(),
        running_server(config=EmulatorConfig.instant(answer=answer, **config)) as server,
    ):
        os.environ |= {
            # Whoever draws this may have a store where langbatch usually has its own.
            "XDG_DATA_HOME": str(Path(folder, "share")),
            "LANGBATCH_HOME": str(Path(folder, "home")),
            "AZURE_API_BASE": server.azure_endpoint,
            "AZURE_API_KEY": "any",
        }
        os.chdir(folder)
        try:
            yield server
        finally:
            os.chdir(before)


def command(into: Path, *words: str, shown: str = "", name: str = "") -> None:
    """What a command leaves on the screen. `shown`: what the picture's title says instead of its words."""
    session = Recorded(places={str(Path.cwd()): "/home/you/batches"})
    try:
        typer.main.get_command(app).main(args=list(words), obj=session, standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - as the command line itself does: told, whatever it is
        report(session, error, words[0])
    save(session.console, into, name or words[0], shown or " ".join(("langbatch", *words)))


def validate(into: Path) -> None:
    """A file with faulty lines."""
    with ground():
        shutil.copy(ROOT / "sample_batches" / "invalid_lines.jsonl", "requests.jsonl")
        command(into, "validate", "requests.jsonl")


def status(into: Path) -> None:
    """A job that has ended, with a failure."""
    with ground(), JobManager() as manager:
        Path("capitals.jsonl").write_text(demo.sample_requests())
        job = manager.submit("capitals.jsonl", name="nightly", deployment="gpt-batch").id
        manager.wait(job)
        command(into, "status", job, shown="langbatch status job_01")


def doctor(into: Path) -> None:
    """An api-version from before batch, and a key that the service does not take."""
    with ground(api_key="another"):
        command(into, "doctor", "--api-version", "2023-05-15", shown="langbatch doctor")


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    FOLDER.mkdir(exist_ok=True)
    for draw in (watch, demonstration, validate, status, doctor):
        draw(FOLDER)
