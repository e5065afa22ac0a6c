"""langbatch beside LangBatch and beside the machine's own floor, in one command.

`python benchmarks/run.py --report docs/benchmarks.md` makes the data, makes a virtual environment for
LangBatch, measures every row with all contenders by turns, and writes the page and its plot. Every figure
is a process of its own. Needs 10 GB of disk for the rows of a million lines; `--lines` makes all smaller.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from data import Files, write_files
from measure import Contender, measure, serve
from report import Aim, Page, Row, write_page

HERE = Path(__file__).parent
THEIRS = "langbatch==0.1.2"
MB = 1_000_000


class Bench:
    """What all rows share: data, interpreters, a folder for results."""

    def __init__(self, lines: int, runs: int, folder: Path, theirs: Path | None) -> None:
        self.lines = lines
        self.runs = runs
        self.folder = folder
        self._theirs = theirs
        self.work = folder / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def say(self, text: str) -> None:
        print(f"{text} …", file=sys.stderr, flush=True)

    def ours(self, *arguments: str | Path, runs: int | None = None) -> Contender:
        return self._contender(Path(sys.executable), "ours.py", arguments, runs or self.runs)

    def theirs(self, *arguments: str | Path) -> Contender:
        if self._theirs is None:
            self._theirs = self._environment()
        return self._contender(self._theirs, "theirs.py", arguments, max(1, self.runs // 2))

    def floor(self, *arguments: str | Path) -> Contender:
        return self._contender(Path(sys.executable), "floors.py", arguments, self.runs)

    def _contender(
        self, python: Path, script: str, arguments: tuple[str | Path, ...], runs: int
    ) -> Contender:
        # LangBatch keeps its files under HOME, and makes a folder there when it is imported.
        environment = {**os.environ, "HOME": str(self.work), "LANGBATCH_POLL_SECONDS": "0.2"}
        command = (str(python), str(HERE / script), *map(str, arguments))
        return Contender(command, environment, runs)

    def _environment(self) -> Path:
        self.say(f"making an environment with {THEIRS}")
        place = self.folder / "theirs"
        if not (place / "bin/python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            subprocess.run([str(place / "bin/pip"), "install", "-q", THEIRS], check=True)
        return place / "bin/python"


# ---------------------------------------------------------------- rows


def validating(bench: Bench, files: Files, kind: str, times: int) -> Row:
    bench.say(f"validating {kind} lines")
    ours, theirs = measure(
        bench.ours("validate", files.input, bench.work / "none"), bench.theirs("validate", files.input)
    )
    size = files.input.stat().st_size / MB
    name = f"validate {files.lines:,} {kind} lines, {size:.0f} MB"
    aims = [Aim(f"{times} × faster, all checks on, one core", theirs.best / ours.best, times, "at least")]
    if kind == "chat":
        aims.append(Aim("at most 60 MB", ours.peak / MB, 60, "at most"))
    return Row(name, ours, theirs, None, aims, f"validate {kind} lines")


def joining(bench: Bench, files: Files) -> Row:
    bench.say("joining")
    folder = snapshot_of(bench, files)
    out = bench.work / "joined"
    ours, theirs, floor = measure(
        bench.ours("join", folder, *patterns(files), out),
        bench.theirs("join", files.input, files.outputs[0], files.errors[0], bench.work / "theirs.jsonl"),
        bench.floor("copy", bench.work / "copied", *files.all()),
    )
    aims = [
        Aim("10 × faster", theirs.best / ours.best, 10, "at least"),
        Aim("3.5 × the time of copying the same bytes", ours.best / floor.best, 3.5, "at most"),
        Aim("at most 64 MB", ours.peak / MB, 64, "at most"),
    ]
    work = "join input, output and error files into ordered records"
    return Row(work, ours, theirs, floor, aims, "join into ordered records")


def transferring(bench: Bench, files: Files) -> list[Row]:
    """Through the emulator: 200 MB up and down, a whole job, and the requests to retry of that job."""
    bench.say("uploading and downloading")
    size = f"{files.input.stat().st_size / MB:.0f} MB"
    home = bench.work / "home"
    with serve(HERE / "service.py", "0.05") as urls:
        sdk, theirs = measure(
            bench.ours("transfer", files.input, urls["azure_endpoint"], bench.work / "down.jsonl"),
            bench.theirs("transfer", files.input, urls["openai"]),
        )
        bench.say("a whole job")
        (whole,) = measure(bench.ours("run_job", files.input, urls["azure_endpoint"], home, runs=1))
    up_and_down = f"upload and download {size} through the SDK (most of the time is the emulator's)"
    job, failed = str(whole.facts["job"]), int(str(whole.facts["records"]))
    bench.say("the requests to retry")
    retried, theirs_retried = measure(
        bench.ours("retry", home, job),
        bench.theirs("retry", files.input, files.outputs[0], files.errors[0]),
    )
    assert retried.facts["records"] == failed
    quicker = Aim("25 × faster", theirs_retried.best / retried.best, 25, "at least")
    return [
        Row(
            up_and_down,
            sdk,
            theirs,
            None,
            [Aim("at most 65 MB", sdk.peak / MB, 65, "at most")],
            "upload and download",
        ),
        Row(
            f"a whole job of {size} in one process: validate, send, wait, fetch, join",
            whole,
            None,
            None,
            [Aim("at most 120 MB", whole.peak / MB, 120, "at most")],
        ),
        Row(
            f"the requests to retry out of {failed:,} failures",
            retried,
            theirs_retried,
            None,
            [quicker],
            "the requests to retry",
        ),
    ]


def listing(bench: Bench, jobs: int) -> Row:
    bench.say(f"storing {jobs:,} jobs")
    home = bench.work / "jobs"
    home.mkdir(mode=0o700)
    measure(bench.ours("store_jobs", home, str(jobs), runs=1))
    bench.say("status --offline")
    python = sys.executable
    ours, floor = measure(
        Contender(
            (python, "-m", "langbatch_cli", "status", "--offline", "--home", str(home)), None, bench.runs
        ),
        Contender((python, "-c", "import sqlalchemy"), None, bench.runs),
    )
    aim = Aim("1.6 × the time of importing SQLAlchemy", ours.best / floor.best, 1.6, "at most")
    name = f"`langbatch status --offline`, {jobs:,} jobs stored (whole process)"
    return Row(name, ours, None, floor, [aim])


def growing(bench: Bench, small: Files, large: Files) -> list[Row]:
    times, more = large.lines // small.lines, large.lines - small.lines
    rows = []
    for name, make in (("validate", validation_of), ("join", joining_of)):
        bench.say(f"{name}, {large.lines:,} lines")
        few, many = measure(make(bench, small), make(bench, large))
        aims = [
            Aim(
                f"{times * 1.1:g} × the time of {small.lines:,}", many.best / few.best, times * 1.1, "at most"
            ),
            Aim("40 more bytes a request at peak", max(0.0, many.peak - few.peak) / more, 40, "at most"),
        ]
        rows.append(Row(f"{name} {large.lines:,} lines", many, None, few, aims))
    return rows


def validation_of(bench: Bench, files: Files) -> Contender:
    return bench.ours("validate", files.input, bench.work / "none", runs=max(2, bench.runs // 2))


def joining_of(bench: Bench, files: Files) -> Contender:
    return bench.ours(
        "join",
        snapshot_of(bench, files),
        *patterns(files),
        bench.work / "joined",
        runs=max(2, bench.runs // 2),
    )


def storing(bench: Bench) -> Row:
    bench.say("the database of 10,000,000 requests")
    (ours,) = measure(bench.ours("store_large_job", bench.work / "large", "10000000", "1", runs=1))
    size = int(str(ours.facts["bytes"])) / MB
    name = "the database of a job of 10,000,000 requests, 1 % of them without success"
    return Row(name, ours, None, None, [Aim("below 20 MB", size, 20, "at most")])


def snapshot_of(bench: Bench, files: Files) -> Path:
    folder = bench.work / f"snapshot-{files.lines}"
    if not folder.exists():
        measure(bench.ours("copy_privately", files.input, folder, runs=1))
    return folder


def patterns(files: Files) -> tuple[str, str]:
    return (
        str(files.outputs[0]).replace("output-0", "output-{}"),
        str(files.errors[0]).replace("error-0", "error-{}"),
    )


# ---------------------------------------------------------------- the command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=100_000, help="request lines; the table's is 100,000")
    parser.add_argument("--runs", type=int, default=5, help="of each measurement; LangBatch half as many")
    parser.add_argument("--jobs", type=int, default=10_000, help="stored for the measurement of status")
    parser.add_argument("--no-growth", action="store_true", help="leave out the rows of ten times the lines")
    parser.add_argument(
        "--folder", type=Path, help="for data and environments, used again; default: temporary"
    )
    parser.add_argument("--langbatch", type=Path, metavar="PYTHON", help="an interpreter that has LangBatch")
    parser.add_argument("--report", type=Path, help="write the page there, and its plot beside it")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="langbatch-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        bench = Bench(given.lines, given.runs, folder, given.langbatch)
        bench.say("making the data")
        chat = write_files(folder, "chat", given.lines)
        extract = write_files(folder, "extract", given.lines)
        rows = [
            validating(bench, chat, "chat", 10),
            validating(bench, extract, "extraction", 30),
            joining(bench, chat),
            *transferring(bench, chat),
            listing(bench, given.jobs),
            storing(bench),
        ]
        if not given.no_growth:
            bench.say("making ten times the data")
            rows += growing(bench, chat, write_files(folder, "chat", 10 * given.lines))
        words = "python benchmarks/run.py"
        for name in ("lines", "runs", "jobs"):
            if getattr(given, name) != parser.get_default(name):
                words += f" --{name} {getattr(given, name)}"
        write_page(Page(words, THEIRS, rows), given.report)
    finally:
        shutil.rmtree(folder / "work" if given.folder else folder, ignore_errors=True)


if __name__ == "__main__":
    main()
