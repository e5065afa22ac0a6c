"""Looking at many running batches with few calls: a page of the service's list shows a hundred.

News in a list are believed; that it does not show something, or cannot be read, says nothing about any
batch. Those that are left are looked at one by one, a ration in each cycle; and so are a few of those that
it shows as they were before, since a list may be kept from one hour to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from langbatch.clock import Clock
from langbatch.errors import (
    AccessRefused,
    FateUnknown,
    LangBatchError,
    ProviderError,
    SetupError,
    Throttled,
    Unreachable,
)
from langbatch.providers.base import Provider
from langbatch.records import Job, RemoteBatch, Target
from langbatch.running import decisions as d
from langbatch.running.reconcile import Sighting, sight_batches
from langbatch.running.step import setback_facts
from langbatch.running.watching import running_news
from langbatch.store.observation import LiveBatch, Seen
from langbatch.store.store import JobStore

#: Fewer batches than this are looked at one by one: their list may be long.
LIST_FROM = 3
#: Calls to one endpoint in a cycle: what the list leaves of them goes to single looks, a few at least.
CALLS = 25
LEAST_SINGLE_LOOKS = 5
#: Failed calls in a row that say the endpoint is in trouble, and not a batch.
FAILED_CALLS = 3
#: A batch that a list did not show is not looked for there again during so many polls.
POLLS_UNLISTED = 10
#: The longest time for which a list that cannot be read is left alone, in seconds.
LONGEST_REST_SECONDS = 3600.0

Spot = tuple[int, int]
"""A shard: its job's key, and its index."""


def endpoint_of(target: Target) -> Hashable:
    """What shares one list of batches, as far as a stored target tells. Deployments of a resource do."""
    own = ("weight", "quota_tokens")
    settings = sorted((name, value) for name, value in target.settings.items() if name not in own)
    return target.provider, target.host, tuple(settings)


@dataclass(slots=True)
class Habit:
    """What was learnt about an endpoint. Kept in memory: a new process finds it out again."""

    #: Until when it is not asked at all, since several calls in a row have failed.
    closed_until: float = 0.0
    #: How often its list could not be read, in a row, and until when the list is left alone.
    failures: int = 0
    rest_until: float = 0.0
    #: Batches that the list did not show, and until when they are not looked for there.
    unlisted: dict[str, float] = field(default_factory=dict)


Habits = dict[Hashable, Habit]


@dataclass(slots=True)
class Group:
    """Running batches of one endpoint in one cycle: due, due soon, or later."""

    #: One of the batches' job, and its target's place there: whose credentials open the list.
    job: Job
    place: int
    policy: d.Policy
    habit: Habit
    #: Those that still have to be looked at singly, the most due first.
    due: dict[Spot, LiveBatch] = field(default_factory=dict)
    soon: dict[Spot, LiveBatch] = field(default_factory=dict)
    later: set[Spot] = field(default_factory=set)
    looks_left: int = CALLS
    failed_calls: int = 0

    @property
    def pause_seconds(self) -> float:
        """Until the next ration."""
        return self.policy.poll_seconds / 10


