"""`python -m simulation`: a campaign, its report, and a single seed played again with its trace."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from played_code import OtherCode
from simulation.campaign import Totals, play_seed, run
from simulation.kept import Kept
from simulation.report import write_report
from simulation.world import arena

PROGRAM = "PYTHONPATH=tests python -m simulation"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write the page here")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="go on with what FILE holds, and add to it")
    parser.add_argument("--replay", metavar="SEED", help="play one seed and print its trace")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        return replay(given.replay)

    def tell(totals: Totals) -> None:
        sys.stderr.write(f"\r{totals.seeds:,} of {given.seeds:,} seeds, {len(totals.failures)} failures ")

    try:
        kept = Kept(given.keep) if given.keep is not None else None
    except OtherCode as error:
        parser.error(str(error))
    totals, seconds = run(given.seeds, given.processes, first=given.first, on_done=tell, kept=kept)
    sys.stderr.write("\n")
    first = f" --first {given.first}" if given.first else ""
    command = f"{PROGRAM} --seeds {given.seeds}{first} --processes {given.processes}"
    page = write_report(totals, seconds, command)
    if given.report is not None:
        given.report.write_text(page)
    else:
        sys.stdout.write(page)
    complain(totals)
    return 0 if totals.passed else 1


def complain(totals: Totals) -> None:
    """What failed, and how to see it again; what never fired."""
    for text in totals.failures:
        sys.stderr.write(f"{text}\n")
    for seed in totals.failing_seeds:
        sys.stderr.write(f"plays it again, with its trace: {PROGRAM} --replay {seed}\n")
    if totals.missing():
        sys.stderr.write(f"never fired, so this run shows too little: {', '.join(totals.missing())}\n")


def replay(seed: str) -> int:
    with arena() as place:
        world, verdict = play_seed(seed, place)
    sys.stdout.write(world.log.tail(len(world.log.lines)) + "\n")
    for text in verdict.wrong:
        sys.stdout.write(f"WRONG: {text}\n")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
