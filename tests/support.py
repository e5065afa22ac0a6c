"""What several test folders build with: a clock of its own, an emulated service, files of requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langbatch import JobManager
from langbatch.emulator import Emulator, EmulatorConfig, ManualClock, routed

#: Searched for after whole runs: none of them may stand anywhere but in a job's own files.
SECRET_KEY = "canary-key-3f9b0d7c5a"
SECRET_PROMPT = "canary prompt: the blue heron lands at noon"


class VirtualClock:
    """Time for langbatch and the emulator alike; sleeping moves it."""

    def __init__(self, start: float = 1_760_000_000.0) -> None:
        self.emulated = ManualClock(start)

    def now(self) -> float:
        return self.emulated.now()

    def monotonic(self) -> float:
        return self.emulated.now()

    def sleep(self, seconds: float) -> None:
        self.emulated.advance(seconds)


def chat_line(
    custom_id: str, *, model: str | None = "dep", url: str = "/chat/completions", **body: Any
) -> str:
    """One request line as users write it."""
    content = {"messages": [{"role": "user", "content": f"{SECRET_PROMPT} {custom_id}"}], **body}
    if model is not None:
        content = {"model": model, **content}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": content})


def requests_file(path: Path, ids: Sequence[str], **options: Any) -> Path:
    path.write_text("".join(chat_line(custom_id, **options) + "\n" for custom_id in ids))
    return path


@dataclass(frozen=True)
class World:
    """One store and one emulated service under one clock."""

    home: Path
    clock: VirtualClock
    emulator: Emulator

    @property
    def azure(self) -> dict[str, Any]:
        return {
            "provider": "azure",
            "azure_endpoint": "https://res.openai.azure.com",
            "api_key": SECRET_KEY,
            "api_version": "2025-04-01-preview",
        }

    def manager(self) -> JobManager:
        """A fresh manager, as another process would make one."""
        return JobManager(self.home, clock=self.clock)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.emulator.report()["counts"]
        return counts


@contextmanager
def world(tmp_path: Path, **config: Any) -> Iterator[World]:
    """An emulated service inside this process; nothing can reach the network."""
    clock = VirtualClock()
    settings = EmulatorConfig.instant(**config)
    with (
        Emulator(settings, clock=clock.emulated, folder=tmp_path / "service") as emulator,
        routed(emulator),
    ):
        yield World(tmp_path / "home", clock, emulator)
