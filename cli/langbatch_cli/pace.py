"""How fast a job gets on, from what was seen of it. Pure: times are seconds on any steady clock."""

from __future__ import annotations

from dataclasses import dataclass

#: The rate is that over so many looks: services count in steps, and a rate of two looks would jump.
LOOKS = 12
#: A service that counted once may have counted everything it ever will before the end.
STEPS_FOR_AN_ESTIMATE = 2


@dataclass(frozen=True, slots=True)
class Pace:
    """The last looks at one job, each with its time and the requests done by then."""

    looks: tuple[tuple[float, int], ...] = ()

    def after(self, at: float, done: int) -> Pace:
        """With one look more. A count that has gone back (a shard sent again) begins anew."""
        kept = self.looks if not self.looks or done >= self.looks[-1][1] else ()
        return Pace((*kept, (at, done))[-LOOKS:])

    @property
    def per_second(self) -> float | None:
        """Requests a second; None where nothing was seen to get done."""
        if len(self.looks) < 2:
            return None
        (began, first), (at, last) = self.looks[0], self.looks[-1]
        return (last - first) / (at - began) if at > began and last > first else None

    def seconds_left(self, total: int) -> float | None:
        """To the end at this pace; None where that would be a guess."""
        rate = self.per_second
        steps = len({done for _, done in self.looks}) - 1
        if rate is None or steps < STEPS_FOR_AN_ESTIMATE:
            return None
        return (total - self.looks[-1][1]) / rate


def about(seconds: float) -> str:
    """A time to come, no more precise than it is known: `about 3 h`."""
    if seconds < 45:
        return "under a minute"
    minutes = seconds / 60
    if minutes < 10:
        return f"about {max(1, round(minutes))} min"
    if minutes < 100:
        return f"about {5 * round(minutes / 5)} min"
    hours = minutes / 60
    return f"about {round(hours)} h" if hours < 48 else f"about {round(hours / 24)} days"


def rate_text(per_second: float) -> str:
    """`4.2/s`, or by the minute or hour where that is the readable number."""
    for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
        value = per_second * seconds
        if value >= 1 or unit == "h":
            return f"{value:,.0f}/{unit}" if value >= 10 else f"{value:.2g}/{unit}"
    raise AssertionError
