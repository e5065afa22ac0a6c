"""What people read: plain functions from values to lines. Nothing here prints.

A line is a run of pieces, each with a style that a terminal may show and a file does not. Text from
elsewhere (ids, services' messages, file names) has its control characters taken out on the way in.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langbatch import Intake, JobStatus, Problem, Result, ShardStatus

#: Text and style; a style is one of rich's names, or "" for none.
Piece = tuple[str, str]
Line = tuple[Piece, ...]

_LABEL_COLUMNS = 11
#: A table cut for a terminal shows this many entries and says how to see all.
TERMINAL_LIMIT = 50
#: Longest foreign text in one place, in characters.
_FOREIGN_LIMIT = 500

_STATE_STYLES = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "needs_operator": "bold red",
}


def plain(text: str, style: str = "") -> Line:
    return ((text, style),)


def visible(text: str, limit: int = _FOREIGN_LIMIT) -> str:
    """`text` on one line, without escapes, overrides of direction or invisible characters, and cut."""
    kept = "".join(
        c if unicodedata.category(c)[0] not in "CZ" or c == " " else " " for c in text[: limit * 4]
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def wrapped(text: str, width: int | None, indent: int = 0, first: int | None = None) -> list[str]:
    """`text` cut at `width`, later lines indented; one line where `width` is None (files, pipes)."""
    lead = " " * (indent if first is None else first)
    if width is None:
        return [lead + text]
    return textwrap.wrap(
        text,
        max(width, indent + 20),
        initial_indent=lead,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    ) or [lead.rstrip()]


def labelled(label: str, text: str, width: int | None, style: str = "") -> list[Line]:
    """`  label     text`, with the text wrapped beside its label."""
    lines = wrapped(text, width, _LABEL_COLUMNS + 2)
    head = f"  {label:<{_LABEL_COLUMNS - 1}} "
    return [
        ((head, "dim"), (lines[0][_LABEL_COLUMNS + 2 :], style)),
        *(plain(line, style) for line in lines[1:]),
    ]


def number(value: int) -> str:
    return f"{value:,}"


def amount(count: int, word: str) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else amount(size, "byte")


# ---------------------------------------------------------------- jobs


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
    lines += labelled("results", outcome_text(status), width)
    if status.usage.input_tokens is not None or status.usage.output_tokens is not None:
        used = f"{number(status.usage.input_tokens or 0)} in, {number(status.usage.output_tokens or 0)} out"
        lines += labelled("tokens", used, width)
    for quota in status.quotas:
        if quota.limit_tokens is not None:
            name = visible(quota.target.rpartition("/")[2])
            text = (
                f"{name}: {number(quota.enqueued_tokens)} of {number(quota.limit_tokens)} tokens enqueued, "
            )
            text += f"{number(quota.headroom_tokens or 0)} free"
            lines += labelled("quota", text, width)
    lines += labelled("created", status.created_at, width)
    if status.finished_at:
        lines += labelled("finished", status.finished_at, width)
    if status.attention:
        # The commands that settle a shard are in it: never cut.
        lines += labelled("attention", visible(status.attention, 2000), width, "yellow")
    shown = status.shards if limit is None else status.shards[:limit]
    for shard in shown:
        lines += labelled(f"shard {shard.index}", _shard_text(shard), width)
    if len(shown) < len(status.shards):
        lines.append(
            plain(f"  … and {len(status.shards) - len(shown)} more shards (--json shows all)", "dim")
        )
    return lines


def _shard_text(shard: ShardStatus) -> str:
    text = f"{shard.state}, {amount(shard.requests, 'request')} from line {shard.first_line}"
    if shard.attempt > 1:
        text += f", attempt {shard.attempt}"
    if shard.batch_id:
        counts = shard.batch_counts
        text += f", {visible(shard.batch_id)} {visible(shard.batch_status or '')}"
        if counts.total:
            text += f" {counts.completed + counts.failed}/{counts.total}"
    return f"{text}: {visible(shard.attention)}" if shard.attention else text


def state_text(status: JobStatus) -> str:
    """The job's own word; while it runs, also how far the service has come."""
    return f"running ({status.status})" if status.state == "running" else status.state


def outcome_text(status: JobStatus) -> str:
    """`3 succeeded, 1 errored, 2 pending`: what there is, most wanted first."""
    parts = [(name, status.counts[name]) for name in status.counts.keys()]  # noqa: SIM118 - no mapping
    return ", ".join(f"{number(count)} {name}" for name, count in parts if count) or "none"


