"""Where a service's Files and Batches live: URLs, api-versions, and what each version knows. Pure.

Azure has two families of URLs (wire reference, 1): dated, `{endpoint}/openai?api-version=2024-10-21`, and v1,
`{endpoint}/openai/v1`. Batches are at resource level in both, never under `/deployments/…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address
from urllib.parse import urlsplit

from langbatch.errors import SetupError
from langbatch.records import ENDPOINT_PATHS, EndpointKind

OPENAI_BASE_URL = "https://api.openai.com/v1"
#: The first api-version with batch, and the first that knows expiry of files (wire reference, 1).
FIRST_BATCH_VERSION = "2024-07-01-preview"
_FIRST_BATCH_DATE = date(2024, 7, 1)
_FIRST_EXPIRY_DATE = date(2025, 3, 1)

#: Hosts that are an Azure resource itself, so that any path given with them is a leftover of a copied URL.
_AZURE_SUFFIXES = (
    ".openai.azure.com",
    ".services.ai.azure.com",
    ".cognitiveservices.azure.com",
    ".openai.azure.us",
    ".openai.azure.cn",
)
_V1_WORDS = frozenset({"v1", "preview", "latest"})
_DATED = re.compile(r"(\d{4}-\d{2}-\d{2})(?:-[a-z0-9]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A URL cut into what identifies it (`host`, with a port that is not the usual one) and the rest."""

    scheme: str
    host: str
    path: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


def read_address(text: str, named: str) -> Address:
    """`text` as an address, without query, fragment and final slash. `named` is what to call it in errors."""
    text = text.strip()
    parts = urlsplit(text if "://" in text else f"https://{text}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    # The text itself may hold a password, so errors do not quote it.
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or _has_blank(text):
        raise SetupError(f"{named} is not an http(s) address", hint="https://NAME.openai.azure.com")
    if parts.username is not None or parts.password is not None:
        raise SetupError(f"{named} holds a user name or password", hint="pass credentials as arguments")
    if (
        "://" not in text
        and port is None
        and not {".", ":"} & set(parts.hostname)
        and parts.hostname != "localhost"
    ):
        # A resource's name alone: the job would wait for ever for a host that nobody has.
        raise SetupError(f"{named} is a name, not an address", hint="https://NAME.openai.azure.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return Address(parts.scheme, host if port in (None, usual) else f"{host}:{port}", parts.path.rstrip("/"))


def _has_blank(text: str) -> bool:
    return any(character.isspace() or not character.isprintable() for character in text)


def is_azure_host(host: str) -> bool:
    return host.partition(":")[0].endswith(_AZURE_SUFFIXES)


def is_loopback(host: str) -> bool:
    """Whether `host` (with or without a port) is this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def refuse_plain_http(address: Address, allowed: bool) -> None:
    """Prompts and keys go over http only within this machine, or where the user said so."""
    if address.scheme == "http" and not allowed and not is_loopback(address.host):
        raise SetupError(
            f"{address.host} would be spoken to without encryption",
            hint="use https, or allow it with LANGBATCH_ALLOW_HTTP=1 (allow_http=True, --allow-http)",
        )


# ---------------------------------------------------------------- Azure


@dataclass(frozen=True, slots=True)
class AzureUrl:
    """A user's Azure URL, understood: the part before `/openai`, and whether it said `v1`.

    `literal` is a gateway's own base URL without any `/openai` in it, to be used as it is.
    """

    address: Address
    says_v1: bool
    literal: bool


def read_azure_url(text: str, named: str) -> AzureUrl:
    """Forgives what people paste: final slashes, `/openai`, `/openai/v1/`, a whole request URL."""
    address = read_address(text, named)
    before, found, after = address.path.partition("/openai")
    if found and (not after or after.startswith("/")):
        says_v1 = after == "/v1" or after.startswith("/v1/")
        path = "" if is_azure_host(address.host) else before
        return AzureUrl(Address(address.scheme, address.host, path), says_v1, literal=False)
    if is_azure_host(address.host) or not address.path:
        return AzureUrl(Address(address.scheme, address.host, ""), says_v1=False, literal=False)
    return AzureUrl(address, says_v1=address.path.endswith("/v1"), literal=True)


def read_api_version(text: str) -> str:
    """A date with an optional tail, or a word of the v1 family; `SetupError` for anything else."""
    version = text.strip().lower()
    if version in _V1_WORDS or version_date(version) is not None:
        return version
    raise SetupError(
        "api_version is neither a date nor v1",
        hint="2024-10-21, 2025-04-01-preview, or v1 (AZURE_API_VERSION)",
    )


def version_date(version: str) -> date | None:
    """The date of a dated version; None for the v1 family."""
    found = _DATED.fullmatch(version)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def azure_version(settings: Mapping[str, str]) -> str:
    return settings.get("api_version") or "v1"


def azure_base_url(settings: Mapping[str, str]) -> str:
    """The URL that `/files` and `/batches` are put behind."""
    if "base_url" in settings:
        return settings["base_url"]
    tail = "/openai" if version_date(azure_version(settings)) else "/openai/v1"
    return settings["azure_endpoint"].rstrip("/") + tail


def azure_query(settings: Mapping[str, str]) -> dict[str, str]:
    """The api-version to send: always for a dated one; on v1 it is optional, `v1` being the default."""
    version = azure_version(settings)
    return {} if version in ("v1", "latest") else {"api-version": version}


def azure_knows_expiry(settings: Mapping[str, str]) -> bool:
    """Whether `expires_after` means anything; older versions ignore it silently."""
    dated = version_date(azure_version(settings))
    return dated is None or dated >= _FIRST_EXPIRY_DATE


def azure_batch_endpoint(kind: EndpointKind, settings: Mapping[str, str]) -> str:
    """The create body's `endpoint`: the guide's spelling on dated versions, the v1 spec's enum on v1.

    The service reads the file to choose; lines may carry either spelling (wire reference, 1).
    """
    path = ENDPOINT_PATHS[kind]
    return path if version_date(azure_version(settings)) else f"/v1{path}"


def version_warning(settings: Mapping[str, str]) -> str | None:
    """A dated version from before batch is sent as given, but hardly what the user wants."""
    dated = version_date(azure_version(settings))
    if dated is None or dated >= _FIRST_BATCH_DATE:
        return None
    return (
        f"api-version {azure_version(settings)} is older than batch; "
        f"the first one that works is {FIRST_BATCH_VERSION} (2024-10-21 is stable, or use v1)"
    )
