"""The pytest fixture `langbatch_emulator`; installed with the package, nothing to import.

    def test_my_pipeline(langbatch_emulator):
        run_my_pipeline(azure_endpoint=langbatch_emulator.azure_endpoint, api_key="any")
        assert langbatch_emulator.emulator.payments().paid_twice == 0

Other behaviour by overriding `langbatch_emulator_config` in a test module or conftest:

    @pytest.fixture
    def langbatch_emulator_config():
        return EmulatorConfig.instant(faults=("create-committed-drop@1",))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from langbatch.emulator.config import EmulatorConfig
    from langbatch.emulator.server import RunningServer


@pytest.fixture
def langbatch_emulator_config() -> EmulatorConfig:
    """How `langbatch_emulator` behaves: instant, without faults, unless a test overrides this."""
    from langbatch.emulator.config import EmulatorConfig

    return EmulatorConfig.instant()


@pytest.fixture
def langbatch_emulator(langbatch_emulator_config: EmulatorConfig) -> Iterator[RunningServer]:
    """An emulator listening on loopback for one test: `.azure_endpoint`, `.azure_v1_base_url`,
    `.openai_base_url`, `.url`, and `.emulator` for reports, faults and payments."""
    from langbatch.emulator.server import running_server

    with running_server(config=langbatch_emulator_config) as server:
        yield server
