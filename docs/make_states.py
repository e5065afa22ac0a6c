"""Writes docs/states.md from the one table of states and moves: `python docs/make_states.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from langbatch.lifecycle import MOVES, STATES

PAGE = Path(__file__).with_name("states.md")


def page() -> str:
    """The page as it must be; a test compares it with what is committed."""
    arrows = [
        f"    {origin} --> {rule.to}: {move}"
        for move, rule in MOVES.items()
        for origin in STATES
        if origin in rule.origins
    ]
    states = [f"| `{state}` | {meaning} |" for state, meaning in STATES.items()]
    moves = [
        f"| `{move}` | {_names(s for s in STATES if s in rule.origins)} | `{rule.to}` | {rule.meaning} |"
        for move, rule in MOVES.items()
    ]
    return "\n".join(
        [
            "# The life of a shard",
            "",
            "Made from `langbatch/lifecycle.py`, which is the only place that knows it: a move that is not",
            "in the table changes nothing, and every move is one conditional update with its event, in one",
            "transaction.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> waiting",
            *arrows,
            "    done --> [*]",
            "```",
            "",
            "| state | who puts a shard there, what takes it out, what a crash leads to |",
            "|---|---|",
            *states,
            "",
            "| move | from | to | the fact it records |",
            "|---|---|---|---|",
            *moves,
            "",
        ]
    )


def _names(states: Iterable[str]) -> str:
    return ", ".join(f"`{state}`" for state in states)


if __name__ == "__main__":
    PAGE.write_text(page())
