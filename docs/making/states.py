"""The page of the states and moves of a shard, from the one table of them."""

from __future__ import annotations

from collections.abc import Iterable

from langbatch.lifecycle import MOVES, STATES

PAGE = """\
# The life of a shard

<!-- Made from langbatch/lifecycle.py by `make pages`. -->

A job is cut into shards, and each shard is in one of these states. `langbatch/lifecycle.py` is the only
place that knows them: a move that is not in its table changes nothing, and every move is one conditional
update with its event, in one transaction. This page and its drawing are made from that table.

![The states, and the moves between them; the tables below name them all](states.svg)

## States

| state | who puts a shard there, what takes it out, what a crash leads to |
|---|---|
{states}

## Moves

| move | from | to | the fact it records |
|---|---|---|---|
{moves}
"""


def page() -> str:
    return PAGE.format(
        states="\n".join(f"| `{state}` | {meaning} |" for state, meaning in STATES.items()),
        moves="\n".join(
            f"| `{move}` | {_names(s for s in STATES if s in rule.origins)} | `{rule.to}` | {rule.meaning} |"
            for move, rule in MOVES.items()
        ),
    )


def _names(states: Iterable[str]) -> str:
    return ", ".join(f"`{state}`" for state in states)
