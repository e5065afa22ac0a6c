"""What `watch` shows: plain functions from values to lines, each cut to the window's width. Nothing here
prints, and nothing here wraps: a line that is too long would leave garbage behind when it is redrawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from langbatch_cli.job_text import (
    SHARD_STYLES,
    counted,
    finished_requests,
    outcome_text,
    quota_texts,
    state_piece,
    token_text,
)
from langbatch_cli.money_text import budget_texts, cost_text
from langbatch_cli.pace import Pace, about, rate_text
from langbatch_cli.render import Line, Piece, amount, cut, labelled, number, plain, visible

if TYPE_CHECKING:
    from langbatch import JobStatus, Progress, ShardStatus

_STEPS = {
    "upload": "Uploading",
    "download": "Downloading",
    "join": "Joining results",
    "validate": "Validating",
}
#: In a narrower window a shard, or one of several jobs, has numbers and no bar.
_BARS_FROM_COLUMNS = 70
_BAR_COLUMNS = 12
#: Attention that begins so tells what is waited for; any other is trouble.
_WAITING = "waiting for "
#: A reason that takes more lines than this is for `status`.
_REASON_LINES = 3

#: Shards in these states are looked for first; the others are counted.
_INTEREST = (
    "needs_operator",
    "uncertain",
    "fencing",
    "harvesting",
    "active",
    "creating",
    "uploading",
    "uploaded",
    "waiting",
    "done",
)
_JOB_INTEREST = ("needs_operator", "paused", "running", "draft", "failed", "cancelled", "completed")


@dataclass(frozen=True, slots=True)
class Window:
    """What there is to draw on. `bar`: what bars are made of, where the terminal can show it."""

    width: int
    height: int
    bar: Literal["━", "-"] = "━"


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything the view is made from. `now`: seconds since the epoch, as on the service's clock."""

    jobs: tuple[JobStatus, ...]
    paces: dict[str, Pace] = field(default_factory=dict)
    step: Progress | None = None
    now: float = 0.0


def view_lines(scene: Scene, window: Window) -> list[Line]:
    """One job in full, or several below each other; never more lines than the window has."""
    room = window.height - 1
    footer = _footer(scene)
    if len(scene.jobs) == 1:
        lines = _one_job(scene.jobs[0], scene, window, room - len(footer))
    else:
        lines = _several_jobs(scene, window, room - len(footer))
    return [cut(line, window.width) for line in (*lines[: room - len(footer)], *footer)]


# ---------------------------------------------------------------- one job


def _one_job(status: JobStatus, scene: Scene, window: Window, room: int) -> list[Line]:
    width = window.width
    name = f"{visible(status.name)}: " if status.name else ""
    lines: list[Line] = [
        ((status.id, "bold"), ("  ", ""), state_piece(status)),
        plain(f"{name}{visible(status.input)} to {visible(status.target)}", "dim"),
        (),
        _bar_line(status.done, status.total, window, width),
        _numbers(status, scene.paces.get(status.id, Pace())),
        (),
        *labelled("results", outcome_text(status), width),
    ]
    facts = [("tokens", token_text(status)), ("cost", cost_text(status))]
    facts += [("budget", text) for text in budget_texts(status)]
    for label, text in (*facts, *(("quota", text) for text in quota_texts(status))):
        if text is not None:
            lines += labelled(label, text, width)
    reason = waits_for(status)
    trouble = status.attention is not None and not status.attention.startswith(_WAITING)
    below = (
        labelled("attention" if trouble else "waits for", reason, width, "yellow" if status.attention else "")
        if reason
        else []
    )
    below = below[:_REASON_LINES]
    shards = _shard_lines(status.shards, window, room - len(lines) - len(below))
    return [*lines, *below, *shards]


def _bar_line(done: int, total: int, window: Window, width: int) -> Line:
    percent = f"  {_percent(done, total)}"
    return (*_bar(done, total, max(width - len(percent), 4), window), (percent, "bold"))


