"""Which of the listed targets a lost job was sent to, and whether these are surely all of them. Pure.

A shard of which nothing is seen may have been sent to a target that nobody looked at. So a job that says that
it has more targets than are known is not brought back: it would be sent, and paid for, again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langbatch.records import Target
from langbatch.targets import mark
from langbatch.upkeep.traces import JobTrace, Trace


class NotRebuilt(Exception):
    """Why a job cannot be brought back; a sentence for people."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A target, and which of the lists shows what is there. Deployments of one resource share a list."""

    target: Target
    listing: int


@dataclass(frozen=True, slots=True)
class Destinations:
    """`targets` in the job's order, as far as it is known. `are_all`: whether it has surely no others.
    `hosts`: what each list was read from."""

    targets: tuple[Listed, ...]
    are_all: bool
    hosts: Mapping[int, tuple[str, str]]

    def place_of(self, trace: Trace, model: str | None) -> int:
        """The target of one attempt. `model`: what its file's lines name, where they are known."""
        host = self.hosts[trace.listing]
        there = [place for place, each in enumerate(self.targets) if _host(each.target) == host]
        if trace.place in there:
            return trace.place
        fitting = [place for place in there if self.targets[place].target.model == model]
        return next(iter([*fitting, *there, 0]))


def find_destinations(
    job: JobTrace, listed: Sequence[Listed], models: Mapping[str, str | None]
) -> Destinations:
    """The job's targets among those listed. `models`: what uploaded files name, by the attempt's name.

    Raises `NotRebuilt` where some of its targets are not among them.
    """
    hosts = {each.listing: _host(each.target) for each in listed}
    count, marks = job.target_count or 1, job.target_marks
    if count == 1:
        chosen = _where_seen(job, listed, hosts, models)
        return Destinations(chosen, len(chosen) == 1, hosts)
    if not marks:
        if len(listed) < count:
            raise _unlisted(f"it has {count} targets, and only {len(listed)} named now")
        return Destinations(tuple(listed), False, hosts)
    found = [next((each for each in listed if mark(each.target) == wanted), None) for wanted in marks]
    known = [each for each in found if each is not None]
    if len(known) < len(marks):
        raise _unlisted(f"of its {count} targets, {count - len(known)} cannot be found among those named now")
    its_hosts = {_host(each.target) for each in known}
    if any(hosts[trace.listing] not in its_hosts for trace in job.traces):
        raise NotRebuilt("something of it is at a target that it does not name as its own")
    return Destinations(tuple(known), True, hosts)


def _where_seen(
    job: JobTrace,
    listed: Sequence[Listed],
    hosts: Mapping[int, tuple[str, str]],
    models: Mapping[str, str | None],
) -> tuple[Listed, ...]:
    """For a job with one target, or from before jobs said how many they have."""
    chosen: dict[tuple[str, str], Listed] = {}
    named = {models[trace.name] for trace in job.traces if trace.name in models}
    for number in sorted({trace.listing for trace in job.traces}):
        there = [each for each in listed if each.listing == number]
        by_mark = [
            each
            for each in listed
            if mark(each.target) in job.target_marks and _host(each.target) == hosts[number]
        ]
        by_model = [each for each in there if each.target.model in named]
        chosen.setdefault(hosts[number], [*by_mark, *by_model, *there][0])
    return tuple(chosen.values())


def _host(target: Target) -> tuple[str, str]:
    return target.provider, target.host.lower()


def _unlisted(what: str) -> NotRebuilt:
    return NotRebuilt(
        f"{what}. What was sent there would be sent again, so nothing was restored and nothing sent: recover "
        "with all of its targets at once, best with the profile that names them (--profile NAME)"
    )
