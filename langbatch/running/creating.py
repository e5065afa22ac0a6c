"""From an uploaded file to a batch: the one call that costs money."""

from __future__ import annotations

from langbatch.errors import BatchStorageError, ProviderError, QuotaFull
from langbatch.providers.base import Provider
from langbatch.records import RemoteBatch, ShardView
from langbatch.running import decisions as d
from langbatch.running import fate, journal, placing, sent
from langbatch.running.harvesting import settle
from langbatch.running.step import Step
from langbatch.store.commitments import OverBudget
from langbatch.store.reservations import NoRoom
from langbatch.store.transitions import LostClaim
from langbatch.targets import mark

#: The marks of all the job's targets, in their order, and this batch's place among them.
TARGETS = "langbatch_targets"
PLACE = "langbatch_place"
#: There where the job has a budget.
BUDGET = "langbatch_budget"
_LONGEST_VALUE = 512


def tags(store_id: str, name: str, view: ShardView | None = None) -> dict[str, str]:
    """A batch's metadata: at most 16 pairs of strings, values up to 512 characters (wire reference, 3).

    With the shard's `view` it tells a recovery which other places have to be looked at."""
    pairs = {fate.TAG: name, "langbatch_store": store_id}
    if view is None:
        return pairs
    marks = " ".join(mark(target) for target in view.job.targets)
    if len(marks) <= _LONGEST_VALUE:
        pairs |= {TARGETS: marks, PLACE: str(view.place)}
    if view.job.has_budget:
        pairs[BUDGET] = "yes"
    return pairs


def create(step: Step, provider: Provider) -> None:
    """Commit the intent, create, commit the batch's id."""
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
    if not _noted_as_sent(step):
        return
    try:
        batch = provider.create_batch(file_id, tags(step.store.store_id, step.attempt.name, step.view))
    except ProviderError as error:
        _not_created(step, provider, error)
        return
    try:
        fate.adopt(step, "create_answered", batch)
    except (BatchStorageError, LostClaim):
        _write_down(step, batch)
        raise
    if batch.quota_tokens is not None:
        placing.learn_limit(step, batch.quota_tokens)


def _noted_as_sent(step: Step) -> bool:
    """Note beside the database that this attempt is sent. False where it is not: it had been sent before, or
    the note cannot be written."""
    shard, attempt = step.shard, step.attempt
    if sent.known(step.folder, shard.index, attempt.number):
        text = "it was sent before, of which this database knows nothing: it is an older copy"
        fate.doubt(step, d.Setback(text, code=d.SENT_BEFORE))
        return False
    try:
        sent.note(step.folder, shard.index, attempt.number)
    except OSError as error:
        step.set_back(d.Setback(f"local files: {error}", "create_not_now", "disk", code="storage"))
        return False
    return True


def _not_created(step: Step, provider: Provider, error: ProviderError) -> None:
    setback = d.after_create_error(error)
    held_until = placing.learn(step, error)
    if setback.move == "create_fate_unknown":
        fate.doubt(step, setback)
        return
    # Before the move: were it lost, the create's fate would merely be looked for.
    sent.forget(step.folder, step.shard.index, step.attempt.number)
    if setback.move == "create_refused":
        settle(step, "create_refused", "refused", setback.code or "refused", setback.attention)
    else:
        step.set_back(setback, due_at=held_until)
        step = step.again()
        if (
            not _try_elsewhere(step, provider)
            and isinstance(error, QuotaFull)
            and placing.asks_too_much(step)
        ):
            placing.move_away(step, provider)
            placing.halve(step.again())


def _write_down(step: Step, batch: RemoteBatch) -> None:
    """The database did not take the id, or another process has the shard, which may look for it in vain."""
    try:
        journal.append(step.home, attempt=step.attempt.name, batch_id=batch.id)
    except OSError as error:
        raise BatchStorageError(
            f"batch {batch.id} was created, but its id could not be written down ({error.strerror})",
            hint="Free some disk space, then run `langbatch resume`: it looks for the batch in the service's "
            "list. Where that cannot be read it will ask you for this id.",
        ) from error


def _try_elsewhere(step: Step, provider: Provider) -> bool:
    """Let another target have the shard, where this one has no room or takes no calls."""
    if len(step.view.job.targets) == 1 or not placing.better_elsewhere(step):
        return False
    placing.move_away(step, provider)
    return True
