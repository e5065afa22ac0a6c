"""What became of a create whose reply was lost: its batch is found, ruled out, or a person is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langbatch.errors import (
    AccessRefused,
    ProviderError,
    Refused,
    RemoteNotFound,
    Throttled,
    Unreachable,
)
from langbatch.lifecycle import Move
from langbatch.providers.base import Provider
from langbatch.records import TERMINAL_BATCH_STATUSES, Attempt, RemoteBatch
from langbatch.running import decisions as d
from langbatch.running.reconcile import BatchSearch, file_is_listed, search_batches
from langbatch.running.step import CLEAR, Step, batch_facts
from langbatch.store.extra_batches import note_extra_batch

TAG = "langbatch_tag"
#: By the code of a create that surely made a batch: why a person is asked.
_UNRECOGNISED: Mapping[str | None, str] = {
    d.REPLY_MISMATCH: "a batch was made, but in the list it cannot be told from others",
    d.SENT_BEFORE: "no batch of it is listed that could be recognised (with langbatch.db moved away, "
    "`langbatch recover --from-remote` rebuilds all that was sent)",
}


def doubt(step: Step, setback: d.Setback | None = None) -> None:
    """Say that a batch may exist. The first look follows at once: most lost replies left one."""
    why = setback.attention if setback else "the process that was creating the batch died"
    facts: dict[str, object] = {"fate_unknown_at": step.clock.now()}
    if setback is not None and setback.code in d.SURELY_MADE:
        facts |= {"fault_code": setback.code, "fault_message": setback.attention}
    step.move(
        "create_fate_unknown",
        shard={**CLEAR, "waits_for": "fate", "attention": f"looking whether the batch was created ({why})"},
        attempt=facts,
        note=setback.code if setback else "crash",
    )


def adopt(step: Step, move: Move, batch: RemoteBatch) -> None:
    """The attempt's batch is this one."""
    due = step.clock.now() + d.poll_wait_seconds(0.0, step.policy.poll_seconds, step.roll())
    step.move(move, shard={**CLEAR, "due_at": due}, attempt=batch_facts(batch), note=batch.id)


# ---------------------------------------------------------------- looking


def look(step: Step, provider: Provider) -> None:
    """List batches for the attempt's input file: adopt what is there, or decide what absence means."""
    attempt, now = step.attempt, step.clock.now()
    search = BatchSearch((), complete=False)
    try:
        search = _search(step, provider)
    except (AccessRefused, Throttled, Unreachable):
        raise  # our trouble, or a moment's: it tells nothing about the service's list
    except ProviderError:
        # One failed look after a long pause (a laptop that slept) is not yet a list that cannot be read.
        patient = step.shard.troubles < d.HARVEST_TRIES
        if patient or d.judge_absence(step.view, False, now, step.policy) != "unsettled":
            raise
    if search.found:
        _adopt_one_of(step, provider, search.found)
        return
    match d.judge_absence(step.view, search.complete, now, step.policy, search.server_time):
        case "fence":
            step.move("fence_begins", shard={"due_at": 0.0}, note=attempt.file_id)
        case "ruled_out":
            ended = step.ended("no_batch")
            step.move("batch_ruled_out", shard=CLEAR, attempt=ended, note=attempt.file_id)
        case "unfenced":
            reason = "no batch is listed, but on this endpoint (see `langbatch doctor`) that proves nothing"
            step.ask_operator("unsettled", reason)
        case "unrecognised":
            step.ask_operator("unsettled", f"{_UNRECOGNISED[attempt.fault_code]}: {attempt.fault_message}")
        case "unsettled":
            step.ask_operator("unsettled", "the list of batches cannot be read to its end")
        case "look_again":
            grace = step.policy.grace_seconds
            due = now + min(step.policy.poll_seconds, max(step.policy.settle_seconds, grace / 20))
            shard = {"due_at": due, "troubles": 0, "blocker": None, "waits_for": "fate"}
            step.record(shard=shard, attempt=_first_absence(attempt, search))


