"""Who runs when. Simulated processes are threads that pass a baton, so that exactly one runs at a time and
the order depends on the seed alone; time stands still while anybody runs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

START = 1_760_000_000.0
#: Real seconds in which no turn is taken before a run is given up: an actor waits, outside of our time, for
#: something that only another one could do, such as a file lock. SQLite gives up on its own locks after 30.
STUCK_SECONDS = 45.0


class VirtualClock:
    """Seconds since the epoch, moved by the stage alone."""

    def __init__(self, at: float = START) -> None:
        self._at = at

    def now(self) -> float:
        return self._at

    def monotonic(self) -> float:
        return self._at

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the core does not sleep by itself; processes rest on the stage")

    def move_to(self, at: float) -> None:
        self._at = max(self._at, at)


class Dismissed(BaseException):
    """The play is over for this actor. Not an Exception, so that the core does not catch it."""


class Endless(AssertionError):
    """More turns were taken than any run that gets anywhere needs."""


class Stuck(AssertionError):
    """The running actor waits for one that rests, and does so where the stage cannot let the other go on."""


class Actor:
    """One simulated process. `wake_at` is the virtual time before which it does nothing."""

    def __init__(self, name: str, wake_at: float, body: Callable[[], None]) -> None:
        self.name = name
        self.wake_at = wake_at
        self.body = body
        self.baton = threading.Lock()
        self.baton.acquire()
        self.thread: threading.Thread | None = None


class Stage:
    """The scheduler. Whoever is awake may run next; when nobody is, time moves to the next to wake."""

    def __init__(self, clock: VirtualClock, rng: random.Random, most_turns: int = 200_000) -> None:
        self.clock = clock
        self.turns = 0
        self._rng = rng
        self._most_turns = most_turns
        self._actors: list[Actor] = []
        self._until = float("inf")
        self._main = threading.Lock()
        self._main.acquire()
        self._error: BaseException | None = None
        self._dismissing = False
        self._stuck = False
        self.current: Actor | None = None

    @property
    def dismissing(self) -> bool:
        return self._dismissing

    def add(self, name: str, body: Callable[[], None], after_seconds: float = 0.0) -> Actor:
        actor = Actor(name, self.clock.now() + after_seconds, body)
        actor.thread = threading.Thread(target=self._play, args=(actor,), name=name, daemon=True)
        self._actors.append(actor)
        actor.thread.start()
        return actor

    def run(self, until: float = float("inf")) -> bool:
        """Let everybody act until they all rest beyond `until`; whether anybody is left. Raises what one raised."""
        self._until = until
        first = self._pick()
        if first is not None:
            self._pass_baton(first)
            self._watch()
        self.current = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if until != float("inf"):
            self.clock.move_to(until)
        return bool(self._actors)

    def rest(self, seconds: float) -> None:
        """The running actor lets others go first, at least for so long."""
        actor = self.current
        assert actor is not None
        if self._dismissing:
            raise Dismissed
        self.turns += 1
        if self.turns > self._most_turns:
            raise Endless(f"{self.turns} turns and no end")
        actor.wake_at = self.clock.now() + seconds
        following = self._pick()
        if following is actor:
            return
        if following is None:
            self._main.release()
        else:
            self._pass_baton(following)
        actor.baton.acquire()
        if self._dismissing:
            raise Dismissed

    def _watch(self) -> None:
        """Wait until the actors give the baton back."""
        turns = -1
        while not self._main.acquire(timeout=STUCK_SECONDS):
            if turns == self.turns:
                self._stuck = True
                name = self.current.name if self.current is not None else "nobody"
                raise Stuck(f"{name} waits outside of our time, for something that a resting process holds")
            turns = self.turns

    def dismiss(self) -> None:
        """End every actor that is left, wherever it rests."""
        self._dismissing = True
        if self._stuck:
            return  # the baton cannot be had; the threads are daemons, and end with the program
        for actor in list(self._actors):
            self._pass_baton(actor)
            self._main.acquire()
        self.current = None
        self._error = None

    def _play(self, actor: Actor) -> None:
        actor.baton.acquire()
        try:
            if not self._dismissing:
                actor.body()
        except Dismissed:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to whoever called `run`
            self._error = error
        self._actors.remove(actor)
        following = None if self._dismissing or self._error is not None else self._pick()
        if following is None:
            self._main.release()
        else:
            self._pass_baton(following)

    def _pass_baton(self, to: Actor) -> None:
        self.current = to
        to.baton.release()

    def _pick(self) -> Actor | None:
        if not self._actors:
            return None
        now = self.clock.now()
        awake = [actor for actor in self._actors if actor.wake_at <= now]
        if not awake:
            wake_at = min(actor.wake_at for actor in self._actors)
            if wake_at > self._until:
                return None
            self.clock.move_to(wake_at)
            awake = [actor for actor in self._actors if actor.wake_at <= wake_at]
        return awake[0] if len(awake) == 1 else awake[self._rng.randrange(len(awake))]
