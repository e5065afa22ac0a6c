"""What every part of one emulator shares."""

from __future__ import annotations

from dataclasses import dataclass

from langbatch.emulator.clock import Clock
from langbatch.emulator.config import EmulatorConfig
from langbatch.emulator.faults import Fault, FaultBox
from langbatch.emulator.storage import Storage


@dataclass(frozen=True, slots=True)
class Context:
    config: EmulatorConfig
    storage: Storage
    clock: Clock
    faults: FaultBox

    def now(self) -> float:
        return self.clock.now()

    def elapsed(self, created_at: float, looks: int, now: float) -> float:
        """Time of an object as the timing counts it: seconds, or looks."""
        return float(looks) if self.config.timing.unit == "looks" else now - created_at

    def fires(self, *names: str) -> Fault | None:
        with self.storage.lock:
            return self.faults.fires(*names)

    def fires_for(self, verb: str, *, committed: bool) -> Fault | None:
        with self.storage.lock:
            return self.faults.fires_for(verb, committed=committed)
