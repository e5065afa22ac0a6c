"""The recipes of docs/how-to/pipelines.md, and how their tests run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from running import RUN_SECONDS, CommandLine

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/pipelines.md").read_text()


def recipe(name: str) -> str:
    found = re.search(rf"<!-- run: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.S)
    assert found is not None, name
    return found[1]


def outcomes(path: Path) -> dict[str, str]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record["custom_id"]: record["outcome"] for record in records}


def run(
    line: CommandLine, *words: object, expect: int | None = 0, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program of this environment, in the test's folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        list(map(str, words)),
        cwd=line.folder,
        env=line.environment({"PATH": path, **(variables or {})}),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if expect is not None:
        assert ran.returncode == expect, ran.stdout[-5000:] + ran.stderr[-5000:]
    return ran
