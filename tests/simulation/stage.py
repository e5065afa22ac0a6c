"""Who runs when. Simulated processes are greenlets: exactly one runs at a time, it alone says
when another may, and the order depends on the seed alone; time stands still while anybody runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

from greenlet import getcurrent, greenlet

START = 1_760_000_000.0


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


class Actor:
    """One simulated process. `wake_at` is the virtual time before which it does nothing."""

    def __init__(self, name: str, wake_at: float, body: Callable[[], None]) -> None:
        self.name = name
        self.wake_at = wake_at
        self.body = greenlet(body)


class Stage:
    """The scheduler. Whoever is awake may run next; when nobody is, time moves to the next to wake."""

    def __init__(self, clock: VirtualClock, rng: random.Random, most_turns: int = 200_000) -> None:
        self.clock = clock
        self.turns = 0
        self._rng = rng
        self._most_turns = most_turns
        self._actors: list[Actor] = []
        self.dismissing = False
        self.current: Actor | None = None

    def add(self, name: str, body: Callable[[], None], after_seconds: float = 0.0) -> Actor:
        actor = Actor(name, self.clock.now() + after_seconds, body)
        self._actors.append(actor)
        return actor

    def run(self, until: float = float("inf")) -> bool:
        """Let everybody act until they all rest beyond `until`; whether anybody is left. Raises what one raised."""
        while (actor := self._pick(until)) is not None:
            self._let(actor, actor.body.switch)
        if until != float("inf"):
            self.clock.move_to(until)
        return bool(self._actors)

    def rest(self, seconds: float) -> None:
        """The running actor lets others go first, at least for so long."""
        actor = self.current
        assert actor is not None
        if self.dismissing:
            raise Dismissed
        self.turns += 1
        if self.turns > self._most_turns:
            raise Endless(f"{self.turns} turns and no end")
        actor.wake_at = self.clock.now() + seconds
        assert actor.body.parent is not None
        actor.body.parent.switch()

    def dismiss(self) -> None:
        """End every actor that is left, wherever it rests."""
        self.dismissing = True
        for actor in list(self._actors):
            with suppress(Dismissed):
                self._let(actor, actor.body.throw, Dismissed)

    def _let(self, actor: Actor, go_on: Callable[..., object], *thrown: type[BaseException]) -> None:
        """Let an actor act until it rests or ends. Raises what it raised."""
        self.current, actor.body.parent = actor, getcurrent()
        try:
            go_on(*thrown)
        finally:
            self.current = None
            if actor.body.dead:
                self._actors.remove(actor)

    def _pick(self, until: float) -> Actor | None:
        if not self._actors:
            return None
        now = self.clock.now()
        awake = [actor for actor in self._actors if actor.wake_at <= now]
        if not awake:
            wake_at = min(actor.wake_at for actor in self._actors)
            if wake_at > until:
                return None
            self.clock.move_to(wake_at)
            awake = [actor for actor in self._actors if actor.wake_at <= wake_at]
        return awake[0] if len(awake) == 1 else awake[self._rng.randrange(len(awake))]
