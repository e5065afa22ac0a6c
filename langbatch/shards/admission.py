"""From a user's file to a stored job: validated, copied privately, cut into shards. Nothing is sent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from langbatch import failpoints, ids, targets
from langbatch.clock import Clock
from langbatch.config.resolving import target_warnings
from langbatch.errors import BatchStateError, BatchStorageError
from langbatch.folders import JobFolder
from langbatch.money.costs import Budget, nanos
from langbatch.providers import limits_for
from langbatch.publish import sync_folder
from langbatch.records import OnProgress, Target
from langbatch.requests.lines import SPOOLED_PREFIX
from langbatch.requests.validation import Intake, ModelRun, Rules, read_requests, refusal
from langbatch.reuse.parting import part, runs_of_sent
from langbatch.running import sent
from langbatch.running.space import require_room
from langbatch.shards.sharding import ShardPlan, plan_shards
from langbatch.shards.snapshot import REQUESTS, Snapshot, SnapshotWriter

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from langbatch.store.store import JobStore


NO_BUDGET: Final = Budget()


@dataclass(frozen=True, slots=True)
class Submission:
    """What `submit` did. `created` is False where the same bytes and target had a job already.

    `warnings` tell what looks wrong about the target, such as an api-version from before batch.
    """

    id: str
    created: bool
    intake: Intake
    warnings: tuple[str, ...] = ()


def plan(
    snapshot: Snapshot,
    where: Sequence[Target],
    max_requests: int | None,
    runs: Iterable[ModelRun] = (),
    model: str | None = None,
) -> tuple[list[ShardPlan], list[int]]:
    """The snapshot's shards, each of which fits every target, and the user's line number each begins at.

    `runs` are stretches of one model each (`split_by_model`): no shard reaches over a border, since a
    batch has one model.
    """
    stretches: list[tuple[int, int, str | None]]
    stretches = [(run.first, run.count, run.model) for run in runs] or [(0, snapshot.total, model)]
    plans: list[ShardPlan] = []
    byte_start = 0
    for first, count, named in stretches:
        cut = plan_shards(
            snapshot.lengths(first, count),
            max(targets.growth_bytes(target) for target in where),
            targets.common_limits([limits_for(target) for target in where]),
            max_requests=max_requests,
            preferred_bytes=targets.stated_quota_bytes(where),
            embedding_inputs=snapshot.inputs(first, count) if where[0].kind == "embeddings" else None,
        )
        for shard in cut:
            index = len(plans)
            plans.append(
                ShardPlan(
                    index, first + shard.first, shard.count, byte_start + shard.byte_start, shard.bytes, named
                )
            )
        byte_start += sum(shard.bytes for shard in cut)
    return plans, [snapshot.line_numbers(shard.first, 1)[0] for shard in plans]


def _refuse_lost_twin(store: JobStore, home: Path, making: Path) -> None:
    twin = sent.unknown_twin(home, making / REQUESTS, store.job_ids(), store.has_job)
    if twin is not None:
        raise BatchStateError(
            f"these requests were sent before, as {twin}, of which this database knows nothing",
            hint="`langbatch recover --from-remote` brings that job back; `--new` (`new=True`) pays again.",
            code="job_lost",
        )


def _shown_name(source: Path) -> str:
    """What the file is called from now on. No database takes names that are no UTF-8."""
    if source.name.startswith(SPOOLED_PREFIX):
        return "stdin.jsonl"
    return os.fsencode(source.name).decode(errors="backslashreplace")


def admit(
    store: JobStore,
    home: Path,
    clock: Clock,
    source: Path,
    target: Target,
    rules: Rules,
    *,
    others: tuple[Target, ...] = (),
    name: str | None = None,
    new: bool = False,
    draft: bool = False,
    dedupe: bool = False,
    cache: bool = False,
    max_requests_per_shard: int | None = None,
    job_id: str | None = None,
    budget: Budget = NO_BUDGET,
    on_progress: OnProgress | None = None,
    executor: Executor | None = None,
) -> Submission:
    """Store `source` as a job, or find the one that the same bytes on the same target made. A `budget` is
    the job's from now on; `SetupError` for one that could not be kept, and nothing is stored.

    `dedupe` and `cache` set apart what need not be sent; shards and budgets are of what is left.

    A `draft` has no shards until it is started, so that no `resume` sends it before. A crash before
    the job's row is written leaves only a folder that nothing points to.
    """
    from langbatch.shards.budgeting import bound_plans, change_budget, pricing_for, require_currency
    from langbatch.shards.earlier import find_earlier
    from langbatch.store.new_jobs import NewJob

    job_id = job_id or ids.new_job_id(clock.now())
    folder = JobFolder.of(home, job_id).path
    making = folder.with_name(f".new-{job_id}")
    try:
        if source.is_file():
            # The snapshot, and the payload of one shard while it is sent.
            require_room(home, 2 * source.stat().st_size, "the snapshot of this file")
        with SnapshotWriter(making) as writer:
            intake = read_requests(source, rules, into=writer, on_progress=on_progress, executor=executor)
        if intake.problems and not rules.skip_invalid:
            raise refusal(intake)
        written = writer.written
        assert written is not None
        # The deployment in the lines and the one given are the same thing, said in two places.
        meant = [replace(t, model=t.model or intake.model) for t in (target, *others)]
        reuse = targets.reuse_key(intake.sha256, *meant)
        if not new and (existing := store.job_for(reuse)) is not None:
            # Another api-version or path than at first: the one that did not work, or it would not be tried.
            store.update_settings(existing.key, targets.with_settings_of(existing.targets, meant))
            if budget.limits_anything:
                change_budget(store, home, existing, budget, on_progress)
            return Submission(existing.id, False, intake, target_warnings(target))
        if not new:
            _refuse_lost_twin(store, home, making)
        runs, answered = intake.model_runs(), 0
        if dedupe or cache:
            earlier = find_earlier(store, home, meant, on_progress=on_progress) if cache else None
            parted = part(making, meant, dedupe=dedupe, cache=earlier, on_progress=on_progress)
            if parted is not None:
                written, answered = parted.written, parted.counts.answered
                runs = runs_of_sent(making, runs)
                if not new:
                    _refuse_lost_twin(store, home, making)  # of which, too, only a part was sent
        snapshot = Snapshot(making)
        plans, first_lines = (
            ([], [])
            if draft
            else plan(snapshot, (target, *others), max_requests_per_shard, runs, intake.model)
        )
        currency = None
        if budget.limits_anything:
            where = (target, *others)
            pricing = pricing_for(store, home, where, intake.models)
            currency = require_currency(budget, where, intake.models, pricing)
            plans = bound_plans(snapshot, plans, where, budget, pricing, on_progress)
        with failpoints.around("rename"):
            making.rename(folder)
        sync_folder(folder.parent)  # the job's row must not outlive its folder in a power cut
        job, created = store.add_job(
            NewJob(
                id=job_id,
                name=name,
                input_name=_shown_name(source),
                target=target,
                input_sha256=intake.sha256,
                snapshot_sha256=written.sha256,
                reuse_key=reuse,
                total=intake.total,
                rejected=intake.rejected,
                shards=plans,
                first_lines=first_lines,
                others=others,
                max_tokens=budget.max_tokens,
                max_cost_nanos=None if budget.max_cost is None else nanos(budget.max_cost),
                currency=currency,
                answered=answered,
                draft=draft,
            ),
            replace_old=new,
        )
        if not created:  # another process stored the same bytes at the same moment
            shutil.rmtree(folder, ignore_errors=True)
            if budget.limits_anything:
                change_budget(store, home, job, budget, on_progress)
        return Submission(job.id, created, intake, target_warnings(target))
    except OSError as error:
        raise BatchStorageError(
            f"the snapshot could not be written: {error.strerror or error}",
            hint=f"Free space in {home} or make it writable, then submit again. Nothing was sent.",
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
