"""The page that the measurements make, and its plot."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from measure import Measured

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be `at least` or `at most`."""

    words: str
    figure: float
    bound: float
    way: Literal["at least", "at most"]

    @property
    def met(self) -> bool:
        return self.figure >= self.bound if self.way == "at least" else self.figure <= self.bound

    def __str__(self) -> str:
        return f"{self.words}: **{self.figure:.3g}** {'✓' if self.met else '✗ missed'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work. `floor` is what ours is held against where that is not LangBatch; `short` names it
    in the plot."""

    work: str
    ours: Measured
    theirs: Measured | None
    floor: Measured | None
    aims: list[Aim]
    short: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    command: str
    package: str
    rows: list[Row]


def write_page(page: Page, path: Path | None) -> None:
    """Print the table; with a path, write it there, and its plot beside it."""
    table = _table(page)
    print(table)
    if path is None:
        return
    plot = path.with_suffix(".svg")
    _plot(page, plot)
    cores, load = os.cpu_count(), os.getloadavg()[1]
    path.write_text(
        f"""# Measured

    {page.command}

langbatch beside LangBatch (`{page.package}`) and beside the machine's own floor, by turns, on the same
files, in one run. Every figure is a process of its own: the best of its runs and, in brackets, their median,
without imports except where it says so; then the most memory it ever held. Data is made by
`benchmarks/data.py`, seeded.

{table}

![How many times faster, and how much less memory]({plot.name})

What LangBatch has no method for (a join in the input's order) is done with its public methods and the
fewest lines that its user must write. "Beside" is what ours is held against where that is not LangBatch:
copying the same bytes to the disk, importing SQLAlchemy, a tenth of the lines.

Measured with Python {platform.python_version()} on {platform.system()} {platform.machine()}, {cores} cores,
load average {load:.1f} at the end (above 1 by as much as the machine had other work to do meanwhile).
"""
    )
    print(f"wrote {path} and {plot}", file=sys.stderr)


def _table(page: Page) -> str:
    lines = ["| work | langbatch | LangBatch | beside | aim: found |", "|---|---|---|---|---|"]
    for row in page.rows:
        cells = (
            row.work,
            _cell(row.ours),
            _cell(row.theirs),
            _cell(row.floor),
            "<br>".join(map(str, row.aims)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return "–"
    if measured.failed is not None:
        return f"cannot: {measured.failed[:80]}"
    return f"{measured.best:.2f} s ({measured.median:.2f}), {measured.peak / MB:.0f} MB"


def _plot(page: Page, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "langbatch"
    rows = [row for row in page.rows if row.theirs is not None and row.theirs.failed is None]
    rows.reverse()
    names = [row.short for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.75 * len(rows) + 1.2), sharey=True)
    for axis, title, ours, theirs in (
        (left, "seconds", [r.ours.best for r in rows], [r.theirs.best for r in rows if r.theirs]),
        (
            right,
            "peak memory, MB",
            [r.ours.peak / MB for r in rows],
            [r.theirs.peak / MB for r in rows if r.theirs],
        ),
    ):
        places = range(len(rows))
        axis.barh([place - 0.2 for place in places], theirs, 0.38, color="#b0b7c3", label="LangBatch")
        axis.barh([place + 0.2 for place in places], ours, 0.38, color="#2f6fde", label="langbatch")
        for place, mine, other in zip(places, ours, theirs, strict=True):
            axis.text(other, place - 0.2, f" {_figure(other)}", va="center", fontsize=8)
            axis.text(mine, place + 0.2, f" {_figure(mine)} ({other / mine:.1f} ×)", va="center", fontsize=8)
        axis.set_xlabel(title)
        axis.margins(x=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_yticks(range(len(rows)), names, fontsize=9)
    left.legend(loc="lower right", frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
