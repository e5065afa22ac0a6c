"""The page of the command line, from the commands' own signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from langbatch_cli import exits
from langbatch_cli.app import app
from langbatch_cli.exits import MEANINGS

#: Every command has them; they are told once.
COMMON = frozenset({"json", "home"})
#: What an option takes, where it does not say so itself.
TAKES: dict[type, str] = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


def commands() -> list[Callable[..., Any]]:
    """The functions behind the commands, in the order of `langbatch --help`."""
    return [info.callback for info in app.registered_commands if info.callback is not None]


PAGE = """\
# Commands

<!-- Made from the command line itself by `make pages`. -->

Text for people goes to standard error, data to standard output. A unique prefix of a job's id is enough.
Every command takes these:

| | |
|---|---|
{common}
| `-h`, `--help` | What the command does, and its options. |

`langbatch --version` prints the version; `langbatch --install-completion` teaches your shell the commands,
options and jobs' ids.

| exit code | means |
|---|---|
{codes}

Any command may end with {always}: 2 also for a job that is not there, or whose state does not allow it. Each
command below names the others.
{commands}"""

COMMAND = """
## {name}

`{usage}`

{told}
{table}{others}"""


def page() -> str:
    *first, last = (str(code.value) for code in exits.ALWAYS)
    return PAGE.format(
        common="\n".join(one.row for name, one in parameters(commands()[0]).items() if name in COMMON),
        codes="\n".join(f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items()),
        always=f"{', '.join(first)} or {last}",
        commands="".join(map(_command, commands())),
    )


def _command(function: Callable[..., Any]) -> str:
    name, takes = function.__name__, parameters(function)
    rows = [one.row for key, one in takes.items() if key not in COMMON]
    others = [code for code in exits.of_command(name) if code not in exits.ALWAYS]
    said = "; ".join(f"**{code.value}** {MEANINGS[code]}" for code in others)
    return COMMAND.format(
        name=name,
        usage=" ".join(("langbatch", name, *(one.names[0] for one in takes.values() if not one.is_option))),
        told=inspect.cleandoc(function.__doc__ or ""),
        table="\n".join(["", "| | |", "|---|---|", *rows, ""]) if rows else "",
        others=f"\nExit codes: {said}.\n" if others else "",
    )


@dataclass(frozen=True)
class Parameter:
    """One argument or option. `takes` stands for its value, and is None for a switch."""

    names: tuple[str, ...]
    takes: str | None
    told: str
    is_option: bool

    @property
    def row(self) -> str:
        shown = [f"{name} {self.takes}" if self.is_option and self.takes else name for name in self.names]
        return f"| {_cell(', '.join(f'`{one}`' for one in shown))} | {_cell(self.told)} |"


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """What a command takes, by the names in its function's signature."""
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *extras = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        for extra in extras:
            if isinstance(extra, ArgumentInfo):
                found[name] = Parameter((extra.metavar or name.upper(),), None, extra.help or "", False)
            elif isinstance(extra, OptionInfo):
                # In `Annotated` the first name stands where otherwise the default would.
                given = (extra.default, *(extra.param_decls or ()))
                names = tuple(one for one in given if isinstance(one, str))
                takes = extra.metavar or _takes(kind)
                told = extra.help or ""
                if takes and extra.show_default and parameter.default is not None:
                    default = parameter.default
                    told += f" Default: {default.value if isinstance(default, Enum) else default}."
                found[name] = Parameter(names or (f"--{name.replace('_', '-')}",), takes, told, True)
    return found


def _takes(kind: Any) -> str | None:
    """What stands for a value of that type; None for a switch."""
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if kind is bool:
        return None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return TAKES[kind]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
