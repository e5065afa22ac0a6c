"""`python -m killing --kills 500 --stops 50 --shards 1000 --report docs/campaign-killing.md`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from killing.campaign import Extent, Findings, campaign
from killing.kept import load, save
from killing.report import report
from played_code import OtherCode


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m killing", description="Kill langbatch everywhere.")
    parser.add_argument("--kills", type=int, default=500, help="SIGKILLs in storms, at least")
    parser.add_argument("--stops", type=int, default=50, help="SIGSTOPs in storms, at least")
    parser.add_argument("--shards", type=int, default=1000, help="shards in storms, at least")
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th enumerated kill")
    parser.add_argument("--pairs", type=int, help="so many pairs, drawn by the seed; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side-by-side", type=int, default=2, help="enumerated runs at the same time")
    parser.add_argument("--keep", type=Path, help="keep there what was found, and go on with it next time")
    parser.add_argument("--report", type=Path, help="write the report there")
    given = parser.parse_args(arguments)
    extent = Extent(
        given.kills, given.stops, given.shards, given.every, given.pairs, given.seed, given.side_by_side
    )
    try:
        found = Findings() if given.keep is None else load(given.keep, extent)
    except OtherCode as error:
        parser.error(str(error))

    def keep(found: Findings) -> None:
        if given.keep is not None:
            save(given.keep, extent, found)

    with TemporaryDirectory(prefix="langbatch-killing-") as folder:
        found = campaign(Path(folder), extent, lambda text: print(text, flush=True), found, keep)
    # What is kept besides says nothing about what was done.
    said = argparse.ArgumentParser(add_help=False)
    said.add_argument("--keep")
    words = ["python", "-m", "killing", *said.parse_known_args(arguments)[1]]
    text = report(found, extent, f"PYTHONPATH=tests {shlex.join(words)}")
    if given.report is not None:
        given.report.write_text(text)
    else:
        print(text)
    idle = [*found.never_happened(), *found.pairs_missed()]
    if idle and extent.complete:
        print(f"never happened: {', '.join(idle)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
