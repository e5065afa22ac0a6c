"""A million requests in one command, killed twice: `python benchmarks/million.py --report docs/million.md`.

A file of 2 GB goes through the real command line, over HTTP, to the emulator: two deployments whose quotas
hold three shards between them, one request in a hundred failing, one batch that expires half done. The
command is killed with SIGKILL twice and resumed. Then every request must have exactly one result, in input
order, and none may have been paid twice. Takes some minutes and 10 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from langbatch.emulator import Emulator, EmulatorConfig, RunningServer, Timing, running_server

_SENTENCES = (
    "The customer reports that the battery of the product drains after the latest screen update.",
    "Invoice and payment do not agree; a refund was requested within the delivery period.",
    "The server answers with a time-out whenever the database of the quarter's report is asked.",
    "Revenue grew by 4 %, the margin fell; the forecast names the contract's liability clause.",
    "The patient's symptoms began before the notice, the sensor and the valve were inspected.",
    "Coverage depends on the policy: driver, vehicle and estimate of the repair are needed.",
)
#: Of the input file; langbatch plans at most 95 % of 200 MiB a shard, and 100,000 requests.
LINE_BYTES = 2_000
SHARD_TOKENS = 200 * 1024 * 1024 * 95 // 100 // 4


def write_input(path: Path, lines: int) -> None:
    """Seeded chat requests of about two kilobytes each."""
    roll = random.Random(20261121)
    with path.open("w", buffering=1 << 20) as out:
        for number in range(lines):
            text = ""
            while len(text) < LINE_BYTES - 180:
                text += roll.choice(_SENTENCES) + " "
            body = {"model": "any", "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"task-{number}", "method": "POST", "url": "/chat/completions", "body": body}
            out.write(json.dumps(line) + "\n")


@dataclass
class Run:
    """What the whole came to."""

    lines: int
    input_bytes: int = 0
    seconds: float = 0.0
    peak_bytes: dict[str, int] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    shards: int = 0
    largest_shard: tuple[int, int] = (0, 0)
    batches: int = 0
    most_at_once: int = 0
    paid_twice: int = 0
    database_bytes: int = 0
    targets: Counter[str] = field(default_factory=Counter)


def command(
    run: Run, name: str, home: Path, *arguments: str, until: Callable[[], bool] | None = None
) -> tuple[int, str]:
    """Run the command line; its exit code and standard output. `until` says when it is killed."""
    environment = {
        **os.environ,
        "LANGBATCH_HOME": str(home),
        "LANGBATCH_POLL_SECONDS": "2",
        # A kill may hit a create: the service is on this machine, so what it made shows at once.
        "LANGBATCH_GRACE_SECONDS": "20",
        "EMULATED_KEY": "any",
    }
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "langbatch_cli", *arguments],
            stdout=out,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            try:
                lines = status.read_text().splitlines()
            except OSError:
                continue
            peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
            run.peak_bytes[name] = max(run.peak_bytes.get(name, 0), peak)
            if until is not None and until():
                process.send_signal(signal.SIGKILL)
                process.wait()
                run.killed.append(name)
                break
            time.sleep(0.05)
        out.seek(0)
        return process.returncode, out.read().strip()


def watch_quota(run: Run, server: RunningServer) -> int:
    """How many batches hold quota now; the most that ever did is kept."""
    batches = server.emulator.report()["batches"]
    live = sum(batch["status"] in ("validating", "in_progress", "finalizing") for batch in batches)
    run.most_at_once = max(run.most_at_once, live)
    return len(batches)


def results(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb", buffering=1 << 20) as file:
        for line in file:
            record = json.loads(line)
            yield record["custom_id"], record["outcome"]


def play(lines: int, folder: Path) -> Run:
    run = Run(lines)
    source, home = folder / "requests.jsonl", folder / "home"
    print("writing the input …", file=sys.stderr)
    write_input(source, lines)
    run.input_bytes = source.stat().st_size
    # Shards are smaller than the limits allow when the file is: the quota always holds three of them.
    shard_tokens = min(SHARD_TOKENS, run.input_bytes // 4 // 8)
    config = EmulatorConfig(
        timing=Timing("seconds", file_pending=0.3, validating=0.5, running=3, finalizing=0.3, cancelling=0.5),
        failure_rate=0.01,
        faults=("batch-expire=half@3",),
        enqueued_token_limits={"east": shard_tokens * 2 * 103 // 100, "west": shard_tokens * 103 // 100},
    )
    home.mkdir(mode=0o700)
    with (
        Emulator(config, folder=folder / "service") as emulator,
        running_server(emulator) as server,
    ):
        (home / "profiles.toml").write_text(
            "".join(
                f'[[two.targets]]\nazure_endpoint = "{server.url}"\ndeployment = "{name}"\n'
                'api_key_env = "EMULATED_KEY"\n'
                for name in ("east", "west")
            )
        )
        limit = ["--max-requests-per-shard", str(max(1, lines // 8))] if lines < 800_000 else []
        began = time.monotonic()
        print("submit, to be killed …", file=sys.stderr)
        _, job = command(
            run,
            "submit --wait",
            home,
            *("submit", str(source), "--profile", "two", "--wait", *limit),
            until=lambda: watch_quota(run, server) >= 2,
        )
        print("resume, to be killed …", file=sys.stderr)
        command(run, "resume --wait", home, "resume", "--wait", until=lambda: watch_quota(run, server) >= 5)
        print("resume …", file=sys.stderr)
        watching = lambda: watch_quota(run, server) < 0  # noqa: E731 - never, but it looks
        code, _ = command(run, "resume --wait", home, "resume", "--wait", until=watching)
        assert code == 4, f"resume ended with {code}"
        out = folder / "results.jsonl"
        code, _ = command(run, "fetch", home, "fetch", job, "-o", str(out))
        assert code == 4, f"fetch ended with {code}"
        run.seconds = time.monotonic() - began
        print("checking …", file=sys.stderr)
        for number, (custom_id, outcome) in enumerate(results(out)):
            assert custom_id == f"task-{number}", f"result {number} is {custom_id}'s"
            run.outcomes[outcome] += 1
        assert run.outcomes.total() == lines, run.outcomes
        payments = emulator.payments()
        run.paid_twice = payments.paid_twice
        report = emulator.report()
        run.batches = report["counts"]["batches"]
        _, text = command(run, "status", home, "status", job, "--json", "--offline")
        shards = json.loads(text)["shards"]
        run.shards = len(shards)
        run.targets = Counter(shard["target"].rpartition("/")[2] for shard in shards)
        sizes = [file["bytes"] for file in report["files"] if file["purpose"] == "batch"]
        run.largest_shard = max(shard["requests"] for shard in shards), max(sizes)
        run.database_bytes = sum(path.stat().st_size for path in home.glob("langbatch.db*"))
    return run


def page(run: Run, words: str) -> str:
    mb = 1_000_000
    peaks = "\n".join(f"| `{name}` | {peak / mb:.0f} MB |" for name, peak in run.peak_bytes.items())
    outcomes = ", ".join(f"{name} {count:,}" for name, count in sorted(run.outcomes.items()))
    targets = ", ".join(f"{name} {count}" for name, count in sorted(run.targets.items()))
    killed = " and ".join(f"`{name}`" for name in run.killed)
    largest = f"{run.largest_shard[0]:,} requests and {run.largest_shard[1] / mb:.0f} MB"
    return f"""# A million requests, killed twice

    {words}

