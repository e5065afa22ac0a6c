"""How much memory a piece of Python takes, as the operating system counts it."""

from __future__ import annotations

import subprocess
import sys

#: A process begins with its parent's peak, and a test run's is high: so a small one stands in between.
_BETWEEN = (
    "import resource, subprocess, sys;"
    "subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def peak_megabytes(script: str, *arguments: object) -> float:
    """The largest resident size of a process that runs `script`."""
    words = [sys.executable, "-c", _BETWEEN, script, *map(str, arguments)]
    return int(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1024
