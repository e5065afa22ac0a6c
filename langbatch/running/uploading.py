"""From a waiting shard to a file that a batch may name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from langbatch.errors import AccessRefused, ProviderError, RemoteNotFound
from langbatch.providers.base import Provider
from langbatch.records import Attempt, RemoteFile
from langbatch.running import decisions as d
from langbatch.running import placing
from langbatch.running.harvesting import settle
from langbatch.running.quota import estimate_tokens
from langbatch.running.reconcile import search_file
from langbatch.running.step import CLEAR, Step
from langbatch.shards.outgoing import prepare_payload, with_progress
from langbatch.store.commitments import OverBudget
from langbatch.store.reservations import NoRoom
from langbatch.targets import account_label

#: A file answered with 404 this long after its upload is taken for lost and uploaded anew, at no cost.
ABSENT_FILE_SECONDS = 600.0


def upload(step: Step, provider: Provider, place: int) -> None:
    """Write the payload, commit the intent, send it, commit the file's id. `place`: which of the job's
    targets `provider` is. An attempt that is open goes on if it is on that target; else it is over."""
    shard, attempt = step.shard, step.view.attempt
    _drop_bounced(provider, place, attempt)
    goes_on = attempt is not None and attempt.ended_at is None and attempt.target == place
    number = shard.attempt if goes_on else shard.attempt + 1
    outgoing = prepare_payload(step.store, step.home, step.view, number, place)
    try:
        step.store.begin_upload(
            step.claim,
            number,
            outgoing.name,
            outgoing.requests,
            outgoing.bytes,
            place=place,
            account=account_label(step.view.job.targets[place], shard.model),
            tokens=estimate_tokens(outgoing.bytes),
            bounds=shard.bounds,
        )
    except OverBudget as over:  # another process was faster
        outgoing.path.unlink(missing_ok=True)
        placing.wait_for_budget(step, over)
        return
    except NoRoom:
        outgoing.path.unlink(missing_ok=True)
        placing.no_room_after_all(step, estimate_tokens(outgoing.bytes))
        return
    step = step.again()
    try:
        with with_progress(outgoing, step.on_progress) as stream:
            remote = provider.upload(outgoing.name, stream, outgoing.bytes)
    except ProviderError as error:
        placing.learn(step, error)
        setback = d.after_upload_error(error)
        if setback.move == "upload_refused":
            settle(step, "upload_refused", "refused", setback.code or "refused", setback.attention)
        elif isinstance(error, placing.AVOIDED) and placing.others_take_calls(step):
            # No person is needed, and no wait: it goes where it is taken.
            setback = replace(setback, blocker=None, advice_seconds=None)
            step.set_back(setback, due_at=step.clock.now())
        else:
            step.set_back(setback)
        return
    _uploaded(step, provider, remote)
    outgoing.path.unlink(missing_ok=True)


def _drop_bounced(provider: Provider, place: int, attempt: Attempt | None) -> None:
    """Delete the file of a batch that found no room: waiting for a quota for a day would leave a thousand."""
    if attempt is None or attempt.ended_as != "quota_bounced" or attempt.target != place:
        return
    if attempt.file_id is not None:
        with suppress(ProviderError):  # ours and unused; `langbatch gc` tries again
            provider.delete_file(attempt.file_id)


def _uploaded(step: Step, provider: Provider, remote: RemoteFile) -> None:
    now = step.clock.now()
    ready = d.judge_file(remote, step.attempt.file_bytes, 0.0, step.policy) == "ready"
    ready = ready and (remote.status is not None or not provider.waits_for_file)
    facts = {
        "file_id": remote.id,
        "uploaded_at": now,
        "file_made_at": remote.created_at,
        "file_ready_at": now if ready else None,
    }
    step.move("upload_answered", shard=CLEAR, attempt=facts, note=remote.id)


def find_upload(step: Step, provider: Provider) -> None:
    """After a lost reply: use the file if the service lists it under our unique name.

    A shard goes on without it when the list cannot be read either: no batch can name a file that
    nobody knows, and uploads cost nothing.
    """
    found: RemoteFile | None = None
    try:
        found = search_file(provider.list_files, step.attempt.name, step.attempt.file_bytes)
    except AccessRefused:
        raise
    except ProviderError:
        if step.shard.troubles < d.HARVEST_TRIES:
            raise
    if found is not None:
        _uploaded(step, provider, found)
        return
    # The troubles go on counting, so that an outage is ridden out with growing waits.
    now = step.clock.now()
    wait = d.backoff_seconds(step.shard.troubles, step.policy.poll_seconds, step.roll())
    attention = step.shard.attention or "an upload's reply was lost, and its file is not listed"
    shard = {"attention": attention, "waits_for": "trouble", "due_at": now + wait}
    ended = step.ended("upload_lost")
    step.move("upload_lost", shard=shard, attempt=ended, note=step.attempt.name)


def check_file(step: Step, provider: Provider) -> None:
    """See whether the service has taken the file in."""
    attempt = step.attempt
    assert attempt.file_id is not None
    now = step.clock.now()
    age = now - (attempt.uploaded_at or now)
    verdict: d.FileVerdict
    try:
        remote = provider.get_file(attempt.file_id)
        verdict = d.judge_file(remote, attempt.file_bytes, age, step.policy)
        details = remote.status_details or f"it is {remote.status}, {remote.bytes} bytes"
    except RemoteNotFound:
        # A young file may not be readable yet.
        if age < min(step.policy.grace_seconds, ABSENT_FILE_SECONDS):
            raise
        verdict, details = "unusable", "the service no longer has it"
    if verdict == "ready":
        step.record(shard=CLEAR, attempt={"file_ready_at": now})
    elif verdict == "pending":
        due = now + d.poll_wait_seconds(age, step.policy.poll_seconds, step.roll())
        text = "the service is taking in the file"
        step.record(shard={**CLEAR, "attention": text, "waits_for": "file", "due_at": due})
    else:
        try:
            provider.delete_file(attempt.file_id)
        except ProviderError:
            pass  # ours and unused; `langbatch gc` tries again
        text = f"the service could not take in the file: {details}"
        step.set_back(d.Setback(text, "file_unusable", waits_for="file"))
