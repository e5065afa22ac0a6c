"""Promise 6: peak memory does not grow with the file. Whole processes, as the operating system counts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, running_server

LINES = {"small": 10_000, "large": 100_000}
LINE_BYTES = 2_000
MOST_MEGABYTES = 120
VALIDATE_MEGABYTES = 60
#: Starts the command given as its arguments and reports the largest resident size it ever had, in KiB.
MEASURE = (
    "import resource, subprocess, sys;"
    "done = subprocess.run([sys.executable, '-m', 'langbatch_cli', *sys.argv[1:]], stdout=subprocess.PIPE);"
    "assert done.returncode == 0, done.returncode;"
    "print(done.stdout.decode().strip());"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def write_requests(path: Path, lines: int) -> None:
    text = "The quick brown fox jumps over the lazy dog, émigrés and all. " * (LINE_BYTES // 64)
    with path.open("w", encoding="utf-8") as file:
        for number in range(lines):
            body = {"model": "dep", "messages": [{"role": "user", "content": f"{number} {text}"}]}
            request = {
                "custom_id": f"request-{number:08d}",
                "method": "POST",
                "url": "/chat/completions",
                "body": body,
            }
            file.write(json.dumps(request, ensure_ascii=False) + "\n")


def test_peak_memory_stays_flat_from_20_to_200_megabytes(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def megabytes(*arguments: str) -> tuple[str, float]:
        done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        *said, peak = done.stdout.splitlines()
        return "\n".join(said), int(peak) / 1024

    peaks: dict[str, dict[str, float]] = {}
    with running_server(config=EmulatorConfig.instant()) as server:
        monkeypatch.setenv("AZURE_API_KEY", "any")
        monkeypatch.setenv("AZURE_API_BASE", server.azure_endpoint)
        for size, lines in LINES.items():
            source = tmp_path / f"{size}.jsonl"
            write_requests(source, lines)
            peak = peaks[size] = {}
            _, peak["validate"] = megabytes("validate", str(source))
            job, peak["submit"] = megabytes("submit", str(source), "--provider", "azure")
            _, peak["resume"] = megabytes("resume", "--wait")
            out = tmp_path / f"{size}.results.jsonl"
            _, peak["fetch"] = megabytes("fetch", job, "-o", str(out), "--with-request")
            with out.open("rb") as file:
                assert sum(1 for _ in file) == lines
            source.unlink()
            out.unlink()
    assert max(peaks["large"].values()) < MOST_MEGABYTES, peaks
    assert peaks["large"]["validate"] < VALIDATE_MEGABYTES, peaks
    assert max(peaks["large"].values()) < 1.2 * max(peaks["small"].values()), peaks