def _bar(done: int, total: int, columns: int, window: Window) -> tuple[Piece, Piece]:
    filled = columns * done // total if total else columns
    return (window.bar * filled, "green"), (window.bar * (columns - filled), "dim")


def _percent(done: int, total: int) -> str:
    # Rounded down: 100 % is said when it is.
    return f"{100 * done // total if total else 100} %"


def _numbers(status: JobStatus, pace: Pace) -> Line:
    pieces = [(f"{number(status.done)} of {amount(status.total, 'request')}", "bold")]
    if status.finished or status.done >= status.total:
        return tuple(pieces)
    if pace.per_second is not None:
        pieces.append((f"   {rate_text(pace.per_second)}", ""))
    left = pace.seconds_left(status.total)
    pieces.append((f"   {about(left)} left" if left is not None else "   time left: unknown", ""))
    return tuple(pieces)


def waits_for(status: JobStatus) -> str | None:
    """What must happen before the job gets on; None where it has ended."""
    if status.finished:
        return None
    if status.attention:
        return visible(status.attention, 2000).removeprefix(_WAITING)
    if status.cancel_requested:
        return "the service to stop what is running"
    awaited = Counter(_awaited(shard) for shard in status.shards if shard.state != "done")
    parts = [
        text.replace("#", amount(count, noun, several)) for (text, noun, several), count in awaited.items()
    ]
    return "; ".join(parts) or "the first look"


def _awaited(shard: ShardStatus) -> tuple[str, str, str]:
    """What is waited for, with `#` where its number goes, and the noun for one and for several."""
    batches = ("batch", "batches")
    match shard.state, shard.batch_status:
        case "active", "validating":
            return "the service to check #", *batches
        case "active", "finalizing":
            return "the service to write the results of #", *batches
        case "active", _:
            return "the service to run #", *batches
        case "harvesting", _:
            return "the results of # to come down", *batches
        case "uploaded" | "uploading" | "creating", _:
            return "the service to take in #", "file", "files"
        case (("uncertain" | "fencing"), _):
            return "the truth about #", *batches
        case _:
            return "# to be sent", "shard", "shards"


# ---------------------------------------------------------------- shards


def _shard_lines(shards: Sequence[ShardStatus], window: Window, room: int) -> list[Line]:
    """As many shards as there is room for, those that are under way first, and a count of the others."""
    if len(shards) < 2 or room < 4:
        return []
    states = Counter(shard.state for shard in shards)
    told = sorted(states.items(), key=lambda item: _interest(item[0]))
    lines: list[Line] = [(), *labelled("shards", counted(told), window.width)[:1]]
    shown = list(shards)
    if len(shards) > room - len(lines):
        by_interest = sorted(shards, key=lambda shard: (_interest(shard.state), shard.index))
        # In their own order: a row stays where it was while its shard moves on.
        shown = sorted(by_interest[: room - len(lines) - 1], key=lambda shard: shard.index)
    digits = len(str(max(shard.index for shard in shown)))
    numbers = max(len(_share(shard)) for shard in shown)
    # Room for the longest word that comes by itself, so that columns stay while shards move on.
    word = max(len("harvesting"), *(len(shard.state) for shard in shown))
    lines += [_shard_line(shard, (digits, word, numbers), window) for shard in shown]
    if len(shown) < len(shards):
        rest = states - Counter(shard.state for shard in shown)
        told = sorted(rest.items(), key=lambda item: _interest(item[0]))
        lines.append(plain(f"  and {number(rest.total())} more: {counted(told)}", "dim"))
    return lines


def _interest(state: str) -> int:
    return _INTEREST.index(state) if state in _INTEREST else 0


def _share(shard: ShardStatus) -> str:
    return f"{number(finished_requests(shard))}/{number(shard.requests)}"


