"""Job state. Every change of a shard's state goes through `move`: one conditional update on the
expected state and the claim's fence, plus its event, in one transaction.

Only this package imports SQLAlchemy; what comes out are frozen records.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from langbatch import failpoints, processes
from langbatch.clock import Clock, SystemClock
from langbatch.errors import BatchStorageError
from langbatch.lifecycle import SETTLED_JOB_STATES, Move
from langbatch.records import (
    OUTCOMES,
    Bounds,
    Job,
    Tally,
    Target,
    Unsuccessful,
    Usage,
)
from langbatch.shards.sharding import ShardPlan
from langbatch.store import commitments, observation, reservations, rows
from langbatch.store.connections import Connections
from langbatch.store.database import (
    connect,
    lease_clock,
    prepare,
    sqlite_url,
    storage_error,
)
from langbatch.store.new_jobs import NewJob, insert_job, insert_shards
from langbatch.store.reader import Reader
from langbatch.store.schema import attempts, jobs, shards, store_facts, unsuccessful
from langbatch.store.transitions import (
    Claim,
    LostClaim,
    Writing,
    facts_note,
    is_held,
    summary,
    update_of_shard,
    with_newest_attempt,
)

#: How long a claim holds without being renewed, in seconds.
LEASE_SECONDS = 30.0


class JobStore(Reader):
    """One database. Any number of processes and threads may open it at the same time."""

    def __init__(
        self, connections: Connections, *, clock: Clock | None = None, owner: str | None = None
    ) -> None:
        prepare(connections)
        super().__init__(connections)
        self._clock: Clock = clock or SystemClock()
        self.owner = owner or processes.identity()
        self.store_id = self._own_id()

    @classmethod
    def open(cls, home: Path, database_url: str | None = None, *, clock: Clock | None = None) -> JobStore:
        """The store of a home folder (`langbatch.db` in it), or of any SQLAlchemy URL."""
        try:
            connections = Connections(connect(database_url or sqlite_url(home / "langbatch.db")))
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise BatchStorageError(
                f"LANGBATCH_DATABASE_URL cannot be used: {type(error).__name__}",
                hint="Give a SQLAlchemy URL (postgresql+psycopg://user@host/name) and install its driver.",
            ) from error
        return cls(connections, clock=clock)

    def close(self) -> None:
        self._connections.close()

    # ------------------------------------------------------------ transactions

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        try:
            with self._connections.writing() as connection:
                yield Writing(connection, self._clock.now())
                failpoints.reached("commit.before")
            failpoints.reached("commit.after")
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise storage_error(error) from error

    def _own_id(self) -> str:
        query = sa.select(store_facts.c.value).where(store_facts.c.name == "store_id")
        with self._reading() as connection:
            found = connection.execute(query).scalar()
        if found is None:
            try:
                with self._writing() as tx:
                    tx.execute(store_facts.insert().values(name="store_id", value=secrets.token_hex(4)))
            except IntegrityError:
                pass  # another process opened the new store at the same moment
            with self._reading() as connection:
                found = connection.execute(query).scalar_one()
        return str(found)

    # ------------------------------------------------------------ jobs

    def add_job(self, new: NewJob, *, replace_old: bool = False) -> tuple[Job, bool]:
        """Store a job with its shards, or return the one that the same bytes and target already made.

        The second value tells whether it was stored. `replace_old` (`--new`) always stores.
        """
        try:
            with self._writing() as tx:
                if replace_old:
                    tx.execute(jobs.update().where(jobs.c.reuse_key == new.reuse_key).values(reuse_key=None))
                key = insert_job(tx, new)
            return self.job(key), True
        except IntegrityError as error:
            existing = self.job_for(new.reuse_key)
            if existing is None:
                raise BatchStorageError("the job could not be stored: its id is taken") from error
            return existing, False

    def add_shards(self, job: int, plans: Sequence[ShardPlan], first_lines: Sequence[int]) -> None:
        """Give a draft its shards: from now on it runs; without any it has ended, since earlier jobs have
        answered all of it. A job that is no draft is left as it is."""
        with self._writing() as tx:
            if tx.execute(sa.select(jobs.c.state).where(jobs.c.key == job)).scalar() != "draft":
                return
            insert_shards(tx, job, plans, first_lines)
            tx.log(job, None, None, "started", None, None, None)
            tx.refresh_job(job)

    # ------------------------------------------------------------ claims

    def claim(self, job: int, index: int) -> Claim | None:
        """Take a shard for `LEASE_SECONDS`; None while a live process holds it.

        A lease whose holder is seen to be gone on this machine is taken over at once.
        """
        with self._writing() as tx:
            now = lease_clock(tx.connection, tx.now)
            row = tx.execute(_LEASE, {"job": job, "index": index}).one_or_none()
            if row is None:
                return None
            if is_held(row, now, LEASE_SECONDS):
                return None
            ours = {
                "its_job": job,
                "its_index": index,
                "its_fence": row.fence,
                "lease_owner": self.owner,
                "lease_until": now + LEASE_SECONDS,
                "fence": row.fence + 1,
                # A lease that nobody let go was left by a process that died or froze.
                "crashes": row.crashes + (row.lease_owner is not None),
            }
            taken = tx.execute(update_of_shard(("lease_owner", "lease_until", "fence", "crashes")), ours)
            return Claim(job, index, row.fence + 1) if taken.rowcount == 1 else None

    def renew(self, claim: Claim) -> bool:
        """Hold on to a claim; False where it was lost."""
        with self._writing() as tx:
            until = lease_clock(tx.connection, tx.now) + LEASE_SECONDS
            return tx.set_on_held(claim, {"lease_until": until})

    def release(self, claim: Claim) -> None:
        """Let a shard go. A lost claim is let go already."""
        with self._writing() as tx:
            tx.set_on_held(claim, {"lease_owner": None, "lease_until": 0.0})

    # ------------------------------------------------------------ transitions

    def move(
        self,
        claim: Claim,
        origin: str,
        move: Move,
        *,
        shard: Mapping[str, Any] | None = None,
        attempt: Mapping[str, Any] | None = None,
        note: str | None = None,
    ) -> None:
        """Apply one move with the facts it brings. Raises `IllegalMove` for one the table does not
        know, `LostClaim` where the shard is no longer ours; `NoRoom` and `OverBudget` where a batch may not
        be created now. Nothing is changed then."""
        with self._writing() as tx:
            if move == "create_begins":
                reserving = tx.execute(_RESERVING, {"job": claim.job, "index": claim.index}).one()
                if reserving.account is not None:
                    ours = (claim.job, claim.index)
                    reservations.require_room(
                        tx, reserving.account, reserving.tokens, ours, reservations.HOLDING
                    )
            facts = dict(attempt or {})
            if move == "create_begins":
                facts |= commitments.confirm(tx, claim)
            elif move == "operator_adopts":
                facts |= commitments.commit_unasked(tx, claim)
            elif move in commitments.RELEASING:
                facts |= commitments.NOTHING
                commitments.wake(tx, claim.job)
            tx.move(claim, origin, move, shard or {}, facts, note)
            if move == "batch_ended":
                reserving = tx.execute(_RESERVING, {"job": claim.job, "index": claim.index}).one()
                reservations.lift_hold(tx, reserving.account)

    def split(
        self,
        claim: Claim,
        pieces: Sequence[ShardPlan],
        first_lines: Sequence[int],
        *,
        files: Callable[[], None] | None = None,
    ) -> None:
        """Cut a waiting shard without any success into `pieces`. It keeps its index as the first; the others
        get new ones, so shards are in input order by `first`, not by index. `files`: as in `finish`."""
        with self._writing() as tx:
            row = tx.require(claim)
            if row.state != "waiting" or (row.attempt != 0 and row.succeeded):
                raise LostClaim("the shard has been sent meanwhile")
            head, *rest = pieces
            facts = {"requests": head.count, "bytes": head.bytes, **rows.from_bounds(head.bounds)}
            tx.patch(claim, row.attempt, facts, {}, state="waiting")
            last = tx.execute(
                sa.select(sa.func.max(shards.c.index)).where(shards.c.job == claim.job)
            ).scalar_one()
            renumbered = [replace(piece, index=last + n) for n, piece in enumerate(rest, 1)]
            insert_shards(tx, claim.job, renumbered, first_lines[1:])
            note = f"{row.requests} requests into {len(pieces)} shards"
            tx.log(claim.job, claim.index, row.attempt, "split", "waiting", "waiting", note)
            tx.refresh_job(claim.job)
            if files is not None:
                files()

    def begin_upload(
        self,
        claim: Claim,
        number: int,
        name: str,
        requests: int,
        file_bytes: int,
        *,
        place: int = 0,
        account: str | None = None,
        tokens: int = 0,
        bounds: Bounds | None = None,
    ) -> None:
        """Commit the intent to upload: the attempt's row, its reservations and the move, before any byte is
        sent. `NoRoom` where the quota `account` has no room for `tokens` any more, `OverBudget` where the
        job's budget has none for `bounds`.

        An open attempt before `number` was on another target, and had stored nothing there: it is over."""
        now = self._clock.now()
        with self._writing() as tx:
            if account is not None:
                reservations.require_room(tx, account, tokens, (claim.job, claim.index))
            committed = commitments.reserve(tx, claim, number, bounds or Bounds())
            tx.execute(
                attempts.update()
                .where(
                    attempts.c.job == claim.job,
                    attempts.c.shard == claim.index,
                    attempts.c.number < number,
                    attempts.c.ended_at.is_(None),
                )
                .values(ended_at=now, ended_as="moved_away", **commitments.NOTHING)
            )
            exists = tx.execute(
                sa.select(attempts.c.name).where(
                    attempts.c.job == claim.job,
                    attempts.c.shard == claim.index,
                    attempts.c.number == number,
                )
            ).scalar()
            if exists is None:
                tx.execute(
                    attempts.insert().values(
                        job=claim.job,
                        shard=claim.index,
                        number=number,
                        name=name,
                        requests=requests,
                        opened_at=now,
                        target=place,
                        tokens=tokens,
                        batch_total=0,
                        batch_completed=0,
                        batch_failed=0,
                    )
                )
            tx.move(
                claim,
                "waiting",
                "upload_begins",
                {"attempt": number},
                {
                    "name": name,
                    "requests": requests,
                    "file_bytes": file_bytes,
                    "account": account,
                    "tokens": tokens,
                    **committed,
                },
                name,
                number=number,
            )

    def record(
        self,
        claim: Claim,
        *,
        shard: Mapping[str, Any] | None = None,
        attempt: Mapping[str, Any] | None = None,
        event: str | None = None,
        note: str | None = None,
        files: Callable[[], None] | None = None,
    ) -> None:
        """Facts that change no state: a poll's counts, a wait, a trouble. Never the columns of a move.

        `files`: as in `finish`."""
        with self._writing() as tx:
            row = tx.require(claim)
            if files is not None:
                files()
            tx.patch(claim, row.attempt, shard or {}, attempt or {})
            if event is not None:
                tx.log(claim.job, claim.index, row.attempt, event, row.state, row.state, note)
            tx.refresh_job(claim.job)

    def record_seen(self, seen: Sequence[observation.Seen]) -> set[tuple[int, int]]:
        """As `record`, for many running batches at once and without claims. The shards `(job, index)` that
        were written; the others are held, or were changed or looked at by somebody else meanwhile."""
        if not seen:
            return set()
        with self._writing() as tx:
            return observation.record(tx, seen)

    def finish(
        self,
        claim: Claim,
        origin: str,
        move: Move,
        *,
        shard: Mapping[str, Any],
        attempt: Mapping[str, Any],
        tally: Tally,
        usage: Usage,
        rows_without_success: Iterable[Unsuccessful],
        note: str | None = None,
        files: Callable[[], None] | None = None,
        paid: bool = False,
        counts_agree: bool | None = None,
    ) -> None:
        """A move to `done`, with the shard's outcomes, in one transaction.

        `paid`: whether the attempt had a batch that ran; those that bring no further success are counted.
        `counts_agree`: whether the service reported no more input than was counted; None: cannot be told.
        `note` is followed by the outcomes that this attempt brought.
        `files` changes the shard's files while the claim is known to hold: a process that was frozen and
        comes back must not put its old files over those of the one that took over.
        """
        with self._writing() as tx:
            row = tx.require(claim)
            in_vain = 0 if tally.succeeded > row.succeeded else row.in_vain + paid
            facts = {**shard, **summary(tally, usage), "in_vain": in_vain}
            # Of an attempt that was open; what an earlier one used stays.
            given = commitments.NOTHING if attempt and move in commitments.RELEASING else {}
            # What this attempt brought, beside what there was.
            brought = replace(tally, succeeded=tally.succeeded - row.succeeded)
            told = facts_note({name: getattr(brought, name) for name in OUTCOMES}, note)
            tx.move(claim, origin, move, facts, {**attempt, **given}, told)
            if counts_agree is not None:
                commitments.note_counts(tx, claim.job, counts_agree)
            commitments.wake(tx, claim.job)
            if files is not None:
                files()
            tx.execute(
                unsuccessful.delete().where(
                    unsuccessful.c.job == claim.job,
                    unsuccessful.c.ordinal >= row.first,
                    unsuccessful.c.ordinal < row.first + row.requests,
                )
            )
            left = iter(rows_without_success)
            # A batch that failed as a whole has a hundred thousand of them: never all as dictionaries.
            while batch := [rows.from_unsuccessful(claim.job, item) for item in islice(left, 1_000)]:
                tx.execute(unsuccessful.insert(), batch)
            tx.refresh_job(claim.job)

    def update_settings(self, job: int, targets: Sequence[Target]) -> None:
        """Let a job reach its targets by other api-versions or paths from now on."""
        text = json.dumps(dict(targets[0].settings), sort_keys=True)
        others = rows.targets_text(tuple(targets[1:]))
        with self._writing() as tx:
            changed = tx.execute(
                jobs.update()
                .where(jobs.c.key == job, sa.or_(jobs.c.settings != text, jobs.c.others != others))
                .values(settings=text, others=others)
            )
            if changed.rowcount:
                tx.log(job, None, None, "settings_changed", None, None, None)

    def request_cancel(self, job: int) -> bool:
        """Ask for a job's end. False where it had ended already, or was purged meanwhile."""
        now = self._clock.now()
        with self._writing() as tx:
            query = sa.select(jobs.c.state, jobs.c.cancel_requested).where(jobs.c.key == job)
            known = tx.execute(query).one_or_none()
            if known is None or known.state in SETTLED_JOB_STATES:
                return False
            tx.execute(jobs.update().where(jobs.c.key == job).values(cancel_requested=True, updated_at=now))
            tx.execute(shards.update().where(shards.c.job == job).values(due_at=0.0))
            # What the service asked to wait for was another call. Ending what was not sent takes none, and a
            # batch that runs on costs money: it is told once, at once.
            ends = ["waiting", "uploaded"] + ["active"] * (not known.cancel_requested)
            tx.execute(
                shards.update().where(shards.c.job == job, shards.c.state.in_(ends)).values(not_before=0.0)
            )
            tx.log(job, None, None, "cancel_requested", None, None, None)
            return True

    def reopen(self, claim: Claim, bounds: Bounds | None = None) -> None:
        """Send a finished shard's requests without success again, as the next attempt; `bounds` are theirs,
        for a job with a budget."""
        with self._writing() as tx:
            tx.execute(
                jobs.update().where(jobs.c.key == claim.job).values(cancel_requested=False, finished_at=None)
            )
            tx.move(
                claim,
                "done",
                "retry_requested",
                {
                    "ended_as": None,
                    "due_at": 0.0,
                    "not_before": 0.0,
                    "troubles": 0,
                    "attention": None,
                    **rows.from_bounds(bounds or Bounds()),
                    # Pending again: what they end with is open once more.
                    **{name: 0 for name in OUTCOMES if name != "succeeded"},
                },
                {},
                None,
            )


# Put together once: for statements of many columns that costs more than running them.
_THIS_SHARD = (shards.c.job == sa.bindparam("job"), shards.c.index == sa.bindparam("index"))
_RESERVING = (
    sa.select(attempts.c.account, attempts.c.tokens).select_from(with_newest_attempt()).where(*_THIS_SHARD)
)
_LEASE = sa.select(shards.c.lease_owner, shards.c.lease_until, shards.c.fence, shards.c.crashes).where(
    *_THIS_SHARD
)