def progress_text(status: JobStatus) -> str:
    """One line for a log: where a job is."""
    text = f"{status.id} {state_text(status)}: {outcome_text(status)}"
    return f"{text} ({visible(status.attention)})" if status.attention else text


def job_table(statuses: Sequence[JobStatus], width: int | None, limit: int | None = None) -> list[Line]:
    """Two lines a job, newest last, so that the newest is next to the prompt."""
    if not statuses:
        return [plain("No jobs yet. Try: langbatch demo")]
    shown = statuses if limit is None else statuses[-limit:]
    lines: list[Line] = []
    if len(shown) < len(statuses):
        lines.append(
            plain(f"{len(statuses) - len(shown)} earlier jobs are not shown (--json shows all)", "dim")
        )
    for status in shown:
        state = (status.state, _STATE_STYLES.get(status.state, ""))
        lines.append(((status.id, "bold"), ("  ", ""), state))
        about = visible(status.name) if status.name else visible(status.input)
        lines += [plain(text) for text in wrapped(f"{about}: {outcome_text(status)}", width, 4, 2)]
        if status.attention:
            lines += [plain(t, "yellow") for t in wrapped(visible(status.attention, 2000), width, 4, 2)]
    return lines


# ---------------------------------------------------------------- input


def problem_lines(
    problems: Sequence[Problem], width: int | None, limit: int | None = None, file: str = ""
) -> Iterator[Line]:
    """`FILE:LINE  code  custom_id`, then what is wrong, for each; at most `limit` of them."""
    shown = problems if limit is None else problems[:limit]
    for problem in shown:
        where = f"{file or 'line'}:{problem.line}" if problem.line else file or "the file"
        head: list[Piece] = [(f"  {visible(where)}", "bold"), (f"  {problem.code}", "red")]
        if problem.custom_id is not None:
            head.append((f"  {visible(problem.custom_id, 60)}", "cyan"))
        yield tuple(head)
        for text in wrapped(visible(problem.message), width, 6, 4):
            yield plain(text)
    if len(shown) < len(problems):
        yield plain(
            f"  … and {number(len(problems) - len(shown))} more; `langbatch validate --json` lists all.",
            "dim",
        )


def intake_lines(intake: Intake, width: int | None) -> list[Line]:
    """What a file holds."""
    lines = labelled("requests", number(intake.total), width)
    if intake.rejected:
        lines += labelled("refused", number(intake.rejected), width, "red")
    lines += labelled("size", megabytes(intake.bytes), width)
    lines += labelled("tokens", f"about {number(intake.estimated_tokens)} in", width)
    return lines + warning_lines(intake, width)


def warning_lines(intake: Intake, width: int | None) -> list[Line]:
    """What is odd about a file, and let through; and in how many lines the target changes model or url."""
    lines: list[Line] = []
    if intake.edited_lines:
        text = f"{amount(intake.edited_lines, 'line')}: model or url is set to the target's when it is sent"
        lines += labelled("edits", text, width)
    for warning in intake.warnings:
        times = (
            ""
            if warning.count == 1
            else f" ({number(warning.count)} times, first in line {warning.first_line})"
        )
        lines += labelled("warning", visible(warning.message) + times, width, "yellow")
    return lines


# ---------------------------------------------------------------- results


def result_table(results: Iterable[Result], width: int) -> Iterator[Line]:
    """Results side by side, one line each, cut to `width`."""
    for result in results:
        good = result.outcome == "succeeded"
        said = result.text if good else result.error.message if result.error else ""
        code = "" if good or result.error is None else f"{result.error.code}: "
        head = f"  {visible(result.custom_id, 16):<16}  "
        outcome = f"{result.outcome:<11}"
        room = max(width - len(head) - len(outcome), 10)
        yield (
            (head, "bold"),
            (outcome, "green" if good else "yellow"),
            (visible(f"{code}{said or ''}", room), ""),
        )


# ---------------------------------------------------------------- errors


def error_lines(message: str, hint: str | None, width: int | None) -> list[Line]:
    """One block: what went wrong, then what to try."""
    return [
        *_headed("Error: ", "bold red", message, width),
        *(_headed("Try: ", "bold", hint, width) if hint else ()),
    ]


def _headed(head: str, style: str, text: str, width: int | None) -> Iterator[Line]:
    first, *rest = wrapped(head + visible(text, 2000), width, len(head), 0)
    yield ((head, style), (first[len(head) :], ""))
    for line in rest:
        yield plain(line)