{run.lines:,} requests ({run.input_bytes / mb:,.0f} MB) in one `langbatch submit --profile two --wait`, over
HTTP to the emulator; two deployments whose quotas hold three shards between them (langbatch was not told),
one request in a hundred failing, one batch expired half done. Killed with SIGKILL: {killed}; then
`resume --wait` and `fetch`.

| | |
|---|---|
| requests with exactly one result, in input order | {run.outcomes.total():,} ({outcomes}) |
| **paid twice** | **{run.paid_twice}** |
| shards | {run.shards} ({targets}), at most {largest} |
| batches made, most at once | {run.batches}, {run.most_at_once} |
| database afterwards | {run.database_bytes / mb:.2f} MB |
| from `submit` to the last byte of `fetch`, emulator included | {run.seconds:.0f} s |

| process | peak memory |
|---|---|
{peaks}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder")
    parser.add_argument("--report", type=Path, help="write the page there")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="langbatch-million-", dir=given.folder))
    try:
        run = play(given.lines, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    words = "python benchmarks/million.py"
    if given.lines != 1_000_000:
        words += f" --lines {given.lines}"
    text = page(run, words)
    if given.report is not None:
        given.report.write_text(text)
    print(text)
    assert run.paid_twice == 0
    assert max(run.peak_bytes.values()) < 150_000_000


if __name__ == "__main__":
    main()
