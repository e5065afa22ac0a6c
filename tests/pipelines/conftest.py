"""A command line whose service is the emulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from langbatch.emulator import RunningServer
from running import CommandLine, pointing_at


@pytest.fixture
def line(langbatch_emulator: RunningServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, pointing_at(langbatch_emulator))