def _first_absence(attempt: Attempt, search: BatchSearch) -> dict[str, float]:
    """From when on the grace period is counted by the service's clock."""
    begins = attempt.fenced_at is not None and attempt.absent_since is None
    if not begins or not search.complete or search.server_time is None:
        return {}
    return {"absent_since": search.server_time}


def _search(step: Step, provider: Provider) -> BatchSearch:
    """Batches on the attempt's file; where there are none, those that bear its tag."""
    attempt, now = step.attempt, step.clock.now()
    since = attempt.create_intent_at or now
    seen = search_batches(
        provider.list_batches,
        lambda batch: is_of(batch, attempt),
        since,
        now,
        since_there=attempt.file_made_at,
    )
    on_file = tuple(batch for batch in seen.found if batch.input_file_id == attempt.file_id)
    return BatchSearch(on_file or seen.found, seen.complete, seen.server_time)


def is_of(batch: RemoteBatch, attempt: Attempt) -> bool:
    """Whether a batch is an attempt's: by its input file, or by its tag, where the service hides the file or
    a gateway shows ids of its own. Nobody but this attempt's create has ever sent that tag."""
    if batch.input_file_id is not None and batch.input_file_id == attempt.file_id:
        return True
    return batch.metadata is not None and batch.metadata.get(TAG) == attempt.name


def _adopt_one_of(step: Step, provider: Provider, found: Sequence[RemoteBatch]) -> None:
    """The others go first: once one is adopted, nobody would look for them any more."""
    chosen, others = d.choose_batch(found)
    for other in others:
        _stop_extra(step, provider, other)
    adopt(step, "batch_found", chosen)


def _stop_extra(step: Step, provider: Provider, batch: RemoteBatch) -> None:
    """Another batch of the same attempt: stop it, and say what it had done by then."""
    end = batch.status
    if batch.status not in TERMINAL_BATCH_STATUSES:
        try:
            batch = provider.cancel_batch(batch.id)
            end = "cancelled"
        except (Refused, RemoteNotFound):
            end = "ended by itself"
        except ProviderError as error:
            if step.shard.troubles < d.HARVEST_TRIES:
                raise
            end = f"could not be cancelled: {error.code}"
    note_extra_batch(step.store, step.shard.job, step.shard.index, step.attempt.number, batch, end)


# ---------------------------------------------------------------- the fence


def fence(step: Step, provider: Provider) -> None:
    """Delete the input file, so that a create still under way must fail when it arrives."""
    file_id = step.attempt.file_id
    assert file_id is not None
    try:
        provider.delete_file(file_id)
    except RemoteNotFound as error:
        if not _is_gone(provider, file_id):
            _not_fenced(step, provider, error)
            return
    except AccessRefused as error:
        # A role may allow everything but this, for good; where nothing is allowed, the look says so.
        if error.status != 403 or step.shard.troubles < d.HARVEST_TRIES:
            raise
        _not_fenced(step, provider, error)
        return
    except Refused as error:
        _not_fenced(step, provider, error)
        return
    now = step.clock.now()
    shard = {"due_at": now, "troubles": 0}
    step.record(shard=shard, attempt={"fenced_at": now}, event="fenced", note=file_id)


def _is_gone(provider: Provider, file_id: str) -> bool:
    """Behind a 404 for the deletion: it may be said of the path, by a gateway that does not delete files."""
    try:
        file = provider.get_file(file_id)
    except RemoteNotFound as error:
        if not d.is_wrong_path(error):
            return True
        return file_is_listed(provider.list_files, file_id) is False
    return file.status in ("deleted", "deleting")


def _not_fenced(step: Step, provider: Provider, error: ProviderError) -> None:
    # Perhaps because a batch uses it: one more look before a person is asked.
    if found := _search(step, provider).found:
        _adopt_one_of(step, provider, found)
    else:
        step.ask_operator("unsettled", f"the input file cannot be deleted: {error.message}")
