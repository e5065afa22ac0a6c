"""From an ended batch, or from none at all, to one result per request."""

from __future__ import annotations

from langbatch.errors import RemoteNotFound
from langbatch.lifecycle import Move
from langbatch.providers.base import Provider
from langbatch.records import Outcome, ShardEnd
from langbatch.running import decisions as d
from langbatch.running import spending
from langbatch.running.fetching import Harvester
from langbatch.running.step import CLEAR, Step, batch_facts


def harvest(step: Step, provider: Provider) -> None:
    """Fetch the batch's files, doubt them, join them, and end the shard."""
    attempt = step.attempt
    harvester = Harvester(step.home, step.store, step.on_progress, step.executor)
    try:
        doubt = harvester.fetch(step.view, provider)
    except RemoteNotFound as error:
        if _tried(step, "file_gone"):
            step.ask_operator("results_withheld", f"a result file is gone: {error.message}")
            return
        step.record(event="file_gone", note=error.code)
        raise
    if doubt is not None and not _tried(step, doubt):
        step.record(event=doubt, files=lambda: harvester.forget(step.view))
        assert attempt.batch_id is not None
        facts = batch_facts(provider.get_batch(attempt.batch_id))
        step.record(attempt={name: value for name, value in facts.items() if name.endswith("file_id")})
        step.set_back(d.Setback(f"the batch's files do not agree with its counts ({doubt})"))
        return
    if doubt in ("no_output_file", "no_error_file"):
        step.ask_operator("results_withheld", f"the batch reports rows but offers no file of them ({doubt})")
        return
    with harvester.joined(step.view) as (report, put_in_place):
        end = d.end_of(attempt.batch_status, report.silent < report.tally.total)
        attention = attempt.fault_message if end == "refused" else None
        used = spending.used_by_attempt(step, report)
        step.store.finish(
            step.claim,
            "harvesting",
            "harvested",
            shard={**CLEAR, "ended_as": end, "attention": attention},
            attempt={**step.ended("harvested"), **used.facts},
            tally=harvester.tally(step.view, report),
            usage=report.usage,
            rows_without_success=report.unsuccessful,
            files=put_in_place,
            paid=end != "refused",
            counts_agree=used.counts_agree,
        )


def _tried(step: Step, what: str) -> bool:
    """Whether the files have shown this fault often enough to be believed. Failed calls do not count: after
    an outage the first short body would otherwise be taken for all there is."""
    return step.store.times_since(step.claim, what, "batch_ended") >= d.HARVEST_TRIES


def settle(step: Step, move: Move, end: ShardEnd, code: str, message: str) -> None:
    """End a shard whose newest attempt had no batch; what earlier attempts brought stays."""
    outcome: Outcome = "cancelled" if end == "cancelled" else "errored"
    harvester = Harvester(step.home, step.store, step.on_progress, step.executor)
    attempt = step.view.attempt
    facts = {}
    if attempt is not None and attempt.ended_at is None:
        ended = step.ended("cancelled_unsent" if end == "cancelled" else "refused")
        facts = {**ended, "fault_code": code, "fault_message": message}
    with harvester.joined(step.view, silence=(outcome, code, message)) as (report, put_in_place):
        step.store.finish(
            step.claim,
            step.shard.state,
            move,
            shard={**CLEAR, "ended_as": end, "attention": None if end == "cancelled" else message},
            attempt=facts,
            tally=harvester.tally(step.view, report),
            usage=report.usage,
            rows_without_success=report.unsuccessful,
            note=code,
            files=put_in_place,
        )
