"""Many running batches, quickly: the first shard of each job is really sent, the others are made like it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulator.calls import Caller
from langbatch import JobManager
from langbatch.emulator import Emulator, EmulatorConfig, Timing, routed
from langbatch.providers.credentials import Credentials
from support import SECRET_KEY, VirtualClock, World, requests_file

RUNNING_SECONDS = 50_000.0


@dataclass
class Ground:
    """One store, one emulated service, and one manager that polls once a minute."""

    here: World
    manager: JobManager
    folder: Path
    made: int = 0
    before: Counter[str] = field(default_factory=Counter)

    @property
    def emulator(self) -> Emulator:
        return self.here.emulator

    @property
    def caller(self) -> Caller:
        return Caller(self.emulator, "azure", self.here.azure["api_version"])

    @property
    def credentials(self) -> Credentials:
        """What the jobs here were submitted with."""
        return Credentials("key", api_key=SECRET_KEY)

    def live_job(self, shards: int, **target: Any) -> str:
        """A job whose shards, of one request each, all have a running batch that nobody has looked at yet."""
        self.made += 1
        ids = [f"j{self.made}-r{number}" for number in range(shards)]
        source = requests_file(self.folder / f"in-{self.made}.jsonl", ids)
        where = {**self.here.azure, **target}
        job_id = self.manager.submit(source, start=False, max_requests_per_shard=1, **where).id
        key = self.manager._store.find(job_id).key
        self.manager._runner().step(key, 0)
        lines = source.read_bytes().splitlines(keepends=True)
        self._like_the_first(key, [self._batch(line) for line in lines[1:]])
        self.new_calls()
        return job_id

    def _batch(self, line: bytes) -> tuple[str, str]:
        file_id = self.caller.ready_file(line)
        return file_id, self.foreign_batch(file_id)

    def foreign_batch(self, file_id: str) -> str:
        """A batch on this file that no job knows of."""
        asked = {"input_file_id": file_id, "endpoint": "/chat/completions", "completion_window": "24h"}
        return str(self.caller.call("POST", "/batches", value=asked).json()["id"])

    def _like_the_first(self, job: int, batches: list[tuple[str, str]]) -> None:
        with closing(sqlite3.connect(self.here.home / "langbatch.db")) as connection, connection:
            connection.row_factory = sqlite3.Row
            first = dict(connection.execute("SELECT * FROM attempts WHERE job = ?", (job,)).fetchone())
            for index, (file_id, batch_id) in enumerate(batches, 1):
                own = {"shard": index, "file_id": file_id, "batch_id": batch_id}
                row = {**first, **own, "name": f"{first['name']}-{index}"}
                marks = ", ".join("?" * len(row))
                names = ", ".join(f'"{name}"' for name in row)
                connection.execute(f"INSERT INTO attempts ({names}) VALUES ({marks})", tuple(row.values()))
            connection.execute(
                "UPDATE shards SET state = 'active', attempt = 1, due_at = "
                'first.due_at FROM shards AS first WHERE first.job = ?1 AND first."index" = 0 '
                'AND shards.job = ?1 AND shards."index" > 0',
                (job,),
            )

    def new_calls(self) -> dict[str, int]:
        """The calls that the service has had since this was last asked, by kind."""
        calls = Counter(self.emulator.report()["calls"])
        new, self.before = calls - self.before, calls
        return dict(new)

    def cycle(self, seconds: float = 61.0) -> dict[str, int]:
        """Let time pass and advance everything that is due; the calls that it took."""
        self.here.clock.sleep(seconds)
        self.new_calls()
        self.manager.advance()
        return self.new_calls()

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        """Of every shard with its newest attempt, in order."""
        query = (
            f'SELECT {columns} FROM shards s JOIN attempts a ON a.job = s.job AND a.shard = s."index" '
            'AND a.number = s.attempt ORDER BY s.job, s."index"'
        )
        return self._read(query)

    def first_attempts(self, columns: str) -> list[tuple[Any, ...]]:
        return self._read(f"SELECT {columns} FROM attempts WHERE number = 1 ORDER BY job, shard")

    def events(self, job: int) -> list[tuple[Any, ...]]:
        return self._read(f'SELECT move, shard, origin, "to", note FROM events WHERE job = {job} ORDER BY n')

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.here.home / "langbatch.db")) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def ground(tmp_path: Path, *, running_seconds: float = RUNNING_SECONDS, **config: Any) -> Iterator[Ground]:
    """Batches run for so long by the clock that tests move."""
    clock = VirtualClock()
    timing = Timing("seconds", 0, validating=10, running=running_seconds, finalizing=1, cancelling=1)
    settings = EmulatorConfig(timing=timing, files_limit=10_000, **config)
    with Emulator(settings, clock=clock.emulated) as emulator, routed(emulator):
        here = World(tmp_path / "home", clock, emulator)
        with here.manager() as manager:
            yield Ground(here, manager, tmp_path)
