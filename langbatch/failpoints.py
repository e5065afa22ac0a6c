"""Named places where a process may die: before and after every remote call, commit, fsync and rename.

`reached` does nothing unless somebody listens. Campaigns listen, to kill the process, to let another
worker go first, or to count; docs/design.md says what each death must lead to. Nothing in langbatch
listens by itself, and no setting makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listener: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """This point of the program, e.g. `call.create.before` or `commit.after`, has been reached."""
    if _listener is not None:
        _listener(name)


@contextmanager
def around(what: str) -> Iterator[None]:
    """`what.before` on the way in, and `what.after` once it has been done without an error."""
    reached(f"{what}.before")
    yield
    reached(f"{what}.after")


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` at every failpoint of this process until the block ends."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
