"""The page of the error codes, from the one table of them."""

from __future__ import annotations

import re

import langbatch
from making.commands import commands

PAGE = """\
# Error codes in words

<!-- Made from langbatch/error_codes.py by `make pages`. -->

`langbatch explain CODE` says the same on the terminal, `langbatch.explain(code)` in Python. Codes are
compared without case and punctuation. An HTTP status that is not listed is explained by its first digit.

Sending again happens *by itself*, without being asked; is *worth it*: `langbatch retry JOB` may well succeed;
helps *after mending*, once the cause is away; or is *useless*: the same request would end the same way.
{tables}"""

TABLE = """
## {title}

{where}

| code | means | do | again? |
|---|---|---|---|
{rows}
"""

ABOUT = {
    "request": ("One request", "A result's `error.code`, as `fetch` and `status` count them."),
    "batch": ("A whole batch", "The service refused or ended a batch, and with it the requests of a shard."),
    "call": ("A call to the service", "What a command may end with; jobs are as they were."),
}

#: What is typed, where the text, which is for terminals, does not set it as such.
_COMMANDS = "|".join(function.__name__ for function in commands())
_TYPED = re.compile(
    rf"langbatch (?:{_COMMANDS})(?: JOB)?"
    r"|--[a-z-]+(?: NAME)?|\b[A-Z]+_[A-Z_]+\b|\baz login\b|https://\S+\w|\bdata:"
)


def page() -> str:
    return PAGE.format(tables="".join(map(_table, ABOUT)))


def _table(about: str) -> str:
    title, where = ABOUT[about]
    rows = [
        f"| `{one.code}` | {_cell(one.meaning)} | {_cell(one.remedy)} | {one.retry} |"
        for one in langbatch.explanations()
        if one.about == about
    ]
    return TABLE.format(title=title, where=where, rows="\n".join(rows))


def _cell(text: str) -> str:
    return (text if "`" in text else _TYPED.sub(r"`\g<0>`", text)).replace("|", "\\|")
