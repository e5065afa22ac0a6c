"""From an uploaded file to exactly one batch: the create, and what follows when its fate is unknown."""

from __future__ import annotations

from collections.abc import Sequence

from langbatch.errors import (
    AccessRefused,
    BatchStorageError,
    ProviderError,
    Refused,
    RemoteNotFound,
    Throttled,
    Unreachable,
)
from langbatch.lifecycle import Move
from langbatch.providers.base import Provider
from langbatch.records import RemoteBatch, ShardView
from langbatch.running import decisions as d
from langbatch.running import journal, placing
from langbatch.running.harvesting import settle
from langbatch.running.reconcile import BatchSearch, search_batches
from langbatch.running.step import CLEAR, Step, batch_facts
from langbatch.store.commitments import OverBudget
from langbatch.store.reservations import NoRoom
from langbatch.targets import mark

TAG = "langbatch_tag"
#: The marks of all the job's targets, in their order, and this batch's place among them.
TARGETS = "langbatch_targets"
PLACE = "langbatch_place"
#: There where the job has a budget.
BUDGET = "langbatch_budget"
_LONGEST_VALUE = 512


def tags(store_id: str, name: str, view: ShardView | None = None) -> dict[str, str]:
    """A batch's metadata: at most 16 pairs of strings, values up to 512 characters (wire reference, 3).

    With the shard's `view` it tells a recovery which other places have to be looked at."""
    pairs = {TAG: name, "langbatch_store": store_id}
    if view is None:
        return pairs
    marks = " ".join(mark(target) for target in view.job.targets)
    if len(marks) <= _LONGEST_VALUE:
        pairs |= {TARGETS: marks, PLACE: str(view.place)}
    if view.job.has_budget:
        pairs[BUDGET] = "yes"
    return pairs


def create(step: Step, provider: Provider) -> None:
    """Commit the intent, create, commit the batch's id. The one call that costs money."""
    file_id = step.attempt.file_id
    assert file_id is not None
    if _try_elsewhere(step, provider):
        return
    try:
        step.move("create_begins", attempt={"create_intent_at": step.clock.now()}, note=file_id)
    except NoRoom:
        placing.wait_for_room(step, provider)
        return
    except OverBudget as over:
        placing.wait_for_budget(step, over)
        return
    step = step.again()
    try:
        batch = provider.create_batch(file_id, tags(step.store.store_id, step.attempt.name, step.view))
    except ProviderError as error:
        setback = d.after_create_error(error)
        held_until = placing.learn(step, error)
        if setback.move == "create_refused":
            settle(step, "create_refused", "refused", setback.code or "refused", setback.attention)
        elif setback.move == "create_fate_unknown":
            doubt(step, setback)
        else:
            step.set_back(setback, due_at=held_until)
            _try_elsewhere(step.again(), provider)
        return
    try:
        _adopt(step, "create_answered", batch)
    except BatchStorageError:
        shard, attempt = step.shard, step.attempt
        journal.append(step.home, job=shard.job, shard=shard.index, attempt=attempt.number, batch_id=batch.id)
        raise


def _try_elsewhere(step: Step, provider: Provider) -> bool:
    """Let another target have the shard, where this one has no room or takes no calls."""
    if len(step.view.job.targets) == 1 or not placing.better_elsewhere(step):
        return False
    placing.move_away(step, provider)
    return True


def doubt(step: Step, setback: d.Setback | None = None) -> None:
    """Say that a batch may exist. The first look follows at once: most lost replies left one."""
    why = setback.attention if setback else "the process that was creating the batch died"
    step.move(
        "create_fate_unknown",
        shard={**CLEAR, "waits_for": "fate", "attention": f"looking whether the batch was created ({why})"},
        attempt={"fate_unknown_at": step.clock.now()},
        note=setback.code if setback else "crash",
    )


