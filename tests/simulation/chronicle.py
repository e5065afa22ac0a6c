"""What happened in one seed, in order: the trace that a replay must repeat, and what reports count."""

from __future__ import annotations

import hashlib
from collections import Counter

from langbatch.records import Shard
from simulation.faults import FaultPlan
from simulation.stage import VirtualClock

ShardKey = tuple[int, int]


class Chronicle:
    """Lines of `time, who, what`. Shards are named by `(job, index)`."""

    def __init__(self, clock: VirtualClock, plan: FaultPlan) -> None:
        self.lines: list[tuple[float, str, str]] = []
        self.points: Counter[str] = Counter()
        #: Faults by the shard whose step they hit, with their time.
        self.faults: list[tuple[float, ShardKey, str]] = []
        self.crashes = 0
        self.freezes = 0
        self.operator_stops = 0
        #: Virtual seconds from the death of a shard's holder to the next claim.
        self.recoveries: list[float] = []
        self._orphaned: dict[ShardKey, float] = {}
        self._clock = clock
        self._plan = plan

    def note(self, who: str, what: str) -> None:
        self.lines.append((self._clock.now(), who, what))

    def passed(self, who: str, point: str) -> None:
        self.points[point] += 1
        self.lines.append((self._clock.now(), who, point))

    def call(self, who: str, text: str, holds: ShardKey | None) -> None:
        self.note(who, text)
        knob = text.split()[1]
        if holds is not None and knob != "-":
            self.faults.append((self._clock.now(), holds, knob))

    def died(self, holds: ShardKey | None) -> None:
        self.crashes += 1
        if holds is not None:
            now = self._clock.now()
            self.faults.append((now, holds, "crash"))
            self._orphaned.setdefault(holds, now)

    def froze(self, who: str, point: str, holds: ShardKey | None) -> None:
        self.freezes += 1
        self.note(who, f"freezes at {point}")
        if holds is not None:
            self.faults.append((self._clock.now(), holds, "freeze"))

    def claimed(self, shard: ShardKey, by_itself: bool) -> None:
        """`by_itself`: not by a person, who may have waited for what they know will come."""
        since = self._orphaned.pop(shard, None)
        if since is not None and by_itself:
            self.recoveries.append(self._clock.now() - since)

    def settles(self, who: str, shard: Shard, how: str) -> None:
        self.operator_stops += 1
        self.note(who, f"settles shard {shard.index}: {how} ({shard.attention})")

    def digest(self) -> str:
        """One word for the whole trace: equal for two plays of one seed."""
        return hashlib.sha256(repr(self.lines).encode()).hexdigest()

    def tail(self, count: int = 60) -> str:
        first = self.lines[0][0] if self.lines else 0.0
        return "\n".join(f"{at - first:10.2f} {who:10} {what}" for at, who, what in self.lines[-count:])
