"""Fixtures for the emulator's tests. The users' fixture is taken in by name, for it is a pytest plugin
only where the package is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from emulator.calls import Caller, Start
from langbatch.emulator.config import EmulatorConfig
from langbatch.emulator.fixture import langbatch_emulator, langbatch_emulator_config
from langbatch.emulator.service import Emulator

__all__ = ["langbatch_emulator", "langbatch_emulator_config"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes an instant emulator with the given settings, and a caller of one URL family for it."""
    with ExitStack() as stack:

        def make(family: str = "azure", *, version: str | None = None, **settings: Any) -> Caller:
            clock = settings.pop("clock", None)
            folder = settings.pop("folder", None)
            config = EmulatorConfig.instant(**settings)
            emulator = stack.enter_context(Emulator(config, clock=clock, folder=folder))
            return Caller(emulator, family, version or "2025-04-01-preview")

        yield make
