"""From an ended batch, or from none at all, to one result per request."""

from __future__ import annotations

from langbatch import decisions as d
from langbatch.errors import RemoteNotFound
from langbatch.fetching import Harvester
from langbatch.lifecycle import Move
from langbatch.providers.base import Provider
from langbatch.records import Outcome, ShardEnd
from langbatch.step import CLEAR, Step, batch_facts


def harvest(step: Step, provider: Provider) -> None:
    """Fetch the batch's files, doubt them, join them, and end the shard."""
    attempt = step.attempt
    harvester = Harvester(step.home, step.store, step.on_progress)
    try:
        doubt = harvester.fetch(step.view, provider)
    except RemoteNotFound as error:
        if step.shard.troubles < d.HARVEST_TRIES:
            raise
        step.ask_operator("results_withheld", f"a result file is gone: {error.message}")
        return
    if doubt is not None and step.shard.troubles < d.HARVEST_TRIES:
        harvester.forget(step.view)
        assert attempt.batch_id is not None
        facts = batch_facts(provider.get_batch(attempt.batch_id))
        step.record(attempt={name: value for name, value in facts.items() if name.endswith("file_id")})
        step.set_back(d.Setback(f"the batch's files do not agree with its counts ({doubt})"))
        return
    if doubt == "no_output_file":
        step.ask_operator("results_withheld", "the batch reports finished rows but offers no output file")
        return
    report = harvester.join(step.view)
    end = d.end_of(attempt.batch_status, report.silent < report.tally.total)
    step.store.finish(
        step.claim,
        "harvesting",
        "harvested",
        shard={**CLEAR, "ended_as": end, "attention": attempt.fault_message if end == "refused" else None},
        attempt=step.ended("harvested"),
        tally=report.tally,
        usage=report.usage,
        rows_without_success=report.unsuccessful,
        note=f"{report.tally.succeeded} of {report.tally.total} succeeded",
    )


def settle(step: Step, move: Move, end: ShardEnd, code: str, message: str) -> None:
    """End a shard whose newest attempt had no batch; what earlier attempts brought stays."""
    outcome: Outcome = "cancelled" if end == "cancelled" else "errored"
    harvester = Harvester(step.home, step.store, step.on_progress)
    report = harvester.join(step.view, silence=(outcome, code, message))
    attempt = step.view.attempt
    facts = {}
    if attempt is not None and attempt.ended_at is None:
        ended = step.ended("cancelled_unsent" if end == "cancelled" else "refused")
        facts = {**ended, "fault_code": code, "fault_message": message}
    step.store.finish(
        step.claim,
        step.shard.state,
        move,
        shard={**CLEAR, "ended_as": end, "attention": None if end == "cancelled" else message},
        attempt=facts,
        tally=report.tally,
        usage=report.usage,
        rows_without_success=report.unsuccessful,
        note=code,
    )
