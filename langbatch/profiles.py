"""Profiles: targets and settings under a name, in one TOML file that holds no secret.

[prod]
provider = "azure"
poll_seconds = 60

[[prod.targets]]
azure_endpoint = "https://east.openai.azure.com"
deployment = "gpt-4o-mini-batch"
api_key_env = "EAST_KEY"        # the variable that holds the key, never the key
weight = 2                      # its share of the shards while all targets have room
quota_tokens = 5_000_000        # enqueued tokens, where you know them
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from langbatch.errors import SetupError

FILE_NAME: Final = "profiles.toml"

#: What a target's table may say beside the arguments of the same names.
ROUTING_ARGUMENTS: Final = frozenset({"api_key_env", "weight", "quota_tokens"})
_SECRETS: Final = frozenset({"api_key", "azure_ad_token", "client_secret", "azure_password"})
#: Arguments that say where, beside those that say who.
PLACE_ARGUMENTS: Final = frozenset(
    {
        "azure_endpoint",
        "api_base",
        "api_version",
        "base_url",
        "organization",
        "project",
        "deployment",
        "allow_http",
    }
)
#: Arguments about the identity that are not secret: kept with a job; a restart needs the secret only.
KEPT_IDENTITY: Final = ("tenant_id", "client_id", "azure_username", "azure_scope")
_PLACES: Final = PLACE_ARGUMENTS | {"model", *KEPT_IDENTITY}
_SETTINGS: Final = frozenset(
    {
        "poll_seconds",
        "grace_seconds",
        "outage_seconds",
        "event_log",
        "telemetry",
        "webhook_url",
        "webhook_secret_env",  # the variable's name, never the secret
        "webhook_seconds",
    }
)


@dataclass(frozen=True, slots=True)
class Profile:
    """One named table. `targets` are keyword arguments, one mapping each; `settings` are waits, and who is
    told of events, as text."""

    name: str
    provider: str
    targets: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, str]


def read_profile(path: Path, name: str) -> Profile:
    """The profile `name` of the file; `SetupError` says what is wrong and where."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SetupError(
            f"there is no profile {name!r}: {path} does not exist",
            hint="docs/reference/configuration.md shows what such a file looks like",
            code="no_profile",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(
            f"{path} cannot be read: {error}", hint="mend the file", code="bad_profile"
        ) from None
    table = tables.get(name)
    if not isinstance(table, dict):
        known = ", ".join(sorted(key for key, value in tables.items() if isinstance(value, dict))) or "none"
        raise SetupError(f"{path} has no profile {name!r}", hint=f"known: {known}", code="no_profile")
    where = f"profile {name!r} in {path}"
    if "webhook_secret" in table:
        raise SetupError(
            f"{where} holds a secret (webhook_secret)",
            hint='name the environment variable that holds it: webhook_secret_env = "MY_SECRET"',
            code="secret_in_profile",
        )
    targets = table.get("targets") or [{k: v for k, v in table.items() if k not in _SETTINGS | {"provider"}}]
    if not isinstance(targets, list) or not all(isinstance(target, dict) for target in targets):
        raise _wrong(where, f"targets must be tables: [[{name}.targets]]")
    allowed = _SETTINGS | {"provider", "targets"} if "targets" in table else _SETTINGS | {"provider"}
    if "targets" in table and (odd := sorted(set(table) - allowed)):
        raise _wrong(where, f"{', '.join(odd)} belongs into a target, or is unknown")
    for target in targets:
        _check_target(where, target)
    settings = {key: str(table[key]) for key in _SETTINGS & set(table)}
    return Profile(name, str(table.get("provider", "azure")), tuple(targets), settings)


def _check_target(where: str, target: Mapping[str, Any]) -> None:
    secret = sorted(_SECRETS & set(target))
    if secret:
        raise SetupError(
            f"{where} holds a secret ({', '.join(secret)})",
            hint='name the environment variable that holds it: api_key_env = "MY_KEY"',
            code="secret_in_profile",
        )
    unknown = sorted(set(target) - _PLACES - ROUTING_ARGUMENTS)
    if unknown:
        raise _wrong(where, f"{', '.join(unknown)} is unknown")


def read_routing(given: Mapping[str, Any]) -> dict[str, str]:
    """`weight` and `quota_tokens` checked, as a target's settings keep them."""
    kept: dict[str, str] = {}
    weight, quota = given.get("weight"), given.get("quota_tokens")
    if weight is not None:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
            raise SetupError(f"weight is {weight!r}, not a number above 0", hint="2 is twice the share of 1")
        kept["weight"] = f"{weight:g}"
    if quota is not None:
        if isinstance(quota, bool) or not isinstance(quota, int) or quota < 1:
            raise SetupError(f"quota_tokens is {quota!r}, not a whole number of tokens above 0")
        kept["quota_tokens"] = str(quota)
    return kept


def _wrong(where: str, what: str) -> SetupError:
    return SetupError(f"{where}: {what}", hint="mend the file", code="bad_profile")
