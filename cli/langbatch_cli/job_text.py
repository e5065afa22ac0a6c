"""Jobs as people read them: plain functions from values to lines, as in `render`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from langbatch_cli.money_text import budget_texts, cost_text, reuse_text
from langbatch_cli.render import Line, Piece, amount, cut, labelled, number, plain, visible, wrapped

if TYPE_CHECKING:
    from langbatch import FailureCount, JobGlance, JobStatus, ShardStatus

#: From here on a list of jobs is a table, and from here on with dates.
_TABLE_FROM_COLUMNS = 76
_DATES_FROM_COLUMNS = 96
#: More shards than these are told in columns; the ids of their batches from so many columns on.
_SHARDS_IN_WORDS = 3
_BATCH_IDS_FROM_COLUMNS = 84
#: Of a date, in tables: without its seconds.
_MINUTE_CHARACTERS = 16

_STATE_STYLES = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "needs_operator": "bold red",
}
_NO_JOBS = "No jobs yet. Try: langbatch demo"
#: As explanations say it, whatever the job.
RETRY = "langbatch retry JOB"
SHARD_STYLES = {
    "needs_operator": "bold red",
    "uncertain": "yellow",
    "fencing": "yellow",
    "active": "cyan",
    "harvesting": "cyan",
    "done": "green",
}


# ---------------------------------------------------------------- one job


def job_lines(status: JobStatus, width: int | None, limit: int | None = None) -> list[Line]:
    """One job in full; at most `limit` shards."""
    lines: list[Line] = [((status.id, "bold"),)]
    if status.name:
        lines += labelled("name", visible(status.name), width)
    lines += labelled("state", state_text(status), width, _STATE_STYLES.get(status.state, ""))
    text = f"{visible(status.input)}, {amount(status.total, 'request')}"
    lines += labelled(
        "input", text + (f", {number(status.rejected)} rejected" if status.rejected else ""), width
    )
    lines += labelled("target", visible(status.target), width)
    if status.reuse is not None:
        lines += labelled("reuse", reuse_text(**status.reuse), width)
    lines += labelled("results", outcome_text(status), width)
    facts = [("tokens", token_text(status)), ("cost", cost_text(status))]
    facts += [("budget", text) for text in budget_texts(status)]
    for label, fact in (*facts, *(("quota", text) for text in quota_texts(status))):
        if fact is not None:
            lines += labelled(label, fact, width)
    lines += labelled("created", status.created_at, width)
    if status.finished_at:
        lines += labelled("finished", status.finished_at, width)
    if status.next_look_at:
        lines += labelled("next look", status.next_look_at, width)
    if status.attention:
        # The commands that settle a shard are in it: never cut.
        lines += labelled("attention", visible(status.attention, 2000), width, "yellow")
    return lines + _shard_lines(status, width, limit)


def _shard_lines(status: JobStatus, width: int | None, limit: int | None) -> list[Line]:
    """In a file or pipe every shard with all its facts. On a terminal those that something can still be said
    of, in columns where they are many, and the others counted."""
    if width is None or len(status.shards) <= _SHARDS_IN_WORDS:
        lines: list[Line] = []
        for shard in status.shards:
            lines += labelled(f"shard {shard.index}", _shard_text(shard), width)
        return lines
    told = [shard for shard in status.shards if shard.state != "done" or shard.attention]
    shown = told[:limit]
    rest = Counter(shard.state for shard in status.shards)
    rest.subtract(shard.state for shard in shown)
    lines = labelled("shards", counted(Counter(shard.state for shard in status.shards).items()), width)
    lines += _shard_columns(shown, width)
    if shown and rest.total():
        states = counted((state, count) for state, count in rest.items() if count)
        text = f"and {amount(rest.total(), 'more shard')} ({states}); --json shows all"
        lines += [plain(line, "dim") for line in wrapped(text, width, 4, 2)]
    return lines


def counted(states: Iterable[tuple[str, int]]) -> str:
    """`3 active, 2 waiting`."""
    return ", ".join(f"{number(count)} {state}" for state, count in states)


def _shard_columns(shards: Sequence[ShardStatus], width: int) -> list[Line]:
    done = [f"{number(finished_requests(shard))}/{number(shard.requests)}" for shard in shards]
    columns = max((len(text) for text in done), default=0)
    digits = max((len(str(shard.index)) for shard in shards), default=0)
    states = max((len(shard.state) for shard in shards), default=0)
    lines = []
    for shard, share in zip(shards, done, strict=True):
        notes = [visible(shard.batch_status)] if shard.batch_status else []
        notes += [f"attempt {shard.attempt}"] if shard.attempt > 1 else []
        notes += [visible(shard.attention)] if shard.attention else []
        batch = f"  {visible(shard.batch_id)}" if shard.batch_id and width >= _BATCH_IDS_FROM_COLUMNS else ""
        line: Line = (
            (f"  {shard.index:>{digits}}  ", "dim"),
            (f"{shard.state:<{states}}  ", SHARD_STYLES.get(shard.state, "")),
            (f"{share:>{columns}}{batch}  ", ""),
            (", ".join(notes), "yellow" if shard.attention else ""),
        )
        lines.append(cut(line, width))
    return lines


def finished_requests(shard: ShardStatus) -> int:
    """Of a shard's requests, those that the service is through with."""
    if shard.state == "done":
        return shard.requests
    return min(shard.batch_counts.completed + shard.batch_counts.failed, shard.requests)