def look(step: Step, provider: Provider) -> None:
    """List batches for the attempt's input file: adopt what is there, or decide what absence means."""
    attempt, now = step.attempt, step.clock.now()
    found: tuple[RemoteBatch, ...] = ()
    complete = False
    try:
        search = _search(step, provider)
        found, complete = search.found, search.complete
    except (AccessRefused, Throttled, Unreachable):
        raise  # our trouble, or a moment's: it tells nothing about the service's list
    except ProviderError:
        # One failed look after a long pause (a laptop that slept) is not yet a list that cannot be read.
        patient = step.shard.troubles < d.HARVEST_TRIES
        if patient or d.judge_absence(step.view, False, now, step.policy) != "unsettled":
            raise
    if found:
        _adopt_one_of(step, provider, found)
        return
    match d.judge_absence(step.view, complete, now, step.policy):
        case "fence":
            step.move("fence_begins", shard={"due_at": 0.0}, note=attempt.file_id)
        case "ruled_out":
            ended = step.ended("no_batch")
            step.move("batch_ruled_out", shard=CLEAR, attempt=ended, note=attempt.file_id)
        case "unfenced":
            reason = "no batch is listed, but on this endpoint (see `langbatch doctor`) that proves nothing"
            step.ask_operator("unsettled", reason)
        case "unsettled":
            step.ask_operator("unsettled", "the list of batches cannot be read to its end")
        case "look_again":
            grace = step.policy.grace_seconds
            due = now + min(step.policy.poll_seconds, max(step.policy.settle_seconds, grace / 20))
            step.record(shard={"due_at": due, "troubles": 0, "blocker": None, "waits_for": "fate"})


def _search(step: Step, provider: Provider) -> BatchSearch:
    """Batches on the attempt's file, or with its tag where the service hides the file."""
    attempt, now = step.attempt, step.clock.now()

    def ours(batch: RemoteBatch) -> bool:
        if batch.input_file_id is not None:
            return batch.input_file_id == attempt.file_id
        return batch.metadata is not None and batch.metadata.get(TAG) == attempt.name

    return search_batches(provider.list_batches, ours, attempt.create_intent_at or now, now)


def _adopt_one_of(step: Step, provider: Provider, found: Sequence[RemoteBatch]) -> None:
    chosen, others = d.choose_batch(found)
    _adopt(step, "batch_found", chosen)
    for other in others:
        _cancel_extra(step, provider, other)


def fence(step: Step, provider: Provider) -> None:
    """Delete the input file, so that a create still under way must fail when it arrives."""
    file_id = step.attempt.file_id
    assert file_id is not None
    try:
        provider.delete_file(file_id)
    except RemoteNotFound:
        pass  # gone already
    except Refused as error:
        # Perhaps because a batch uses it: one more look before a person is asked.
        if found := _search(step, provider).found:
            _adopt_one_of(step, provider, found)
        else:
            step.ask_operator("unsettled", f"the input file cannot be deleted: {error.message}")
        return
    now = step.clock.now()
    shard = {"due_at": now, "troubles": 0}
    step.record(shard=shard, attempt={"fenced_at": now}, event="fenced", note=file_id)


def _adopt(step: Step, move: Move, batch: RemoteBatch) -> None:
    due = step.clock.now() + d.poll_wait_seconds(0.0, step.policy.poll_seconds, step.roll())
    step.move(move, shard={**CLEAR, "due_at": due}, attempt=batch_facts(batch), note=batch.id)


def _cancel_extra(step: Step, provider: Provider, batch: RemoteBatch) -> None:
    """Another batch on the same file: stop it, and say what it had done by then."""
    try:
        provider.cancel_batch(batch.id)
        fate = "cancelled"
    except ProviderError as error:
        fate = f"could not be cancelled: {error.code}"
    counts = batch.counts
    done = "unknown" if counts is None else f"{counts.completed} of {counts.total}"
    step.record(event="extra_batch", note=f"{batch.id} {fate}; rows done: {done}")
