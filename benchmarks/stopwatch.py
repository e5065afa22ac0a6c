"""What every measured process prints as its last line: the seconds of the work alone, imports left out.

Standard library only: it also runs beside other packages, in virtual environments of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stopwatch(**facts: object) -> Iterator[dict[str, object]]:
    """Time the block, and print its wall and CPU seconds with `facts`, which the block may add to."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield facts
    facts["seconds"] = time.perf_counter() - wall
    facts["cpu_seconds"] = time.process_time() - cpu
    print(json.dumps(facts))