def token_text(status: JobStatus) -> str | None:
    """What the answers so far took; None while no service said."""
    usage = status.usage
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    text = f"{number(usage.input_tokens or 0)} in, {number(usage.output_tokens or 0)} out"
    return f"{text}, {number(usage.cached_tokens)} of them cached" if usage.cached_tokens else text


def quota_texts(status: JobStatus) -> list[str]:
    """The room that each deployment's token quota has left, as far as it is known."""
    texts = []
    for quota in status.quotas:
        held = f", nothing is sent there before {quota.held_until}" if quota.held_until else ""
        name = visible(quota.target.rpartition("/")[2])
        if quota.limit_tokens is not None:
            free = number(quota.headroom_tokens or 0)
            of = f"{number(quota.enqueued_tokens)} of {number(quota.limit_tokens)} tokens taken"
            texts.append(f"{name}: {of}, {free} free{held}")
        elif quota.enqueued_tokens or held:
            texts.append(f"{name}: {number(quota.enqueued_tokens)} tokens taken, limit unknown{held}")
    return texts


def _shard_text(shard: ShardStatus) -> str:
    done = shard.batch_counts.completed + shard.batch_counts.failed
    text = f"{shard.state}, {amount(shard.requests, 'request')} from line {number(shard.first_line)}"
    if shard.attempt > 1:
        text += f", attempt {shard.attempt}"
    if shard.batch_id:
        text += f", {visible(shard.batch_id)} {visible(shard.batch_status or '')}"
        if shard.batch_counts.total:
            text += f" {number(done)}/{number(shard.batch_counts.total)}"
    return f"{text}: {visible(shard.attention)}" if shard.attention else text


def state_piece(status: JobStatus) -> Piece:
    return state_text(status), _STATE_STYLES.get(status.state, "")


def state_text(status: JobStatus) -> str:
    """The job's own word; while it runs, also how far the service has come."""
    return f"running ({status.status})" if status.state == "running" else status.state


def outcome_text(status: JobStatus | JobGlance) -> str:
    """`3 succeeded, 1 errored, 2 pending`: what there is, most wanted first."""
    parts = [(name, status.counts[name]) for name in status.counts.keys()]  # noqa: SIM118 - no mapping
    return ", ".join(f"{number(count)} {name}" for name, count in parts if count) or "none"


def progress_text(status: JobStatus) -> str:
    """One line for a log: where a job is."""
    text = f"{status.id} {state_text(status)}: {outcome_text(status)}"
    return f"{text} ({visible(status.attention)})" if status.attention else text


# ---------------------------------------------------------------- several jobs


def plain_table(statuses: Iterable[JobStatus | JobGlance]) -> list[Line]:
    """The jobs in one line each, uncut, for a file or pipe."""
    return [_job_in_a_line(status) for status in statuses] or [plain(_NO_JOBS)]


