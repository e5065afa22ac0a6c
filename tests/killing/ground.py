"""Where a campaign takes place: one home, one emulated service over HTTP, and processes that share them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from killing.lives import Life, Order, Program
from killing.processes import Child, Nursery
from langbatch.emulator import EmulatorConfig, RowError, RunningServer, running_server

#: Credentials of nobody; searched for in everything a process says.
KEY = "canary-key-58b0c1d9"
PROMPT = "canary prompt: the tide turns at dusk"

#: langbatch's own waits, in seconds. The grace is longer than any list lag of a campaign.
POLL_SECONDS = 0.02
GRACE_SECONDS = 0.4


def answer(_: dict[str, Any], custom_id: str) -> str | RowError:
    """What the service says to a request: something by which it can be told from all others."""
    return f"answer to {custom_id}"


@dataclass(frozen=True)
class Ground:
    """One home and one service. Processes start here with `run` and `start`."""

    folder: Path
    server: RunningServer
    nursery: Nursery
    program: Program = "langbatch"
    variables: dict[str, str] = field(default_factory=dict)
    #: What every process here gets beside its command and its orders.
    manners: Life = field(default_factory=lambda: Life(()))

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def life(self, *arguments: str, orders: Sequence[Order] = ()) -> Life:
        return replace(self.manners, arguments=arguments, orders=tuple(orders), program=self.program)

    def start(self, *arguments: str, orders: Sequence[Order] = ()) -> Child:
        return self.begin(self.life(*arguments, orders=orders))

    def run(self, *arguments: str, orders: Sequence[Order] = ()) -> Child:
        return self.nursery.ended(self.start(*arguments, orders=orders))

    def begin(self, life: Life) -> Child:
        return self.nursery.start(life, self.folder, self.surroundings())

    def surroundings(self) -> dict[str, str]:
        return {
            "LANGBATCH_HOME": str(self.home),
            "LANGBATCH_POLL_SECONDS": str(POLL_SECONDS),
            "LANGBATCH_GRACE_SECONDS": str(GRACE_SECONDS),
            "AZURE_API_BASE": self.server.azure_endpoint,
            "AZURE_API_KEY": KEY,
            "AZURE_API_VERSION": "2024-10-21",
            **self.variables,
        }

    def change(self, statement: str) -> None:
        """Tamper with the store, to see whether it is noticed."""
        with closing(sqlite3.connect(self.home / "langbatch.db")) as connection, connection:
            connection.execute(statement)

    def input_file(self, name: str, ids: Sequence[str]) -> Path:
        path = self.folder / name
        path.write_text("".join(map(request_line, ids)))
        return path

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the store holds, read from outside; nothing where there is no store yet."""
        path = self.home / "langbatch.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path, timeout=30.0)) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise


def request_line(custom_id: str) -> str:
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": f"{PROMPT} ({custom_id})"}]}
    request = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request) + "\n"


@contextmanager
def ground(
    folder: Path,
    nursery: Nursery,
    *,
    faults: Sequence[str] = (),
    seed: int = 0,
    program: Program = "langbatch",
    manners: Life | None = None,
    **variables: str,
) -> Iterator[Ground]:
    """A fresh home and service in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = EmulatorConfig.instant(faults=tuple(faults), seed=seed, answer=answer)
    with running_server(config=config) as server:
        yield Ground(folder, server, nursery, program, variables, manners or Life(()))
