"""pytest fixtures; installed with the package, nothing to import. docs/how-to/testing.md shows them at work.

| fixture | gives |
|---|---|
| `langbatch_sandbox` | an emulator, and an environment in which everything leads to it |
| `langbatch_emulator` | an emulator alone |
| `langbatch_emulator_config` | how it behaves; override this one in a test module or conftest |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from langbatch.emulator.config import EmulatorConfig
    from langbatch.emulator.server import RunningServer

#: What could lead a test to somebody's account, store or proxy.
_FOREIGN = ("AZURE_", "OPENAI_", "LANGBATCH_")


@pytest.fixture
def langbatch_emulator_config() -> EmulatorConfig:
    """How `langbatch_emulator` behaves: instant, without faults, unless a test overrides this."""
    from langbatch.emulator.config import EmulatorConfig

    return EmulatorConfig.instant()


@pytest.fixture
def langbatch_emulator(langbatch_emulator_config: EmulatorConfig) -> Iterator[RunningServer]:
    """An emulator listening on loopback for one test: `.azure_endpoint`, `.azure_v1_base_url`,
    `.openai_base_url`, `.url`; `.emulator` for reports, faults, payments, time; `.down()` for an outage."""
    from langbatch.emulator.server import running_server

    with running_server(config=langbatch_emulator_config) as server:
        yield server


@pytest.fixture
def langbatch_sandbox(
    langbatch_emulator: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningServer:
    """`langbatch_emulator`, and environment variables that lead there: a fresh `LANGBATCH_HOME`, endpoints
    and keys for Azure and OpenAI, waits of a moment. Those that name anything real are gone for the test."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    for name, value in {
        "LANGBATCH_HOME": str(tmp_path / "langbatch-home"),
        "LANGBATCH_POLL_SECONDS": "0.05",
        "LANGBATCH_GRACE_SECONDS": "0.5",
        "AZURE_API_BASE": langbatch_emulator.azure_endpoint,
        "AZURE_API_KEY": "any",
        "OPENAI_BASE_URL": langbatch_emulator.openai_base_url,
        "OPENAI_API_KEY": "any",
    }.items():
        monkeypatch.setenv(name, value)
    return langbatch_emulator
