"""`python -m simulation`: a campaign, its report, and a single seed played again with its trace."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simulation.campaign import Totals, play_seed, run
from simulation.report import write_report
from simulation.world import arena


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write the page here")
    parser.add_argument("--replay", metavar="SEED", help="play one seed and print its trace")
    given = parser.parse_args()
    if given.replay is not None:
        return replay(given.replay)

    def tell(totals: Totals) -> None:
        sys.stderr.write(f"\r{totals.seeds:,} of {given.seeds:,} seeds, {len(totals.failures)} failures ")

    totals, seconds = run(given.seeds, given.processes, first=given.first, on_done=tell)
    sys.stderr.write("\n")
    first = f" --first {given.first}" if given.first else ""
    command = (
        f"PYTHONPATH=tests python -m simulation --seeds {given.seeds}{first} --processes {given.processes}"
    )
    page = write_report(totals, seconds, command)
    if given.report is not None:
        given.report.write_text(page)
    else:
        sys.stdout.write(page)
    return 1 if totals.failures or totals.missing() else 0


def replay(seed: str) -> int:
    with arena() as place:
        world, _, wrong = play_seed(seed, place)
    sys.stdout.write(world.log.tail(len(world.log.lines)) + "\n")
    for text in wrong:
        sys.stdout.write(f"WRONG: {text}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
