"""A local double of the Azure OpenAI and OpenAI batch services, for tests and for trying things out.

    from langbatch.emulator import EmulatorConfig, running_server

    with running_server(config=EmulatorConfig.instant()) as server:
        client = AzureOpenAI(azure_endpoint=server.azure_endpoint, api_key="any", api_version="2024-10-21")
        …
        assert server.emulator.report()["counts"]["batches"] == 1

`routed(emulator)` does the same inside one process, without sockets. As a pytest fixture it is called
`langbatch_emulator`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langbatch.emulator.clock import Clock, ManualClock, RealClock, ScaledClock
    from langbatch.emulator.config import EmulatorConfig, RowError, Timing
    from langbatch.emulator.faults import FAULTS, parse_fault
    from langbatch.emulator.ledger import Payment, Payments
    from langbatch.emulator.routes import routed
    from langbatch.emulator.server import RunningServer, running_server, serve
    from langbatch.emulator.service import Emulator

__all__ = [
    "FAULTS",
    "Clock",
    "Emulator",
    "EmulatorConfig",
    "ManualClock",
    "Payment",
    "Payments",
    "RealClock",
    "RowError",
    "RunningServer",
    "ScaledClock",
    "Timing",
    "parse_fault",
    "routed",
    "running_server",
    "serve",
]

_HOMES = {
    "FAULTS": "faults",
    "Clock": "clock",
    "Emulator": "service",
    "EmulatorConfig": "config",
    "ManualClock": "clock",
    "Payment": "ledger",
    "Payments": "ledger",
    "RealClock": "clock",
    "RowError": "config",
    "RunningServer": "server",
    "ScaledClock": "clock",
    "Timing": "config",
    "parse_fault": "faults",
    "routed": "routes",
    "running_server": "server",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
