"""With the real Prefect, which is large: `make recipes` installs it beside langbatch and runs this."""

from __future__ import annotations

import sys

from langbatch.emulator import RunningServer
from pipelines.recipes import recipe, run
from running import CommandLine
from support import requests_file


def test_prefect_runs_the_flow(line: CommandLine, langbatch_emulator: RunningServer) -> None:
    (line.folder / "nightly.py").write_text(recipe("a Prefect flow"))
    files = [requests_file(line.folder / f"{name}.jsonl", [f"{name}1", f"{name}2"]) for name in "ab"]
    settings = {
        "PREFECT_HOME": str(line.folder / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        "DO_NOT_TRACK": "1",
    }
    ran = run(line, sys.executable, "nightly.py", *files, variables=settings)
    assert ran.stdout == "4\n"
    assert langbatch_emulator.emulator.report()["counts"]["batches"] == 2
