"""The only loop: take a shard's claim, ask what to do, do one thing, record what came of it.

`step` is idempotent: it may be called by any process at any time, and dies harmlessly anywhere.
The order inside each action is the promise "pay once": intent committed, call made, reply committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langbatch import decisions as d
from langbatch.clock import Clock, SystemClock
from langbatch.errors import (
    AccessRefused,
    BatchStorageError,
    FateUnknown,
    ProviderError,
    Refused,
    RemoteNotFound,
    SetupError,
)
from langbatch.folders import JobFolder
from langbatch.harvest import Harvester
from langbatch.leases import kept
from langbatch.outgoing import Outgoing, prepare_payload, with_progress
from langbatch.providers.base import Provider
from langbatch.reconcile import search_batches, search_file
from langbatch.records import Job, OnProgress, RemoteBatch, ShardView
from langbatch.store.store import Claim, JobStore, LostClaim

#: What a move forward clears: the shard is well again.
CLEAR: dict[str, Any] = {
    "attention": None, "waits_for": None, "blocker": None, "troubles": 0, "crashes": 0, "not_before": 0.0, "due_at": 0.0,
}
#: When another live process holds a shard, look again after this many seconds.
HELD_ELSEWHERE_SECONDS = 2.0


@dataclass(slots=True)
class Runner:
    """Advances the jobs of one store. `open_provider` finds credentials; `policy_for` the waits."""

    store: JobStore
    home: Path
    open_provider: Callable[[Job], Provider]
    policy_for: Callable[[Job], d.Policy]
    clock: Clock = field(default_factory=SystemClock)
    roll: Callable[[], float] = random.random
    on_progress: OnProgress | None = None
    #: Whether claims are renewed from a thread during long calls; off under a virtual clock.
    renews: bool = True

    def advance(self, job: int | None = None, *, eager: bool = False) -> float | None:
        """Everything that may move now, moved; seconds until the next look, None when all has ended."""
        soonest: float | None = None
        for key, index, due_at, not_before in self.store.unfinished_shards(job):
            now = self.clock.now()
            due = not_before if eager else max(due_at, not_before)
            wait = self.step(key, index, eager=eager) if due <= now else due - now
            if wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
        return soonest

    def step(self, job: int, index: int, *, eager: bool = False) -> float | None:
        """Advance one shard as far as it goes now; seconds until the next look, None when it has ended."""
        claim = self.store.claim(job, index)
        if claim is None:
            return HELD_ELSEWHERE_SECONDS
        try:
            while True:
                view = self.store.view(job, index)
                now = self.clock.now()
                action = d.decide(view, now, eager=eager)
                eager = False
                if isinstance(action, d.Nothing):
                    return None
                if isinstance(action, d.Wait):
                    return max(0.0, action.until - now)
                self._perform(claim, view, action)
        except LostClaim:
            return HELD_ELSEWHERE_SECONDS
        finally:
            self.store.release(claim)

    # ------------------------------------------------------------ one action

    def _perform(self, claim: Claim, view: ShardView, action: d.Action) -> None:
        match action:
            case d.DoubtCreate():
                return self._doubt(claim)
            case d.SettleCancelled():
                return self._settle(
                    claim, view, "cancelled_unsent", "cancelled", "cancelled", "cancelled before it was sent"
                )
            case d.Park(reason):
                return self.store.move(claim, view.shard.state, "parked", shard={"attention": reason})
            case _:
                pass
        try:
            provider = self.open_provider(view.job)
        except SetupError as error:
            self._set_back(claim, view, d.Setback(error.message, blocker="setup", code=error.code))
            return
        try:
            with kept(self.store, claim) if self.renews else nullcontext():
                self._dispatch(claim, view, action, provider)
        except ProviderError as error:
            self._set_back(claim, view, d.after_read_error(error, _DOING[type(action)]))
        except BatchStorageError as error:
            # A file could not be written (the store itself would fail below as well, and say so).
            self._set_back(claim, view, d.Setback(error.message, blocker="disk", code=error.code))

    def _dispatch(self, claim: Claim, view: ShardView, action: d.Action, provider: Provider) -> None:
        match action:
            case d.Upload(number):
                self._upload(claim, view, provider, number)
            case d.FindUpload():
                self._find_upload(claim, view, provider)
            case d.CheckFile():
                self._check_file(claim, view, provider)
            case d.Create():
                self._create(claim, view, provider)
            case d.LookForBatch():
                self._look(claim, view, provider)
            case d.Fence():
                self._fence(claim, view, provider)
            case d.Poll():
                self._poll(claim, view, provider)
            case d.CancelBatch():
                self._cancel(claim, view, provider)
            case d.Harvest():
                self._harvest(claim, view, provider)
            case _:
                raise AssertionError(f"{action} needs no provider")

    # ------------------------------------------------------------ upload

    def _upload(self, claim: Claim, view: ShardView, provider: Provider, number: int) -> None:
        outgoing = prepare_payload(self.store, self.home, view, number)
        self.store.begin_upload(claim, number, outgoing.name, outgoing.requests, outgoing.bytes)
        try:
            with with_progress(outgoing, self.on_progress) as stream:
                remote = provider.upload(outgoing.name, stream, outgoing.bytes)
        except ProviderError as error:
            setback = d.after_upload_error(error)
            if setback.move == "upload_refused":
                self._refuse(claim, self.store.view(claim.job, claim.index), "upload_refused", setback)
            else:
                self._set_back(claim, self.store.view(claim.job, claim.index), setback)
            return
        self._uploaded(claim, view, provider, remote, outgoing)

    def _uploaded(
        self, claim: Claim, view: ShardView, provider: Provider, remote: Any, outgoing: Outgoing | None
    ) -> None:
        now = self.clock.now()
        sent = outgoing.bytes if outgoing else view.attempt and view.attempt.file_bytes
        ready = d.judge_file(remote, sent, 0.0, self.policy_for(view.job)) == "ready"
        ready = ready and (remote.status is not None or not provider.waits_for_file)
        self.store.move(
            claim, "uploading", "upload_answered", shard=CLEAR, note=remote.id,
            attempt={"file_id": remote.id, "uploaded_at": now, "file_ready_at": now if ready else None},
        )
        if outgoing:
            outgoing.path.unlink(missing_ok=True)

    def _find_upload(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        try:
            found = search_file(provider.list_files, attempt.name, attempt.file_bytes)
        except AccessRefused:
            raise
        except ProviderError as error:
            if view.shard.troubles < d.HARVEST_TRIES:
                raise
            found = None  # no batch can name a file that nobody knows: going on costs nothing
            del error
        if found is not None:
            self._uploaded(claim, view, provider, found, None)
            return
        self.store.move(
            claim, "uploading", "upload_lost", shard=CLEAR, attempt=self._ended("upload_lost"), note=attempt.name
        )

    def _check_file(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        assert attempt.file_id is not None
        now = self.clock.now()
        age = now - (attempt.uploaded_at or now)
        policy = self.policy_for(view.job)
        try:
            remote = provider.get_file(attempt.file_id)
            verdict = d.judge_file(remote, attempt.file_bytes, age, policy)
            details = remote.status_details or f"it is {remote.status}, {remote.bytes} bytes"
        except RemoteNotFound:
            # A young file may not be readable yet; one that stays absent is uploaded anew, at no cost.
            if age < min(policy.grace_seconds, 600.0):
                raise
            verdict, details = "unusable", "the service no longer has it"
        if verdict == "ready":
            self.store.record(claim, shard=CLEAR, attempt={"file_ready_at": now})
        elif verdict == "pending":
            wait = d.poll_wait_seconds(age, policy.poll_seconds, self.roll())
            self.store.record(
                claim,
                shard={**CLEAR, "attention": "the service is taking in the file", "waits_for": "file", "due_at": now + wait},
            )
        else:
            try:
                provider.delete_file(attempt.file_id)
            except ProviderError:
                pass  # ours and unused; `langbatch gc` tries again
            self._set_back(
                claim, view, d.Setback(f"the service could not take in the file: {details}", "file_unusable")
            )

    # ------------------------------------------------------------ create

    def _create(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        assert attempt.file_id is not None
        self.store.move(
            claim, "uploaded", "create_begins", attempt={"create_intent_at": self.clock.now()}, note=attempt.file_id
        )
        try:
            batch = provider.create_batch(attempt.file_id, tags(self.store.store_id, attempt.name))
        except ProviderError as error:
            setback = d.after_create_error(error)
            view = self.store.view(claim.job, claim.index)
            if setback.move == "create_refused":
                self._refuse(claim, view, "create_refused", setback)
            elif setback.move == "create_fate_unknown":
                self._doubt(claim, setback)
            else:
                self._set_back(claim, view, setback)
            return
        self._adopt(claim, view, "creating", "create_answered", batch)

    def _doubt(self, claim: Claim, setback: d.Setback | None = None) -> None:
        """Say that a batch may exist. The first look follows at once: most lost replies left one."""
        attention = setback.attention if setback else "the process that was creating the batch died"
        self.store.move(
            claim, "creating", "create_fate_unknown",
            shard={
                **CLEAR, "waits_for": "fate", "attention": f"looking whether the batch was created ({attention})"
            },
            attempt={"fate_unknown_at": self.clock.now()},
            note=setback.code if setback else "crash",
        )

    def _look(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        started = self.clock.now()
        policy = self.policy_for(view.job)
        tag = attempt.name

        def ours(batch: RemoteBatch) -> bool:
            if batch.input_file_id is not None:
                return batch.input_file_id == attempt.file_id
            return batch.metadata is not None and batch.metadata.get(TAG) == tag

        try:
            search = search_batches(provider.list_batches, ours, attempt.create_intent_at or started, started)
            complete, found = search.complete, search.found
        except AccessRefused:
            raise
        except ProviderError as error:
            if d.judge_absence(view, False, started, policy) != "unsettled":
                raise
            complete, found = False, ()
            del error
        if found:
            chosen, others = d.choose_batch(found)
            self._adopt(claim, view, view.shard.state, "batch_found", chosen)
            for other in others:
                self._cancel_extra(claim, other, provider)
            return
        match d.judge_absence(view, complete, started, policy):
            case "fence":
                self.store.move(claim, "uncertain", "fence_begins", shard={"due_at": 0.0}, note=attempt.file_id)
            case "ruled_out":
                self.store.move(
                    claim, "fencing", "batch_ruled_out", shard=CLEAR, attempt=self._ended("no_batch"),
                    note=attempt.file_id,
                )
            case "unsettled":
                self._ask_operator(claim, view, "unsettled", "the list of batches cannot be read to its end")
            case "look_again":
                wait = min(policy.poll_seconds, max(policy.settle_seconds, policy.grace_seconds / 20))
                self.store.record(claim, shard={"due_at": started + wait, "troubles": 0, "blocker": None, "waits_for": "fate"})

    def _fence(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        assert attempt.file_id is not None
        try:
            provider.delete_file(attempt.file_id)
        except RemoteNotFound:
            pass  # gone already: a late create must fail
        except Refused as error:
            self._ask_operator(claim, view, "unsettled", f"the input file cannot be deleted: {error.message}")
            return
        now = self.clock.now()
        self.store.record(
            claim, shard={"due_at": now, "troubles": 0}, attempt={"fenced_at": now}, event="fenced",
            note=attempt.file_id,
        )

    def _adopt(self, claim: Claim, view: ShardView, origin: str, move: Any, batch: RemoteBatch) -> None:
        now = self.clock.now()
        wait = d.poll_wait_seconds(0.0, self.policy_for(view.job).poll_seconds, self.roll())
        self.store.move(
            claim, origin, move, shard={**CLEAR, "due_at": now + wait}, attempt=batch_facts(batch), note=batch.id
        )

    def _cancel_extra(self, claim: Claim, batch: RemoteBatch, provider: Provider) -> None:
        """Another batch on the same file: stop it, and say what it had done by then."""
        try:
            provider.cancel_batch(batch.id)
            outcome = "cancelled"
        except ProviderError as error:
            outcome = f"could not be cancelled: {error.code}"
        counts = batch.counts
        done = "unknown" if counts is None else f"{counts.completed} of {counts.total}"
        self.store.record(claim, event="extra_batch", note=f"{batch.id} {outcome}; rows done: {done}")

    # ------------------------------------------------------------ poll, cancel, harvest

    def _poll(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        assert attempt.batch_id is not None
        try:
            batch = provider.get_batch(attempt.batch_id)
        except RemoteNotFound:
            self._check_lost(claim, view, provider, attempt.batch_id)
            return
        now = self.clock.now()
        age = now - (attempt.create_intent_at or now)
        facts = {**batch_facts(batch), "polled_at": now}
        match d.judge_batch(batch, age):
            case "ended":
                self.store.move(claim, "active", "batch_ended", shard=CLEAR, attempt=facts, note=batch.status)
            case "quota_bounced":
                wait = d.backoff_seconds(view.shard.attempt, self.policy_for(view.job).poll_seconds, self.roll())
                self.store.move(
                    claim, "active", "quota_bounced",
                    shard={**CLEAR, "due_at": now + wait, "attention": "waiting for token quota", "waits_for": "quota"},
                    attempt={**facts, **self._ended("quota_bounced")}, note=batch.id,
                )
            case "strange":
                self._ask_operator(
                    claim, view, "batch_lost", f"the batch has had the unknown status {batch.status!r} for two days"
                )
            case "running":
                wait = d.poll_wait_seconds(age, self.policy_for(view.job).poll_seconds, self.roll())
                strange = batch.status not in d.KNOWN_BATCH_STATUSES
                text = f"the service reports the unknown status {batch.status!r}" if strange else None
                changed = batch.status != attempt.batch_status
                self.store.record(
                    claim, shard={**CLEAR, "due_at": now + wait, "attention": text}, attempt=facts,
                    event="status" if changed else None, note=batch.status,
                )

    def _check_lost(self, claim: Claim, view: ShardView, provider: Provider, batch_id: str) -> None:
        """404 for a batch we know: believed only after several looks and a complete list without it."""
        now = self.clock.now()
        attempt = view.attempt
        assert attempt is not None
        search = search_batches(
            provider.list_batches, lambda b: b.id == batch_id, attempt.create_intent_at or now, now
        )
        if not search.found and search.complete and view.shard.troubles >= d.HARVEST_TRIES:
            self._ask_operator(claim, view, "batch_lost", f"the service no longer knows the batch {batch_id}")
        else:
            self._set_back(claim, view, d.Setback(f"the service answers 404 for the batch {batch_id}"))

    def _cancel(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        assert attempt.batch_id is not None
        now = self.clock.now()
        facts: dict[str, Any] = {"cancel_sent_at": now}
        try:
            facts |= batch_facts(provider.cancel_batch(attempt.batch_id))
        except (Refused, RemoteNotFound):
            pass  # it ended before; the next poll says how
        except FateUnknown:
            raise  # cancelling twice is harmless, so the same call comes again
        self.store.record(claim, shard={**CLEAR, "due_at": now}, attempt=facts, event="cancel_sent", note=attempt.batch_id)

    def _harvest(self, claim: Claim, view: ShardView, provider: Provider) -> None:
        attempt = view.attempt
        assert attempt is not None
        harvester = Harvester(self.home, self.store, self.on_progress)
        try:
            doubt = harvester.fetch(view, provider)
        except RemoteNotFound as error:
            if view.shard.troubles < d.HARVEST_TRIES:
                raise
            self._ask_operator(claim, view, "results_withheld", f"a result file is gone: {error.message}")
            return
        if doubt is not None and view.shard.troubles < d.HARVEST_TRIES:
            harvester.forget(view)
            assert attempt.batch_id is not None
            batch = provider.get_batch(attempt.batch_id)
            facts = {k: v for k, v in batch_facts(batch).items() if k.endswith("file_id")}
            self.store.record(claim, attempt=facts)
            self._set_back(claim, view, d.Setback(f"the batch's files do not agree with its counts ({doubt})"))
            return
        if doubt == "no_output_file":
            self._ask_operator(
                claim, view, "results_withheld", "the batch reports finished rows but offers no output file"
            )
            return
        report = harvester.join(view)
        end = d.end_of(attempt.batch_status, report.tally.total - report.silent, attempt.fault_code)
        self.store.finish(
            claim, "harvesting", "harvested",
            shard={**CLEAR, "ended_as": end}, attempt=self._ended("harvested"),
            tally=report.tally, usage=report.usage, rows_without_success=report.unsuccessful,
            note=f"{report.tally.succeeded} of {report.tally.total} succeeded",
        )

    # ------------------------------------------------------------ ends and setbacks

    def _refuse(self, claim: Claim, view: ShardView, move: Any, setback: d.Setback) -> None:
        """The service refused the attempt for good: its requests end `errored` with the reason."""
        self._settle(claim, view, move, "refused", setback.code or "refused", setback.attention)

    def _settle(self, claim: Claim, view: ShardView, move: Any, end: Any, code: str, message: str) -> None:
        """End a shard whose newest attempt had no batch; rows of earlier attempts stay."""
        outcome: Any = "cancelled" if end == "cancelled" else "errored"
        report = Harvester(self.home, self.store, self.on_progress).join(view, silence=(outcome, code, message))
        attempt = view.attempt
        facts: dict[str, Any] = {}
        if attempt is not None and attempt.ended_at is None:
            facts = self._ended("cancelled_unsent" if end == "cancelled" else "refused")
            facts |= {"fault_code": code, "fault_message": message}
        self.store.finish(
            claim, view.shard.state, move,
            shard={**CLEAR, "ended_as": end, "attention": None if end == "cancelled" else message}, attempt=facts,
            tally=report.tally, usage=report.usage, rows_without_success=report.unsuccessful, note=code,
        )

    def _set_back(self, claim: Claim, view: ShardView, setback: d.Setback) -> None:
        """Record trouble and when to look again; with the move that the trouble means, if any."""
        now = self.clock.now()
        troubles = view.shard.troubles + 1
        wait = d.backoff_seconds(troubles, self.policy_for(view.job).poll_seconds, self.roll())
        advice = setback.advice_seconds
        shard = {
            "troubles": troubles,
            "waits_for": setback.waits_for,
            "attention": setback.attention,
            "blocker": setback.blocker,
            "due_at": now + wait,
            "not_before": now + advice if advice else 0.0,
        }
        attempt = self._ended("file_unusable") if setback.move == "file_unusable" else None
        if setback.move is None:
            self.store.record(claim, shard=shard, event="trouble", note=setback.code)
        else:
            self.store.move(claim, view.shard.state, setback.move, shard=shard, attempt=attempt, note=setback.code)

    def _ask_operator(self, claim: Claim, view: ShardView, move: Any, reason: str) -> None:
        self.store.move(
            claim, view.shard.state, move, shard={**CLEAR, "attention": reason}, note=reason
        )

    def _ended(self, how: str) -> dict[str, Any]:
        return {"ended_at": self.clock.now(), "ended_as": how}


TAG = "langbatch_tag"

_DOING: dict[type[Any], str] = {
    d.Upload: "uploading", d.FindUpload: "looking for the upload", d.CheckFile: "checking the file",
    d.Create: "creating the batch", d.DoubtCreate: "creating the batch", d.LookForBatch: "listing batches",
    d.Fence: "deleting the input file", d.Poll: "polling", d.CancelBatch: "cancelling",
    d.Harvest: "downloading", d.SettleCancelled: "cancelling", d.Park: "parking",
}


def tags(store_id: str, name: str) -> dict[str, str]:
    """A batch's metadata: at most 16 pairs of strings, values up to 512 characters (wire reference, 3)."""
    return {TAG: name, "langbatch_store": store_id}


def job_folder(home: Path, job: Job) -> JobFolder:
    return JobFolder.of(home, job.id)


def batch_facts(batch: RemoteBatch) -> dict[str, Any]:
    """What an attempt's row remembers of the provider's batch."""
    fault = batch.faults[0] if batch.faults else None
    facts: dict[str, Any] = {
        "batch_id": batch.id,
        "batch_status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "fault_code": fault.code if fault else None,
        "fault_message": fault.message if fault else None,
    }
    if batch.counts is not None:
        facts |= {
            "batch_total": batch.counts.total,
            "batch_completed": batch.counts.completed,
            "batch_failed": batch.counts.failed,
        }
    return facts