def _shard_line(shard: ShardStatus, columns: tuple[int, int, int], window: Window) -> Line:
    digits, word, numbers = columns
    pieces: list[Piece] = [
        (f"  {shard.index:>{digits}}  ", "dim"),
        (f"{shard.state:<{word}}  ", SHARD_STYLES.get(shard.state, "")),
    ]
    if window.width >= _BARS_FROM_COLUMNS:
        pieces += [*_bar(finished_requests(shard), shard.requests, _BAR_COLUMNS, window), ("  ", "")]
    pieces.append((f"{_share(shard):>{numbers}}", ""))
    notes = [f"attempt {shard.attempt}"] if shard.attempt > 1 else []
    if shard.attention:
        notes.append(visible(shard.attention))
    elif shard.batch_status and shard.state != "done":
        notes.append(visible(shard.batch_status))
    pieces.append((f"  {', '.join(notes)}" if notes else "", "yellow" if shard.attention else ""))
    return tuple(pieces)


# ---------------------------------------------------------------- several jobs


def _several_jobs(scene: Scene, window: Window, room: int) -> list[Line]:
    done, total = (sum(getattr(job, what) for job in scene.jobs) for what in ("done", "total"))
    ended = sum(job.finished for job in scene.jobs)
    lines: list[Line] = [
        _bar_line(done, total, window, window.width),
        plain(
            f"{number(done)} of {amount(total, 'request')}   {ended} of {len(scene.jobs)} jobs finished",
            "bold",
        ),
        (),
    ]
    quotas = dict.fromkeys(text for job in scene.jobs for text in quota_texts(job))
    lines[2:2] = [plain(f"quota  {text}") for text in quotas]
    blocks = {job.id: _job_block(job, scene, window) for job in scene.jobs}
    by_interest = sorted(scene.jobs, key=lambda job: _JOB_INTEREST.index(job.state))
    left, shown = room - len(lines), set[str]()
    for position, job in enumerate(by_interest):
        rest_takes = 0 if position == len(by_interest) - 1 else 1
        if len(blocks[job.id]) + rest_takes > left:
            break
        left -= len(blocks[job.id])
        shown.add(job.id)
    for job in scene.jobs:
        if job.id in shown:
            lines += blocks[job.id]
    rest = Counter(job.state for job in scene.jobs if job.id not in shown)
    if rest:
        lines.append(plain(f"and {amount(rest.total(), 'job')} more: {counted(rest.items())}", "dim"))
    return lines


def _job_block(status: JobStatus, scene: Scene, window: Window) -> list[Line]:
    name = f"  {visible(status.name or status.input)}"
    head: Line = ((status.id, "bold"), ("  ", ""), (status.state, state_piece(status)[1]), (name, "dim"))
    if status.finished:
        return [head, plain(f"  {outcome_text(status)}")]
    numbers = _numbers(status, scene.paces.get(status.id, Pace()))
    bar: Line = (("  ", ""),)
    if window.width >= _BARS_FROM_COLUMNS:
        bar = (*bar, *_bar(status.done, status.total, _BAR_COLUMNS, window), ("  ", ""))
    lines: list[Line] = [head, (*bar, *numbers)]
    if status.attention:
        lines.append(plain(f"  {visible(status.attention, 2000)}", "yellow"))
    return lines


# ---------------------------------------------------------------- the last line


def _footer(scene: Scene) -> list[Line]:
    going_on = "the job goes on" if len(scene.jobs) == 1 else "the jobs go on"
    return [(), plain(f"{_next(scene)}. Ctrl-C detaches, {going_on}", "dim")]


def _next(scene: Scene) -> str:
    if scene.step is not None and scene.step.step in _STEPS:
        share = f" {_percent(scene.step.done, scene.step.total)}" if scene.step.total else ""
        return f"{_STEPS[scene.step.step]}{share}"
    due = [datetime.fromisoformat(job.next_look_at) for job in scene.jobs if job.next_look_at]
    if not due:
        return "Looking"
    seconds = math.ceil(min(due).timestamp() - scene.now)
    return f"Next look in {seconds} s" if seconds > 0 else "Looking"
