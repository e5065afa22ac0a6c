"""The job manager: everything the handles and the command line do, for one store."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from functools import partial as bind
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from langbatch import ids
from langbatch.access import Access
from langbatch.clock import Clock, SystemClock
from langbatch.config.resolving import resolve_targets
from langbatch.config.settings import Settings, find_profile
from langbatch.detaching import checked
from langbatch.errors import (
    BatchStateError,
    JobNotFound,
    LangBatchError,
)
from langbatch.folders import JobFolder
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.money.costs import Budget
from langbatch.providers import limits_for, open_provider
from langbatch.providers.credentials import Credentials
from langbatch.publish import private_folder
from langbatch.records import (
    Attempt,
    EndpointKind,
    Job,
    OnProgress,
    Shard,
    Target,
    Unsuccessful,
)
from langbatch.requests.validation import Intake, Rules, kind_of_first, read_requests, spool_stdin
from langbatch.results.delivery import Delivery, format_of, require_finished
from langbatch.reuse.expansion import expanded
from langbatch.reuse.parting import Requests, all_requests
from langbatch.reuse.plan import ReusePlan, copies_of
from langbatch.running import decisions
from langbatch.running.waiting import (
    ClockWatch,
    Patience,
    Pausing,
    Seen,
    never_reached,
    not_started,
    obstacle,
    progress_of,
    settling,
    slept_through,
    until_each_ended,
    until_ended,
)
from langbatch.shards.admission import Submission, admit, plan
from langbatch.shards.sharding import ShardPlan
from langbatch.shards.snapshot import Snapshot
from langbatch.status import (
    JobStatus,
    QuotaStatus,
    draft_status,
    job_status,
    quota_status,
)
from langbatch.targets import account_label
from langbatch.upkeep.endpoint import known_facts

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from langbatch.error_codes import FailureCount
    from langbatch.events import Event
    from langbatch.money.prices import PriceList
    from langbatch.results.result import Result
    from langbatch.running.bills import Bills
    from langbatch.running.observing import Habits
    from langbatch.running.runner import Runner
    from langbatch.shards.preview import Preview
    from langbatch.store.store import JobStore
    from langbatch.upkeep.cleanup import Cleanup
    from langbatch.upkeep.findings import Diagnosis
    from langbatch.upkeep.recovery import Recovery

#: `start` waits this long for a service to take in an uploaded file, so that the batch exists after it.
FILE_WAIT_SECONDS = 60.0


class JobManager:
    """Jobs of one store: `home` (default `LANGBATCH_HOME`, or the platform's user data folder) and its
    database. Any number of managers, in any number of processes, may work on one store.

    `profile` names targets and waits in `<home>/profiles.toml` (default `LANGBATCH_PROFILE`).
    `executor`, any of `concurrent.futures`, reads inputs and results in byte ranges; its workers must see the
    files under the same paths. Without one, processes of langbatch's own read inputs of 512 MiB or more and
    results of 64 MiB or more, where there are two cores. Methods take a job's id or a unique prefix of it,
    and raise `JobNotFound` for others.

    `on_event` is called with every event of the store (`langbatch.events`), whichever process makes it, in
    the thread of the method that finds it. Without `consumer`, from now on and while this manager is used;
    with one, a name of your choice, from the first time on: what happened meanwhile is told later, to one
    manager of that name at a time, and again only where its process died or it raised. What it raises is
    logged. `telemetry` makes OpenTelemetry's metrics and traces of events (default `LANGBATCH_TELEMETRY`).
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        database_url: str | None = None,
        *,
        profile: str | None = None,
        clock: Clock | None = None,
        on_progress: OnProgress | None = None,
        executor: Executor | None = None,
        on_event: Callable[[Event], None] | None = None,
        consumer: str | None = None,
        telemetry: bool | None = None,
    ) -> None:
        if consumer is not None and (on_event is None or not consumer):
            raise TypeError("consumer is the name of an on_event")
        self.settings = Settings.load(home, database_url)
        self._profile = find_profile(profile, self.settings.home)
        if self._profile is not None:
            kept = {**self._profile.settings, "home": str(self.settings.home)}
            self.settings = Settings.load(home, database_url, profile=kept)
        if telemetry is not None:
            self.settings = replace(self.settings, telemetry=telemetry)
        self.settings.check()
        self.on_progress = on_progress
        self._executor = executor
        self._clock: Clock = clock or SystemClock()
        self._access = Access(self.settings, self._clock, on_event, consumer)
        self._habits: Habits = {}
        # Handles make managers of their own: connections go with the last of them.
        weakref.finalize(self, self._access.close)

    # ------------------------------------------------------------ inside

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def _store(self) -> JobStore:
        return self._access.store

    def _runner(self, on_progress: OnProgress | None = None) -> Runner:
        from langbatch.running.runner import Runner

        return Runner(
            self._store,
            self.home,
            self._access.provider,
            self._policy,
            self._clock,
            random.random,
            checked(on_progress or self.on_progress),
            endpoint_for=self._access.endpoint,
            habits=self._habits,
            executor=self._executor,
            on_step=self._access.on_step,
        )

    def _policy(self, target: Target) -> decisions.Policy:
        chosen, facts = self.settings.grace_seconds, known_facts(self._store, target)
        return decisions.Policy(
            poll_seconds=self.settings.poll_seconds_for(target),
            grace_seconds=facts.grace_seconds if chosen is None else chosen,
            fence_holds=facts.absence_is_proof,
        )

    def use_credentials(self, job_id: str, credentials: Credentials) -> None:
        """Use these for a job's calls in this process. They are never stored."""
        job = self._store.find(job_id)
        self._access.use(job, [(job.target, credentials)])

    def close(self) -> None:
        """Close connections. Jobs go on wherever they are advanced next."""
        self._access.close()

    def __enter__(self) -> JobManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ in

    def submit(
        self,
        file: str | os.PathLike[str],
        provider: str = "azure",
        *,
        kind: EndpointKind | None = None,
        model: str | None = None,
        name: str | None = None,
        new: bool = False,
        start: bool = True,
        skip_invalid: bool = False,
        auto_id: bool = False,
        split_by_model: bool = False,
        gzip: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_requests_per_shard: int | None = None,
        targets: Sequence[Mapping[str, Any]] = (),
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
        on_stored: Callable[[Submission], None] | None = None,
        **target: Any,
    ) -> Submission:
        """Store `file` as a job and start it. The same bytes for the same target are the same job.

        `max_cost` (in the price file's currency) and `max_tokens` (in and out together) limit what all
        attempts of the job use: shards that might pass them are not sent. Given again with the same file,
        they replace the job's.

        `targets`: several places that its shards may go to, each a mapping of target arguments, with `weight`
        and `quota_tokens` where wished; without them those of the manager's profile, if it has one.

        `dedupe` sends requests that are equal but for `custom_id` only once; each of them gets the result.
        `cache` does not send what earlier jobs of this store have had an answer to, from the same deployment
        or model: it is copied. Both are settled when the job is first stored; `status().reuse` counts.

        `kind` None takes it from the lines' `url`. `on_stored` is called once the job is safe on disk,
        before anything is sent. Raises `BatchValidationError`, `SetupError`, and what `start` raises.
        """
        source = Path(file)
        if kind is None:
            kind = kind_of_first(source, gzip=gzip) or "chat_completions"
        found = resolve_targets(
            provider,
            kind,
            model=model,
            profile=None if targets else self._profile,
            targets=targets,
            **target,
        )
        where = [each for each, _ in found]
        submission = self.store_job(
            source,
            where[0],
            others=tuple(where[1:]),
            name=name,
            new=new,
            skip_invalid=skip_invalid,
            auto_id=auto_id,
            split_by_model=split_by_model,
            gzip=gzip,
            dedupe=dedupe,
            cache=cache,
            max_requests_per_shard=max_requests_per_shard,
            max_cost=max_cost,
            max_tokens=max_tokens,
        )
        self._access.use(self._store.find(submission.id), found)
        if on_stored is not None:
            on_stored(submission)
        if start:
            self.start(submission.id)
        return submission

    def validate(
        self,
        file: str | os.PathLike[str],
        provider: str = "azure",
        *,
        kind: EndpointKind | None = None,
        model: str | None = None,
        auto_id: bool = False,
        split_by_model: bool = False,
        gzip: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Intake:
        """Read the whole file once and tell everything about it. Nothing is stored or sent.

        Faulty lines are in the answer's `problems`; a file that cannot be read as requests at all
        raises `BatchValidationError`.
        """
        target = Target(provider, "", kind or "chat_completions", model)
        rules = replace(_rules(target, False, auto_id, split_by_model, gzip), kind=kind)
        return read_requests(
            Path(file), rules, on_progress=on_progress or self.on_progress, executor=self._executor
        )

    def store_job(
        self,
        source: Path,
        target: Target,
        *,
        others: tuple[Target, ...] = (),
        name: str | None = None,
        new: bool = False,
        draft: bool = False,
        skip_invalid: bool = False,
        auto_id: bool = False,
        split_by_model: bool = False,
        gzip: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_requests_per_shard: int | None = None,
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
        job_id: str | None = None,
    ) -> Submission:
        """Validate `source`, keep a private snapshot, plan its shards and store the job; send nothing."""
        submission = admit(
            self._store,
            self.home,
            self._clock,
            source,
            target,
            _rules(target, skip_invalid, auto_id, split_by_model, gzip),
            others=others,
            name=name,
            new=new,
            draft=draft,
            dedupe=dedupe,
            cache=cache,
            max_requests_per_shard=max_requests_per_shard,
            job_id=job_id,
            budget=Budget.of(max_cost, max_tokens),
            on_progress=checked(self.on_progress),
            executor=self._executor,
        )
        self._access.tell()
        return submission

    def set_budget(
        self, job_id: str, *, max_cost: Decimal | float | str | None = None, max_tokens: int | None = None
    ) -> JobStatus:
        """Give a job a budget, or another one; one that is left out stays. Nothing is sent by this.

        `SetupError` where it could not be kept: a price is unknown, or an output has no bound."""
        from langbatch.shards.budgeting import change_budget

        budget = Budget.of(max_cost, max_tokens)
        if budget.limits_anything:
            change_budget(self._store, self.home, self._store.find(job_id), budget, self.on_progress)
            self._access.tell()
        return self.status(job_id, offline=True)

    def prices(self) -> PriceList:
        """What models cost as far as langbatch knows: its own list, under `<home>/prices.toml`.

        Raises `SetupError` for a file that cannot be read."""
        from langbatch.money.prices import read_prices

        return read_prices(self.home)

    def spool(self, stream: BinaryIO) -> Path:
        """Keep standard input in a private file of the store's, for `submit`; the caller deletes it."""
        folder = self.home / "created"
        private_folder(self.home)
        private_folder(folder)
        return spool_stdin(stream, folder)

    def preview(
        self,
        file: str | os.PathLike[str],
        provider: str = "azure",
        *,
        kind: EndpointKind | None = None,
        model: str | None = None,
        skip_invalid: bool = False,
        auto_id: bool = False,
        split_by_model: bool = False,
        gzip: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_requests_per_shard: int | None = None,
        targets: Sequence[Mapping[str, Any]] = (),
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
        **target: Any,
    ) -> Preview:
        """What `submit` would send: shards, estimated tokens, costs, how often the quota is filled; and what
        it would not, with `dedupe` and `cache`. Nothing is kept or sent, no network is used, and neither
        credentials nor an endpoint are needed (`cache` finds nothing without an endpoint)."""
        from langbatch.shards import preview

        source = Path(file)
        kind = kind or kind_of_first(source, gzip=gzip) or "chat_completions"
        where = preview.targets_without_doors(
            provider,
            kind,
            model=model,
            profile=None if targets else self._profile,
            targets=targets,
            **target,
        )
        known = self.settings.database_url is not None or (self.home / "langbatch.db").exists()
        return preview.preview(
            self._store if known else None,
            self.home,
            source,
            _rules(where[0], skip_invalid, auto_id, split_by_model, gzip),
            where,
            budget=Budget.of(max_cost, max_tokens),
            dedupe=dedupe,
            cache=cache,
            max_requests_per_shard=max_requests_per_shard,
            on_progress=self.on_progress,
        )

    def start(self, job_id: str, *, progress: OnProgress | None = None) -> JobStatus:
        """Send everything that may be sent now, and return. Raises `AccessRefused` or `SetupError` for
        credentials, `Unreachable` when the service cannot be reached; the job stays resumable."""
        return slept_through(self.starting(job_id, progress), self._clock.sleep)

    def starting(self, job_id: str, progress: OnProgress | None = None) -> Pausing[JobStatus]:
        """`start` for those who sleep otherwise: its pauses in seconds, then the status."""
        job = self._store.find(job_id)
        if job.state == "draft":
            self._store.add_shards(job.key, *self._draft_plans(job))
        runner = self._runner(progress)
        began = self._clock.monotonic()
        patience = min(FILE_WAIT_SECONDS, 60 * self._policy(job.target).poll_seconds)
        due = runner.advance(job.key, eager=True)
        while due is not None and settling(self._store.shards(job.key)):
            if self._clock.monotonic() - began >= patience:
                break
            yield min(due, patience)
            due = runner.advance(job.key)
        error = obstacle(self._shards(job.key)) or never_reached(self._store.shards(job.key))
        if error is not None:
            raise error
        return self.status(job.id, offline=True)

    def _draft_plans(self, job: Job) -> tuple[list[ShardPlan], list[int]]:
        snapshot = Snapshot(JobFolder.of(self.home, job.id).path)
        plans, first_lines = plan(snapshot, job.targets, None)
        if job.has_budget:
            from langbatch.shards.budgeting import bound_draft

            plans = bound_draft(self._store, self.home, job, snapshot, plans, self.on_progress)
        return plans, first_lines

    def _shards(self, key: int) -> list[Shard]:
        return [shard for shard, _ in self._store.shards(key)]

    # ------------------------------------------------------------ on

    def status(self, job_id: str, *, offline: bool = False) -> JobStatus:
        """A snapshot of the job, after a fresh look at the service unless `offline`."""
        job = self._store.find(job_id)
        if not offline and job.state not in SETTLED_JOB_STATES:
            self._runner().advance(job.key, eager=True)
        return self._snapshot(job.key, quotas=True, bills=self._bills(job.key))

    def jobs(self, *, offline: bool = True) -> list[JobStatus]:
        """Every job, oldest first; as stored unless `offline` is False."""
        if not offline:
            self._runner().advance(eager=True)
        bills = self._bills()
        return [self._snapshot(job.key, job, bills=bills) for job in self._store.jobs()]

    def _snapshot(
        self, key: int, job: Job | None = None, *, quotas: bool = False, bills: Bills | None = None
    ) -> JobStatus:
        job, shards = job or self._store.job(key), self._store.shards(key)
        cost = None if bills is None else bills.cost(job, shards)
        budget = None if bills is None else bills.budget(job)
        return job_status(job, shards, self._quotas(job, shards) if quotas else (), cost, budget)

    def _bills(self, key: int | None = None) -> Bills:
        from langbatch.running.bills import Bills

        return Bills(self._store, self.home, key)

    def _quotas(self, job: Job, shards: Sequence[tuple[Shard, Attempt | None]]) -> list[QuotaStatus]:
        """What the unfinished job's deployments hold, as far as it matters to anybody."""
        if job.state in SETTLED_JOB_STATES:
            return []
        from langbatch.store import ledger

        model = next((shard.model for shard, _ in shards if shard.model), None)
        labels = dict.fromkeys(account_label(target, model) for target in job.targets)
        found, now = ledger.known(self._store, labels), self._clock.now()
        return [
            quota_status(account, held, now)
            for account, held in found.values()
            if held or account.limit_tokens is not None
        ]

    def advance(self, job_id: str | None = None, *, eager: bool = False) -> float | None:
        """Do everything that is due, once; seconds until more is, None when nothing is left to do."""
        key = None if job_id is None else self._store.find(job_id).key
        return self._runner().advance(key, eager=eager)

    def wait(
        self,
        job_id: str,
        timeout: float | None = None,
        progress: OnProgress | None = None,
        *,
        outage_seconds: float | None = None,
    ) -> JobStatus:
        """Advance the job until every request has a result.

        Raises `WaitTimeout` after `timeout` seconds, `NeedsOperator`, `AccessRefused`, `SetupError` or
        `BatchStorageError` when a person must act, and `Unreachable` when every call has failed for
        `outage_seconds` (None: never); `BatchStateError` for a draft. The job is unchanged by any of them.
        """
        steps = self.waiting(job_id, timeout, progress, outage_seconds=outage_seconds)
        return slept_through(steps, self._clock.sleep)

    def waiting(
        self,
        job_id: str,
        timeout: float | None = None,
        progress: OnProgress | None = None,
        *,
        outage_seconds: float | None = None,
    ) -> Pausing[JobStatus]:
        """`wait` for those who sleep otherwise: the seconds between its looks, then the status."""
        job = self._store.find(job_id)
        runner, watch = self._runner(progress), ClockWatch(self._clock)

        def look(eager: bool) -> Seen:
            due = runner.advance(job.key, eager=watch.was_set_back() or eager)
            status = self._snapshot(job.key, quotas=True, bills=self._bills(job.key))
            if progress is not None:
                progress(progress_of(status))
            return Seen(status, self._shards(job.key), due)

        return until_ended(look, Patience(outage_seconds), self._clock.monotonic, timeout)

    def wait_all(
        self,
        job_ids: Sequence[str],
        *,
        on_status: Callable[[JobStatus], None] | None = None,
        outage_seconds: float | None = None,
    ) -> dict[str, LangBatchError]:
        """Advance several jobs until none can get further by itself. Trouble with one holds up no other.

        The errors of those that are not finished, by the ids given: what `wait` would have raised.
        """
        keys = {job_id: self._store.find(job_id).key for job_id in job_ids}
        runner, watch = self._runner(), ClockWatch(self._clock)

        def look(waited_for: Collection[str], eager: bool) -> Iterator[tuple[str, Seen]]:
            eager |= watch.was_set_back()
            # Together: the last job's batches are seen as early as the first's, and with few calls.
            together = runner.look([keys[job_id] for job_id in waited_for], eager=eager)
            for job_id in waited_for:
                due = runner.advance(keys[job_id], eager=eager, look=together)
                job, shards = self._store.job(keys[job_id]), self._store.shards(keys[job_id])
                status = job_status(job, shards)
                if on_status is not None:
                    on_status(status)
                yield job_id, Seen(status, [shard for shard, _ in shards], due)

        steps = until_each_ended(job_ids, look, lambda: Patience(outage_seconds), self._clock.monotonic)
        return slept_through(steps, self._clock.sleep)

    def cancel(self, job_id: str) -> bool:
        """Ask the service to stop, keep what has finished. False where the job had ended already.

        `BatchStateError` for a draft."""
        job = self._store.find(job_id)
        if job.state == "draft":
            raise not_started(job.id)
        if not self._store.request_cancel(job.key):
            return False
        self._runner().advance(job.key)
        return True

    def retry(self, job_id: str, *, start: bool = True, force: bool = False) -> JobStatus:
        """Send again the requests without success, as new attempts. Successes are kept.

        `BatchStateError` while the job is unfinished, and where the last three paid attempts brought no
        further success, unless `force`."""
        from langbatch.running import settlement

        job = self._store.find(job_id)
        settlement.retry(self._store, self.home, job, force=force)
        return self.start(job.id) if start else self.status(job.id, offline=True)

    def ask_again(
        self,
        job_id: str,
        choose: Callable[[Result], bool],
        *,
        changes: Mapping[str, Any] | None = None,
        new: bool = False,
        start: bool = True,
    ) -> Submission:
        """A job with the requests whose results `choose` picks, successes too; this one stays as it is.

        `changes` go into each body; None takes a key away. The same requests are the same job, unless `new`.
        Raises `JobNotFinished`, `BatchStateError` where none is picked, and what `start` raises."""
        from langbatch.again import write_chosen

        job = self._store.find(job_id)
        path = private_folder(self.home / "created") / f"{ids.new_job_id(self._clock.now())}.jsonl"
        try:
            write_chosen(self.results(job.id, with_request=True), path, choose, changes or {})
            submission = self.store_job(
                path,
                job.target,
                others=job.others,
                name=f"{job.name or job.id}, again",
                new=new,
                split_by_model=True,
            )
        finally:
            path.unlink(missing_ok=True)
        self._access.use_those_of(job.id, submission.id)
        if start:
            self.start(submission.id)
        return submission

    def adopt(self, job_id: str, batch_id: str, *, shard: int | None = None) -> JobStatus:
        """Settle a shard that needs an operator: this batch is its batch. Raises `BatchStateError` where
        no shard, or more than one, needs it, and `ProviderError` where the batch cannot be read."""
        from langbatch.running import settlement

        job = self._store.find(job_id)
        settlement.adopt(self._store, bind(self._access.provider, job), job, batch_id, shard)
        return self.status(job.id)

    def resubmit(self, job_id: str, *, shard: int | None = None) -> JobStatus:
        """Settle a shard that needs an operator: whatever became of its batch does not count; send it
        again, and pay for it again if there was one. Raises `BatchStateError` as `adopt`."""
        from langbatch.running import settlement

        job = self._store.find(job_id)
        settlement.resubmit(self._store, bind(self._access.provider, job), self._clock, job, shard)
        return self.status(job.id)

    # ------------------------------------------------------------ out

    def events(self, job_id: str | None = None, *, after: int = 0) -> Iterator[Event]:
        """What has happened to a job, or to all, in order, streamed; `after` is the `n` of an event.

        Events go when their job is purged. See `langbatch.events`."""
        from langbatch.store import following

        key = None if job_id is None else self._store.find(job_id).key
        while page := following.read(self._store, after, job=key):
            yield from page
            after = page[-1].n

    def results(self, job_id: str, *, with_request: bool = False, partial: bool = False) -> Iterator[Result]:
        """One `Result` per request, in input order, streamed.

        Raises `JobNotFinished` while requests lack a result, unless `partial`: then only those there are.
        """
        return self._delivery(job_id, partial).results(with_request=with_request)

    def _delivery(self, job_id: str, partial: bool) -> Delivery:
        job = self._store.find(job_id)
        if not partial:
            require_finished(job)
        return Delivery(self.home, job, self._shards(job.key))

    def export(
        self,
        job_id: str,
        out: Path | BinaryIO,
        *,
        format: str | None = None,  # noqa: A002 - the word users write
        flatten: bool = False,
        with_request: bool = False,
        partial: bool = False,
        replace: bool = True,
    ) -> JobStatus:
        """Write the joined results to a path (atomically, 0600) or an open binary stream.

        `format`: jsonl, csv or parquet; None: by the path's ending, else jsonl. `flatten`: a column for each
        part of the answers that are JSON. Without `replace`, a path that exists by the end stays as it is:
        `BatchResultsError`, as for a folder that is not there. `SetupError` where Parquet needs an extra."""
        chosen = format_of(out if isinstance(out, Path) else Path(), format)
        self._delivery(job_id, partial).export(
            out, chosen, with_request=with_request, flatten=flatten, replace=replace
        )
        return self.status(job_id, offline=True)

    def dataframe(
        self,
        job_id: str,
        library: Literal["pandas", "polars"],
        *,
        flatten: bool = True,
        with_request: bool = False,
        partial: bool = False,
    ) -> Any:
        """The joined results as a DataFrame, whole in memory. `SetupError` where its library is missing."""
        delivery = self._delivery(job_id, partial)
        made = delivery.to_pandas if library == "pandas" else delivery.to_polars
        return made(flatten=flatten, with_request=with_request)

    def results_file(self, job_id: str) -> Path:
        """The joined results as a file of the store's own (JSONL). `JobNotFinished` before the end."""
        return self._delivery(job_id, partial=False).file()

    def rejects_file(self, job_id: str) -> Path | None:
        """Where the refused lines of a job submitted with `skip_invalid` are."""
        path = JobFolder.of(self.home, self._store.find(job_id).id).rejects
        return path if path.exists() else None

    def snapshot(self, job_id: str) -> Requests:
        """The job's private copy of its requests, read only: all that was asked, sent or not."""
        return all_requests(JobFolder.of(self.home, self._store.find(job_id).id))

    def purge(self, job_id: str, *, force: bool = False) -> tuple[str, ...]:
        """Delete the job, its prompts and its results, here and (its own files) at the service. The ids of
        files that the service could not be made to delete now: `gc` does it later."""
        from langbatch.upkeep.purging import finish_purge, purge_job, require_stopped

        try:
            job = self._store.find(job_id)
        except JobNotFound:
            if finish_purge(self._store, self.home, job_id):
                return ()
            raise
        if job.state not in SETTLED_JOB_STATES and job.state != "draft":
            if not force:
                raise BatchStateError(
                    f"job {job.id} is {job.state}: purging it would lose results that cost money",
                    hint=f"Cancel it first (`langbatch cancel {job.id}`), or add --force, which does.",
                )
            self.cancel(job.id)
            require_stopped(self._store, job)
        return purge_job(self._store, self.home, job, self._access.provider)

    # ------------------------------------------------------------ upkeep

    def doctor(
        self,
        provider: str = "azure",
        *,
        kind: EndpointKind = "chat_completions",
        model: str | None = None,
        canary: bool = False,
        **target: Any,
    ) -> Diagnosis:
        """What is wrong with this machine, the configuration or the endpoint. `canary` also measures the
        endpoint with a batch of one request (under a cent), which makes waits after lost replies shorter.
        With a profile, all of its targets are looked at.

        Raises nothing that it can tell instead; changes nothing but, with `canary`, what is known."""
        from langbatch.upkeep.doctor import Examination

        visit = Examination(self.settings, self._clock, lambda: self._store, profile=self._profile)
        return visit.examine(provider, kind=kind, model=model, canary=canary, **target)

    def gc(self, *, dry_run: bool = False) -> Cleanup:
        """Delete what finished jobs left at their services, and leftovers of dead processes here. `dry_run`
        only tells. Trouble with an endpoint is in the answer's `errors`, and the others are tidied."""
        from langbatch.upkeep.cleanup import Sweeper

        return Sweeper(self._store, self.home, self._access.provider, self._clock, dry_run).sweep()

    def recover(
        self,
        provider: str = "azure",
        *,
        store_id: str | None = None,
        kind: EndpointKind = "chat_completions",
        model: str | None = None,
        targets: Sequence[Mapping[str, Any]] = (),
        **target: Any,
    ) -> Recovery:
        """Bring back jobs whose database is lost from what the services show of them, then advance them.

        Name the targets as at `submit`, all of a job's at once: `targets`, several deployments, or the
        manager's profile. A job with further ones is left alone, since what was sent there would be sent
        again. `store_id` names the store that was lost; without it, jobs of this store, or, into an empty
        one, of the only other that is found. Safe to repeat. Raises `BatchStateError` where several stores
        could be meant, and what listing and downloading raise."""
        from langbatch.upkeep.recovery import Opened, Recoverer

        profile = None if targets else self._profile
        found = resolve_targets(provider, kind, model=model, profile=profile, targets=targets, **target)
        with ExitStack() as closing:
            opened: list[Opened] = []
            for where, credentials in found:
                reached = open_provider(where, credentials)
                closing.callback(reached.close)
                opened.append(Opened(where, reached, credentials))
            done = Recoverer(self._store, self.home, opened, self._clock).recover(store_id)
        for job_id in done.jobs:
            self._access.use_recovered(self._store.find(job_id), found)
            self.status(job_id)
        return done

    def target_of(self, job_id: str) -> Target:
        """Where the job is sent."""
        return self._store.find(job_id).target

    def unsuccessful(self, job_id: str) -> list[Unsuccessful]:
        """The requests without success so far, in input order. `ordinal` counts all that were asked."""
        job = self._store.find(job_id)
        folder, found = JobFolder.of(self.home, job.id), self._store.unsuccessful(job.key)
        return list(expanded(folder, found)) if ReusePlan.exists(folder) else found

    def failures(self, job_id: str) -> list[FailureCount]:
        """Why requests ended without success so far: each code with its requests, the most frequent first."""
        from langbatch.store.failures import count, counted

        job = self._store.find(job_id)
        copies = copies_of(JobFolder.of(self.home, job.id))
        if copies is None:
            return counted(self._store, job.key)
        return count((item, 1 + copies[item.ordinal]) for item in self._store.unsuccessful(job.key))

    def draft_status(self, job_id: str, target: Target, intake: Intake | None) -> JobStatus:
        """The snapshot of a job that was validated but never stored."""
        total, rejected = (intake.total, intake.rejected) if intake else (0, 0)
        return draft_status(job_id, target, total, rejected, self._clock.now())


def _rules(target: Target, skip_invalid: bool, auto_id: bool, split_by_model: bool, gzip: bool) -> Rules:
    return Rules(
        kind=target.kind,
        provider=target.provider,
        limits=limits_for(target),
        model=target.model,
        skip_invalid=skip_invalid,
        auto_id=auto_id,
        split_by_model=split_by_model,
        gzip=gzip,
    )
