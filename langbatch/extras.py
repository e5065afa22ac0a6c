"""Libraries that only some users need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from langbatch.errors import SetupError


def require_extra(module: str, extra: str, what: str) -> Any:
    """The module; `SetupError` with the command that installs it where it is missing."""
    try:
        return import_module(module)
    except ImportError:
        raise SetupError(
            f"{what} need {module.partition('.')[0]}, which is not installed",
            hint=f'pip install "langbatch-manager[{extra}]"',
            code="missing_extra",
        ) from None


@contextmanager
def frugal_arrow() -> Iterator[Any]:
    """Arrow, giving back what it frees: its own allocator holds on to 40 MB while a file streams by.

    The allocator is the process's, so the one that was there comes back at the end.
    """
    arrow = require_extra("pyarrow", "parquet", "Parquet files")
    before = arrow.default_memory_pool()
    arrow.set_memory_pool(arrow.system_memory_pool())
    try:
        yield arrow
    finally:
        arrow.set_memory_pool(before)
