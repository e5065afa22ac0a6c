"""Batch services by name. Importing this is cheap: an SDK is loaded only when a provider is opened."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from langbatch.errors import SetupError
from langbatch.interrupts import interrupts_wait
from langbatch.providers.limits import LIMITS

if TYPE_CHECKING:
    from langbatch.providers.base import Provider
    from langbatch.providers.credentials import Credentials
    from langbatch.records import Limits, Target

__all__ = ["PROVIDER_NAMES", "limits_for", "open_provider"]

PROVIDER_NAMES: tuple[str, ...] = tuple(sorted(LIMITS))


def limits_for(target: Target) -> Limits:
    """What one batch on this target may hold."""
    return LIMITS[_known(target.provider)]


def open_provider(target: Target, credentials: Credentials) -> Provider:
    """The target's service, ready to be asked. Sends nothing; imports the openai SDK (0.6 s)."""
    name = _known(target.provider)
    with interrupts_wait():
        provider: Provider = import_module(f"{__name__}.{name}").open_provider(target, credentials)
    return provider


def _known(name: str) -> str:
    if name not in LIMITS:
        raise SetupError(
            f"there is no provider named {name[:40]!r}",
            hint=f"known: {', '.join(PROVIDER_NAMES)}",
            code="unknown_provider",
        )
    return name
