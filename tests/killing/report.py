"""The one page that a campaign leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from killing.audit import Audit
from killing.campaign import PAIRS_SCENARIO, Extent, Findings
from killing.enumerated import BY_NAME, Scenario, Tally, failpoints_of_the_product
from killing.pairs import unordered


def report(found: Findings, extent: Extent, command: str) -> str:
    """Markdown. Numbers only: no paths, no ids, nothing of the machine it ran on."""
    alone = Counter[str]()
    hits = Counter[str]()
    audits = Audit()
    for tally in (*found.alone.values(), found.pairs):
        alone += tally.kills
        hits += tally.hits
        audits += tally.audit
    audits += found.disturbances.audit
    audits += found.storms.audit
    hits += found.storms.hits
    storms = found.storms
    points = failpoints_of_the_product()
    wanted = unordered(points)
    missed = found.pairs_missed()
    pairs_seen = len(wanted) - len(missed)
    kills = alone.total() + storms.kills.total()
    return "\n".join(
        [
            "# Killed everywhere: the newest campaign",
            "",
            "Real processes of the real command line (SQLite, files, the openai SDK over HTTP to the emulator),",
            "really killed. What each death must lead to is in `docs/design.md`; how it is done in `tests/killing/`.",
            "",
            f"    {command}",
            "",
            f"Seed {extent.seed}. {sum(found.seconds.values()) / 60:.0f} minutes: "
            + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.seconds.items())
            + ".",
            "",
            "| promise | seen |",
            "|---|---|",
            f"| **paid twice** | **{audits.paid_twice}** |",
            f"| **ids lost** (batches of the service that no store knows) | **{audits.ids_lost}** |",
            f"| **rows lost** | **{audits.rows_lost}** |",
            f"| **rows doubled**, out of order or another's | **{audits.rows_doubled}** |",
            "",
            f"Over {kills} SIGKILLs, {storms.stops} SIGSTOPs, {audits.jobs} jobs, {audits.shards} shards, "
            f"{audits.requests} requests and {audits.batches} batches. Every job ended once it was left alone; no "
            "process that ended by itself showed a traceback, a prompt or a key, or another than a documented "
            "exit code.",
            "",
            "## Every failpoint, alone",
            "A fresh store and service, killed at the first hit, then resumed; another one killed at the second hit, and so",
            "on, until one is no longer killed. In “lost replies” and “lost requests” the service, in “recover” the home",
            "is lost.",
            "",
            "| scenario | command killed | courses | SIGKILLs | batches | orphan files |",
            "|---|---|---|---|---|---|",
            *(_row(BY_NAME[name], tally) for name, tally in found.alone.items()),
            "",
            "## Pairs",
            f"{found.pairs_tried} ordered pairs of failpoints, each in a fresh store: all pairs of those that scenario "
            f"“{PAIRS_SCENARIO}” reaches, at hits drawn by the seed, and both sides of a cancel with every failpoint, in a "
            f"job that is cancelled on its way. {found.pairs.runs} courses, {found.pairs.kills.total()} SIGKILLs, "
            f"{found.pairs.audit.batches} batches. {pairs_seen} of all {len(wanted)} unordered pairs of the product's "
            f"{len(points)} failpoints (each with itself too) killed two processes of one job. Not met: "
            f"{_some(missed)}.",
            "",
            "## Disks and locks",
            "| disturbance | tried | met by the process |",
            "|---|---|---|",
            *(
                f"| {kind} | {tried} | {found.disturbances.met[kind]} |"
                for kind, tried in sorted(found.disturbances.tried.items())
            ),
            "",
            "A process that met it ended with exit code 5 and said what to do (power cuts: was killed); then `resume "
            "--wait` finished.",
            "",
            "## Storms",
            f"{found.storms_run} stores, three processes `resume --wait` and one `submit` on each, leases of 1 s, "
            f"{len(found.storms.audit.faults)} kinds of faults, kills and freezes (longer than the lease) at random "
            f"moments and random failpoints: {storms.audit.shards} shards in {storms.audit.jobs} jobs, "
            f"{storms.kills.total()} SIGKILLs ({storms.kills['at any moment']} of them by the driver at any moment), "
            f"{storms.stops} SIGSTOPs, {storms.audit.batches} batches, {storms.audit.operator_stops} operator stops "
            f"(settled by a truthful operator), {storms.audit.orphan_files} orphan files.",
            "",
            f"Exit codes of processes (-9 is SIGKILL): {_counts(storms.codes)}.",
            "",
            f"Faults fired: {_counts(storms.audit.faults)}.",
            "",
            f"Moves recorded: {_counts(storms.audit.moves)}.",
            "",
            "## Recovery",
            "Seconds from a kill to the next step recorded for a shard that the killed process held (storms: by "
            "whoever took it over; alone and pairs: with the start of the next process in it).",
            "",
            "| | kills followed | median | 99 % | longest |",
            "|---|---|---|---|---|",
            _times("alone and pairs", [*found.pairs.recoveries, *(s for t in found.alone.values() for s in t.recoveries)]),
            _times("storms", storms.recoveries),
            "",
            "## The harness can fail",
            f"- A naive client (SDK defaults, ids noted after the reply), {found.naive.kills.total()} SIGKILLs at random "
            f"failpoints, no fault at all: {found.naive.paid_twice} of {found.naive.requests} requests paid twice.",
            f"- langbatch without its fence, frozen before {found.unfenced.stops} creates, no fault at all: "
            f"{found.unfenced.paid_twice} of {found.unfenced.requests} requests paid twice.",
            "",
            "## Failpoints",
            "Faults that never fired and failpoints at which nobody was killed: "
            f"{', '.join(found.never_happened()) or 'none'}.",
            "",
            "| failpoint | hits | SIGKILLs at it |",
            "|---|---|---|",
            *(f"| {name} | {count} | {alone[name] + storms.kills[name]} |" for name, count in sorted(hits.items())),
            "",
        ]
    )  # fmt: skip


def _row(scenario: Scenario, tally: Tally) -> str:
    return (
        f"| {scenario.name} | `{scenario.victim[0]}` | {tally.runs} | {tally.kills.total()} "
        f"| {tally.audit.batches} | {tally.audit.orphan_files} |"
    )


def _counts(counter: Counter[str] | Counter[int]) -> str:
    return ", ".join(
        f"{name} {count}" for name, count in sorted(counter.items(), key=lambda item: str(item[0]))
    )


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def _times(name: str, seconds: Sequence[float]) -> str:
    if not seconds:
        return f"| {name} | 0 | – | – | – |"
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"| {name} | {len(ordered)} | {median(ordered):.2f} | {p99:.2f} | {ordered[-1]:.2f} |"