def job_table(statuses: Sequence[JobStatus], width: int | None, limit: int | None = None) -> list[Line]:
    """The jobs, newest last, so that the newest is next to the prompt: in columns, in two lines each where
    the terminal is narrow, and in one line each, uncut, in a file or pipe."""
    if not statuses:
        return [plain(_NO_JOBS)]
    shown = statuses if limit is None else statuses[-limit:]
    lines: list[Line] = []
    if len(shown) < len(statuses):
        lines.append(
            plain(f"{len(statuses) - len(shown)} earlier jobs are not shown (--json shows all)", "dim")
        )
    if width is None:
        return lines + plain_table(shown)
    if width < _TABLE_FROM_COLUMNS:
        for status in shown:
            state = (status.state, _STATE_STYLES.get(status.state, ""))
            lines.append(((status.id, "bold"), ("  ", ""), state))
            lines += [
                plain(text) for text in wrapped(f"{_about(status)}: {outcome_text(status)}", width, 4, 2)
            ]
            lines += _attention_lines(status, width)
        return lines
    return lines + _job_columns(shown, width)


def _job_in_a_line(status: JobStatus | JobGlance) -> Line:
    text = f"{status.id}  {status.state}  {_about(status)}: {outcome_text(status)}"
    return plain(f"{text} ({visible(status.attention, 2000)})" if status.attention else text)


def _about(status: JobStatus | JobGlance) -> str:
    return visible(status.name or status.input)


def _attention_lines(status: JobStatus, width: int) -> list[Line]:
    if not status.attention:
        return []
    return [plain(text, "yellow") for text in wrapped(visible(status.attention, 2000), width, 4, 2)]


def _job_columns(statuses: Sequence[JobStatus], width: int) -> list[Line]:
    cells_of = []
    for status in statuses:
        failed = number(status.total - status.counts.succeeded) if status.finished else ""
        created = status.created_at[:_MINUTE_CHARACTERS].replace("T", " ")
        done = f"{number(status.done)}/{number(status.total)}"
        cells_of.append((status.state, done, failed, created))
    titles = ("state", "done", "failed", "created (UTC)")
    widths = [max(len(title), *(len(row[n]) for row in cells_of)) for n, title in enumerate(titles)]
    dated = width >= _DATES_FROM_COLUMNS

    def columns(state: str, done: str, failed: str, created: str) -> str:
        text = f"{state:<{widths[0]}}  {done:>{widths[1]}}  {failed:>{widths[2]}}"
        return f"{text}  {created:<{widths[3]}}" if dated else text

    lines: list[Line] = [plain(f"{'job':<30}  {columns(*titles)}  name", "dim")]
    for status, row in zip(statuses, cells_of, strict=True):
        rest = columns(*row)[len(status.state) :]
        state = (status.state, _STATE_STYLES.get(status.state, ""))
        lines.append(cut(((status.id, "bold"), ("  ", ""), state, (f"{rest}  {_about(status)}", "")), width))
        lines += _attention_lines(status, width)
    return lines


# ---------------------------------------------------------------- failures


def failure_lines(
    failures: Sequence[FailureCount], width: int | None, retry: str = RETRY, limit: int = 8
) -> list[Line]:
    """Why requests have no answer: each code with its number, what it means and what to do. `retry`: the
    command that sends them again."""
    lines: list[Line] = []
    for failure in failures[:limit]:
        head: Line = (
            (f"  {visible(failure.code, 60)}", "bold"),
            (f"  {amount(failure.requests, 'request')}", "yellow"),
        )
        known = failure.explanation
        todo = known.remedy.replace(RETRY, retry) if known else ""
        meaning = (
            known.meaning if known else "Nothing is known of this code: see error.message in the results."
        )
        if width is None:
            lines.append((*head, (f": {meaning} {todo}".rstrip(), "")))
            continue
        lines.append(head)
        lines += [plain(text) for text in wrapped(meaning, width, 4)]
        if todo:
            lines += [plain(text) for text in wrapped(f"→ {todo}", width, 6, 4)]
    if len(failures) > limit:
        more = sum(failure.requests for failure in failures[limit:])
        codes = amount(len(failures) - limit, "more code")
        lines.append(plain(f"  and {codes} ({amount(more, 'request')})", "dim"))
    return lines
