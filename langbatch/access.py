"""A manager's access to its store and to the services: opened when first needed, closed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from langbatch.clock import Clock
from langbatch.config.resolving import reopen_target
from langbatch.config.settings import Settings
from langbatch.errors import SetupError
from langbatch.providers import open_provider
from langbatch.providers.credentials import Credentials
from langbatch.publish import private_folder
from langbatch.records import Job, Target
from langbatch.running import journal
from langbatch.running.space import refuse_network_disk

if TYPE_CHECKING:
    from langbatch.events import Event
    from langbatch.providers.base import Provider
    from langbatch.store.store import JobStore
    from langbatch.telling.teller import Teller


class Access:
    """One store, one provider for each target of a job, and whoever is told of events. A manager's threads
    open one of each, not one each.

    Credentials that were given are kept here, in memory alone; those of other targets are looked up.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        on_event: Callable[[Event], None] | None,
        consumer: str | None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_event = on_event
        self._consumer = consumer
        #: By a job's id and the place of a target in it.
        self._credentials: dict[tuple[str, int], Credentials] = {}
        self._store: JobStore | None = None
        self._providers: dict[tuple[int, int], Provider] = {}
        self._teller: Teller | None = None
        self._lock = threading.Lock()

    # ------------------------------------------------------------ the store, and who is told of its events

    @property
    def store(self) -> JobStore:
        with self._lock:
            if self._store is None:
                self._store = self._open_store()
                journal.replay(self._store, self._settings.home)
            return self._store

    def _open_store(self) -> JobStore:
        from langbatch.store.store import JobStore

        home = self._settings.home
        private_folder(home)
        if not any(home.iterdir()):
            home.chmod(0o700)  # made by somebody for us, with the umask
        private_folder(home / "jobs")
        if self._settings.database_url is None:
            refuse_network_disk(home)
        store = JobStore.open(home, self._settings.database_url, clock=self._clock)
        try:
            self._teller = self._open_teller(store)
        except BaseException:
            store.close()
            raise
        return store

    def _open_teller(self, store: JobStore) -> Teller | None:
        """Who tells others of events; None where nobody wants to know, which then costs nothing."""
        if self._on_event is None and not self._settings.tells_others:
            return None
        from langbatch.telling.teller import open_teller

        return open_teller(store, self._settings, self._clock, self._on_event, self._consumer)

    @property
    def on_step(self) -> Callable[[], None] | None:
        """What tells whoever wants to know of the events that are committed by now; None if nobody does."""
        return None if self._teller is None else self._teller.tell

    def tell(self) -> None:
        if self._teller is not None:
            self._teller.tell()

    # ------------------------------------------------------------ the services

    def provider(self, job: Job, place: int = 0) -> Provider:
        """The service at the job's `place`-th target. Raises `SetupError` where credentials are missing."""
        key = (job.key, place)
        with self._lock:
            provider = self._providers.get(key)
            if provider is None:
                provider = open_provider(job.targets[place], self._credentials_for(job, place))
                if self._teller is not None:
                    provider = self._teller.counted(provider, job, place)
                self._providers[key] = provider
            return provider

    def endpoint(self, job: Job, place: int) -> Hashable:
        """What shares one list of batches: a place, and who asks there."""
        from langbatch.running.observing import endpoint_of

        try:
            who: Hashable = self._credentials_for(job, place)
            hash(who)
        except SetupError:
            who = None
        except TypeError:
            who = id(who)  # a user's own credential object, which may not be hashable
        return endpoint_of(job.targets[place]), who

    def _credentials_for(self, job: Job, place: int) -> Credentials:
        return self._credentials.get((job.id, place)) or reopen_target(job.targets[place])

    def use(self, job: Job, found: Sequence[tuple[Target, Credentials]]) -> None:
        """Use these credentials for calls to the job's targets from now on. They are never stored."""
        stored = {target.label: place for place, target in enumerate(job.targets)}
        for target, credentials in found:
            # A model that the lines name may have been said as the target's, or the other way round.
            place = stored.get(target.label, 0)
            self._credentials[job.id, place] = credentials
            if (provider := self._providers.pop((job.key, place), None)) is not None:
                provider.close()

    def use_recovered(self, job: Job, found: Sequence[tuple[Target, Credentials]]) -> None:
        """As `use`, for a job made from what was found there: all of its targets are among them."""
        for place, where in enumerate(job.targets):
            # An only target's model may be known from the lines alone.
            known = [each for each in found if each[0].label == where.label]
            known += [each for each in found if each[0].host == where.host]
            self._credentials[job.id, place] = known[0][1]

    def use_those_of(self, job_id: str, new_id: str) -> None:
        """Use for the job `new_id` what was given for `job_id`, which has the same targets."""
        for (known, place), credentials in list(self._credentials.items()):
            if known == job_id:
                self._credentials[new_id, place] = credentials

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Close everything. What is needed after that is opened anew."""
        with self._lock:
            teller, self._teller = self._teller, None
        if teller is not None:
            teller.close()  # outside of the lock: a listener may use the manager
        with self._lock:
            for provider in self._providers.values():
                provider.close()
            self._providers.clear()
            if self._store is not None:
                self._store.close()
                self._store = None
