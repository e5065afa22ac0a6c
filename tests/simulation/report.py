"""The one page that a campaign leaves behind."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from langbatch.lifecycle import MOVES
from simulation.campaign import Totals
from simulation.faults import KNOBS
from simulation.world import LIVENESS_SECONDS

_DAY = 86_400.0


def write_report(totals: Totals, seconds: float, command: str, today: datetime | None = None) -> str:
    """Markdown. `command` makes it again."""
    day = (today or datetime.now(UTC)).date()
    zeros = (
        f"**paid twice {totals.paid_twice}, ids lost {totals.ids_lost}, rows lost {totals.rows_lost}, "
        f"rows doubled {totals.rows_doubled}**, never ended {totals.unended}, otherwise wrong {totals.others}"
    )
    lines = [
        "# Simulation campaign",
        "",
        f"{totals.seeds:,} seeds: {zeros}.",
        "",
        f"Made on {day} by `{command}`, in {seconds:,.0f} s ({60 * totals.seeds / seconds:,.0f} seeds a minute). "
        "A seed draws jobs, processes, people and faults; the core is the real one, on a real SQLite database "
        "and real files, and the service and the clock are simulated (`tests/simulation`). A seed replays "
        f"exactly (`--replay SEED`). Jobs that had not ended {LIVENESS_SECONDS / _DAY:.0f} days after their "
        f"last fault: {totals.unended}.",
        "",
        "| | |",
        "|---|---:|",
        f"| shards, requests | {totals.shards:,}, {totals.requests:,} |",
        f"| uploads, batches created, rows run | {totals.uploads:,}, {totals.batches:,}, {totals.rows_run:,} |",
        f"| processes killed, frozen | {totals.crashes:,}, {totals.freezes:,} |",
        f"| late creates refused at the fence | {totals.late_creates_refused:,} |",
        f"| shards settled by the operator | {totals.operator_stops:,} |",
        f"| input files left over (for `gc`; they cost nothing) | {totals.orphan_files:,} |",
        f"| simulated time | {totals.virtual_seconds / _DAY:,.0f} days |",
        f"| from a death to the next worker's claim of the shard; others may be frozen (median, p99, max) | {_recovery(totals.recoveries)} |",
        "",
        "## Faults that fired",
        "",
        "| where | how often |",
        "|---|---|",
        *(f"| {moment} | {_each(totals.fired, knobs)} |" for moment, knobs in KNOBS.items()),
        "",
        "## Moves, and the faults that had hit the shard since its move before",
        "",
        "| move | made | after faults of | most often |",
        "|---|---:|---:|---|",
        *(_move(totals, move) for move in MOVES),
        "",
        "## Failpoints passed",
        "",
        ", ".join(f"{name} {count:,}" for name, count in sorted(totals.points.items())) + ".",
    ]
    if totals.missing():
        lines += ["", f"**Never fired: {', '.join(totals.missing())}.**"]
    if totals.failures:
        lines += ["", "## Failures", "", *(f"- {text}" for text in totals.failures)]
        lines += ["", f"`--replay {totals.failing_seeds[0]}` plays the first of them again, with its trace."]
    return "\n".join(lines) + "\n"


def _recovery(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{ordered[len(ordered) // 2]:,.0f} s, {p99:,.0f} s, {ordered[-1]:,.0f} s"


def _each(fired: Counter[str], knobs: tuple[str, ...]) -> str:
    return ", ".join(f"{knob} {fired[knob]:,}" for knob in knobs)


def _move(totals: Totals, move: str) -> str:
    after = Counter({knob: count for (name, knob), count in totals.moves_after.items() if name == move})
    often = ", ".join(f"{knob} {count:,}" for knob, count in after.most_common(3))
    return f"| {move} | {totals.moves[move]:,} | {len(after)} kinds | {often} |"
