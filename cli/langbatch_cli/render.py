"""What people read: plain functions from values to lines. Nothing here prints.

A line is a run of pieces, each with a style that a terminal may show and a file does not. Text from
elsewhere (ids, services' messages, file names) has its control characters taken out on the way in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langbatch import Intake, Problem, Result

#: Text and style; a style is one of rich's names, or "" for none.
Piece = tuple[str, str]
Line = tuple[Piece, ...]

_LABEL_COLUMNS = 11
#: A table cut for a terminal shows this many entries and says how to see all.
TERMINAL_LIMIT = 50
#: Longest foreign text in one place, in characters.
_FOREIGN_LIMIT = 500


def plain(text: str, style: str = "") -> Line:
    return ((text, style),)


def visible(text: str, limit: int = _FOREIGN_LIMIT) -> str:
    """`text` on one line, without escapes, overrides of direction or invisible characters, and cut."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept = "".join(
        c if unicodedata.category(c)[0] not in "CZ" or c == " " else " " for c in text[: limit * 4]
    )
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def cells(text: str) -> int:
    """Columns that a terminal uses for `text`: East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cut(line: Line, width: int) -> Line:
    """`line` cut to `width` columns, with a sign that it was."""
    if sum(cells(text) for text, _ in line) <= width:
        return line
    pieces: list[Piece] = []
    room = width - 1
    for text, style in line:
        kept = _fitting(text, room)
        pieces.append((text[:kept] + ("…" if kept < len(text) else ""), style))
        if kept < len(text):
            break
        room -= cells(text)
    return tuple(pieces)


def wrapped(text: str, width: int | None, indent: int = 0, first: int | None = None) -> list[str]:
    """`text` cut at `width`, later lines indented; one line where `width` is None (files, pipes)."""
    lead = " " * (indent if first is None else first)
    if width is None:
        return [lead + text]
    room = max(width, indent + 20)
    lines: list[str] = []
    line, blank = lead, True
    for word in text.split():
        if not blank and cells(line) + 1 + cells(word) > room:
            lines.append(line)
            line, blank = " " * indent, True
        line, blank = line + ("" if blank else " ") + word, False
        while cells(line) > room:
            kept = _fitting(line, room)
            lines.append(line[:kept])
            line = " " * indent + line[kept:]
    return [*lines, line.rstrip()]


def _fitting(text: str, room: int) -> int:
    """How many characters of `text` fit into so many columns."""
    kept = min(len(text), room)
    while cells(text[:kept]) > room:
        kept -= 1
    return kept


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


def amount(count: int, word: str, several: str | None = None) -> str:
    """`1 request`, `2,000 requests`, `2 batches`."""
    return f"{count:,} {word if count == 1 else several or f'{word}s'}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else amount(size, "byte")


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


def intake_lines(intake: Intake, width: int | None, *, tokens: bool = True) -> list[Line]:
    """What a file holds; `tokens`: with the rough number of them that its bytes tell."""
    lines = labelled("requests", number(intake.total), width)
    if intake.rejected:
        lines += labelled("refused", number(intake.rejected), width, "red")
    lines += labelled("size", megabytes(intake.bytes), width)
    if tokens:
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
        *(hint_lines(hint, width) if hint else ()),
    ]


def hint_lines(hint: str, width: int | None) -> Iterator[Line]:
    """What to try."""
    return _headed("Try: ", "bold", hint, width)


def _headed(head: str, style: str, text: str, width: int | None) -> Iterator[Line]:
    first, *rest = wrapped(head + visible(text, 2000), width, len(head), 0)
    yield ((head, style), (first[len(head) :], ""))
    for line in rest:
        yield plain(line)
