"""Telling consumers what is committed, each from its own place on, and never at a job's expense."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from langbatch.clock import Clock
from langbatch.errors import LangBatchError
from langbatch.events import Event
from langbatch.store import following
from langbatch.store.store import JobStore
from langbatch.store.transitions import LostClaim
from langbatch.telling.log_file import LogFile, NotNow

if TYPE_CHECKING:
    from langbatch.config.settings import Settings
    from langbatch.providers.base import Provider
    from langbatch.records import Job
    from langbatch.telling.courier import Courier
    from langbatch.telling.telemetry import Telemetry

_log = logging.getLogger("langbatch")

OnEvent = Callable[[Event], None]

#: A consumer that failed is left alone for so long.
REST_SECONDS = 30.0


class Consumer(Protocol):
    """Who is told. What `take` raises is logged, and told to nobody else."""

    #: Under which the store keeps its place; None: it is told what happens while this process lives.
    @property
    def name(self) -> str | None: ...

    #: Whether its place moves after each event, or after each page.
    @property
    def one_by_one(self) -> bool: ...

    @property
    def described(self) -> str: ...

    def take(self, events: Sequence[Event]) -> None: ...


class Listener:
    """A user's function. With a name it is told an event again that it raised for; without, the next one."""

    one_by_one = True

    def __init__(self, on_event: OnEvent, name: str | None) -> None:
        self._on_event = on_event
        self.name = None if name is None else f"listener:{name}"
        self.described = "on_event" if name is None else f"on_event ({name})"

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            self._on_event(event)


class Teller:
    """One process's part in telling the events of a store."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        consumers: Sequence[Consumer],
        courier: Courier | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        consumers = consumers if telemetry is None else [*consumers, telemetry]
        self._store = store
        self._clock = clock
        self._consumers = consumers
        self._courier = courier
        self._telemetry = telemetry
        self._seen: dict[Consumer, int] = {}
        self._rests_until: dict[object, float] = {}
        self._complained: set[object] = set()
        self._turn = threading.Lock()
        self._asked = threading.Event()
        self._in_use = False
        for consumer in consumers:
            if consumer.name is None:
                self._seen[consumer] = following.newest(store)
            else:
                following.register(store, consumer.name)

    def tell(self) -> None:
        """Tell everybody what is new. Called after whatever may have changed something, from any thread; of
        two calls at once, and of one from within a consumer, the first does the work of both."""
        self._in_use = True
        self._asked.set()
        while self._asked.is_set() and self._turn.acquire(blocking=False):
            try:
                self._asked.clear()
                for consumer in self._consumers:
                    tell_one = self._tell_here if consumer.name is None else self._tell_named
                    self._safely(consumer, tell_one, consumer)
                if self._courier is not None:
                    self._safely("webhooks", self._courier.tend)
            finally:
                self._turn.release()

    def close(self) -> None:
        """Tell what is left, and wait a little for webhooks under way. A manager that only looked things up
        sends nothing."""
        if not self._in_use:
            return
        self._rests_until.clear()
        self.tell()
        if self._courier is not None:
            self._safely("webhooks", self._courier.finish)

    def counted(self, provider: Provider, job: Job, place: int) -> Provider:
        """The provider, its calls counted where somebody wants to know."""
        return provider if self._telemetry is None else self._telemetry.counted(provider, job, place)

    # ------------------------------------------------------------ inside

    def _safely(self, who: Consumer | str, tell: Callable[..., None], *arguments: Consumer) -> None:
        """Whatever goes wrong in telling is said once, and is nobody's trouble."""
        if self._rests_until.get(who, 0.0) > self._clock.monotonic():
            return
        try:
            tell(*arguments)
        except (NotNow, LostClaim):
            return
        except Exception as error:  # noqa: BLE001 - a listener may raise anything
            self._rests_until[who] = self._clock.monotonic() + REST_SECONDS
            self._complain(who, error)
            return
        if isinstance(who, str) or who.name is not None:
            self._complained.discard(who)  # it works again

    def _tell_here(self, consumer: Consumer) -> None:
        while following.has_more(self._store, self._seen[consumer]):
            for event in following.read(self._store, self._seen[consumer]):
                self._seen[consumer] = event.n
                try:
                    consumer.take([event])
                except Exception as error:  # noqa: BLE001 - as above; the next event is told all the same
                    self._complain(consumer, error)

    def _tell_named(self, consumer: Consumer) -> None:
        assert consumer.name is not None
        # Again at the end: who found the consumer held while we told it has left its events to us.
        while following.has_news(self._store, consumer.name):
            turn = following.take_turn(self._store, consumer.name)
            if turn is None:
                return
            try:
                while events := following.read(self._store, turn.seen):
                    size = 1 if consumer.one_by_one else len(events)
                    for first in range(0, len(events), size):
                        portion = events[first : first + size]
                        consumer.take(portion)
                        turn = following.passed(self._store, turn, portion[-1].n)
            finally:
                following.give_back(self._store, turn)

    def _complain(self, who: Consumer | str, error: Exception) -> None:
        if who in self._complained:
            return
        self._complained.add(who)
        named = who if isinstance(who, str) else who.described
        if isinstance(error, LangBatchError):
            _log.warning("%s: %s", named, error.message)
        elif isinstance(who, Listener):
            _log.warning("%s raised; the jobs go on", named, exc_info=error)
        else:
            words = getattr(error, "strerror", None) or type(error).__name__
            _log.warning("%s does not work: %s", named, words)


def open_teller(
    store: JobStore, settings: Settings, clock: Clock, on_event: OnEvent | None, consumer: str | None
) -> Teller | None:
    """Who wants to be told of a store's events; None where nobody does, which then costs nothing."""
    consumers: list[Consumer] = []
    courier: Courier | None = None
    telemetry: Telemetry | None = None
    if on_event is not None:
        consumers.append(Listener(on_event, consumer))
    if settings.event_log is not None:
        consumers.append(LogFile(settings.event_log))
    if (webhook := settings.webhook) is not None:
        from langbatch.telling.courier import Courier

        courier = Courier(store, clock, webhook)
    if settings.telemetry:
        from langbatch.telling.telemetry import Telemetry

        telemetry = Telemetry(store)
    if not consumers and courier is None and telemetry is None:
        return None
    return Teller(store, clock, consumers, courier, telemetry)