@dataclass(slots=True)
class Look:
    """What a cycle's first look has brought."""

    #: Batches that have ended, for the shards' own steps.
    ended: dict[Spot, RemoteBatch] = field(default_factory=dict)
    #: Shards of which all is recorded, and when each is due again.
    recorded: dict[Spot, float] = field(default_factory=dict)
    #: The groups of shards that must be looked at singly.
    groups: dict[Spot, Group] = field(default_factory=dict)
    #: Running batches that were not due: where they are by the time of their turn, the next cycle lists them.
    later: set[Spot] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Observer:
    """The first part of a cycle: one walk over the list of each endpoint with several batches due."""

    store: JobStore
    clock: Clock
    roll: Callable[[], float]
    open_provider: Callable[[Job, int], Provider]
    policy_for: Callable[[Target], d.Policy]
    endpoint_for: Callable[[Job, int], Hashable]
    habits: Habits

    def look(self, of_jobs: Collection[int] | None, *, eager: bool) -> Look:
        """Look at what is due, with what is due soon, and record what merely goes on."""
        found = Look()
        lives = self.store.live_batches(of_jobs)
        if len(lives) < LIST_FROM:
            return found
        for group in self._groups(lives, eager):
            if group.due and len(group.due) + len(group.soon) >= LIST_FROM:
                self._list(group, found, eager=eager)
            if len(group.due) + len(group.soon) + len(group.later) >= LIST_FROM:
                found.later |= group.soon.keys() | group.later
        return found

    def _groups(self, lives: Sequence[LiveBatch], eager: bool) -> Collection[Group]:
        jobs = {job.key: job for job in self.store.jobs(keys={live.job for live in lives})}
        endpoints: dict[tuple[int, int], Hashable] = {}
        groups: dict[Hashable, Group] = {}
        now = self.clock.now()
        for live in lives:
            if live.not_before > now or live.job not in jobs:
                continue
            job, place = jobs[live.job], live.place
            if (live.job, place) not in endpoints:
                endpoints[live.job, place] = self.endpoint_for(job, place)
            endpoint = endpoints[live.job, place]
            if endpoint not in groups:
                habit = self.habits.setdefault(endpoint, Habit())
                groups[endpoint] = Group(job, place, self.policy_for(job.targets[place]), habit)
            group = groups[endpoint]
            interval = d.poll_wait_seconds(_age(live, now), group.policy.poll_seconds, 1.0)
            if eager or live.due_at <= now:
                group.due[live.job, live.index] = live
            elif live.due_at <= now + interval / 2:
                # Looked at now it falls into step with the others, and spares a walk of its own.
                group.soon[live.job, live.index] = live
            else:
                group.later.add((live.job, live.index))
        return groups.values()

    def _list(self, group: Group, found: Look, *, eager: bool) -> None:
        now, habit = self.clock.now(), group.habit
        if habit.closed_until > now and not eager:
            found.recorded |= dict.fromkeys(group.due, habit.closed_until)
            return
        habit.unlisted = {name: until for name, until in habit.unlisted.items() if until > now}
        asked = {
            live.batch_id: live
            for live in (*group.due.values(), *group.soon.values())
            if live.batch_id not in habit.unlisted
        }
        if len(asked) >= LIST_FROM and habit.rest_until <= now:
            self._walk(group, asked, found)
        found.groups |= dict.fromkeys(group.due, group)

    def _walk(self, group: Group, asked: Mapping[str, LiveBatch], found: Look) -> None:
        now = self.clock.now()
        since = min(now if live.created_after is None else live.created_after for live in asked.values())
        try:
            provider = self.open_provider(group.job, group.place)
        except SetupError:
            return  # each of the jobs learns it from its own step
        sighting = sight_batches(provider.list_batches, asked.keys(), since, now)
        group.looks_left = max(LEAST_SINGLE_LOOKS, CALLS - sighting.pages)
        self._believe(group, [(asked[name], batch) for name, batch in sighting.seen.items()], found)
        self._remember(group, asked.keys() - sighting.seen.keys(), sighting)
        if isinstance(sighting.error, Throttled):
            # The service speaks to all who call it, so that nobody else need be told.
            self._share(group, sighting.error, "listing batches", found)

    def _remember(self, group: Group, unseen: Collection[str], sighting: Sighting) -> None:
        now, habit = self.clock.now(), group.habit
        if sighting.error is None:
            habit.failures, habit.rest_until = 0, 0.0
            habit.unlisted |= dict.fromkeys(unseen, now + POLLS_UNLISTED * group.policy.poll_seconds)
            return
        group.failed_calls = 1
        habit.failures += 1
        advice = d.after_read_error(sighting.error, "listing batches").advice_seconds or 0.0
        cap = max(group.policy.poll_seconds, min(LONGEST_REST_SECONDS, 60 * group.policy.poll_seconds))
        habit.rest_until = now + max(advice, d.backoff_seconds(habit.failures, cap, self.roll()))

    def _believe(self, group: Group, shown: Sequence[tuple[LiveBatch, RemoteBatch]], found: Look) -> None:
        now, running = self.clock.now(), list[Seen]()
        doubted = self._doubted(group, shown)
        for live, batch in shown:
            age = _age(live, now)
            match d.judge_batch(batch, age):
                case "running" if (live.job, live.index) in doubted:
                    pass
                case "running":
                    news = running_news(batch, live.batch_status, age, group.policy, self.roll(), now)
                    running.append(Seen(live, news.shard, news.attempt, news.event, batch.status))
                case "ended" | "quota_bounced" if d.says_enough(batch):
                    found.ended[live.job, live.index] = batch
                    group.due.pop((live.job, live.index), None)
                case _:
                    pass  # a look at the batch itself says more, or confirms it
        self._record(group, running, found)

    def _doubted(self, group: Group, shown: Sequence[tuple[LiveBatch, RemoteBatch]]) -> set[Spot]:
        """A few of those that the list shows without news, to be looked at themselves; next time others."""
        unchanged = [
            (live.job, live.index)
            for live, batch in shown
            if batch.status == live.batch_status and (live.job, live.index) in group.due
        ]
        room = min(LEAST_SINGLE_LOOKS, group.looks_left - (len(group.due) - len(unchanged)))
        first = int(self.roll() * len(unchanged))
        return set((unchanged[first:] + unchanged[:first])[: max(0, room)])

    def _record(self, group: Group, seen: Sequence[Seen], found: Look) -> None:
        written = self.store.record_seen(seen)
        for item in seen:
            spot = item.live.job, item.live.index
            group.due.pop(spot, None)
            if spot in written:
                found.recorded[spot] = max(item.shard["due_at"], item.shard["not_before"])

    # ------------------------------------------------------------ single looks

    def looked(self, look: Look, spot: Spot, error: LangBatchError | None) -> None:
        """Say how a single look ended. An endpoint that takes no calls is not asked about each batch."""
        group = look.groups.pop(spot)
        group.due.pop(spot, None)
        group.looks_left -= 1
        if not isinstance(error, AccessRefused | FateUnknown | Throttled | Unreachable):
            group.failed_calls = 0
            return
        group.failed_calls += 1
        if group.failed_calls >= FAILED_CALLS:
            self._share(group, error, "polling", look)

    def _share(self, group: Group, error: ProviderError, doing: str, found: Look) -> None:
        """Record for every batch that is still to be looked at what looking would bring; all are due again
        at one moment, and until then nothing is asked about those that were looked at before."""
        setback, now, roll = d.after_read_error(error, doing), self.clock.now(), self.roll()
        troubles = 1 + max((live.troubles for live in group.due.values()), default=0)
        facts = setback_facts(setback, troubles, group.policy, roll, now)
        group.habit.closed_until = max(facts["due_at"], facts["not_before"])
        for spot in group.due:
            found.groups.pop(spot, None)
        trouble = [Seen(live, facts, event="trouble", note=setback.code) for live in group.due.values()]
        self._record(group, trouble, found)


def _age(live: LiveBatch, now: float) -> float:
    return now - (live.created_after or now)
