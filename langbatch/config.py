"""Settings, targets and credentials: the only module that reads environment variables.

An explicit argument beats the environment, which beats the profile, which beats the default. A variable that
is set to nothing counts as unset.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langbatch.errors import SetupError
from langbatch.profiles import FILE_NAME, ROUTING_ARGUMENTS, Profile, read_profile, read_routing
from langbatch.providers import PROVIDER_NAMES
from langbatch.providers.credentials import Credentials
from langbatch.providers.endpoints import (
    OPENAI_BASE_URL,
    Address,
    is_azure_host,
    is_loopback,
    read_address,
    read_api_version,
    read_azure_url,
    refuse_plain_http,
    version_date,
    version_warning,
)
from langbatch.providers.sign_in import AZURE_ONLY_ARGUMENTS, CREDENTIAL_ARGUMENTS, choose_credentials
from langbatch.records import EndpointKind, Target

if TYPE_CHECKING:
    from langbatch.telling.webhook import Webhook

__all__ = [
    "TARGET_ARGUMENTS",
    "Credentials",
    "Settings",
    "find_profile",
    "reopen_target",
    "resolve_target",
    "resolve_targets",
    "target_warnings",
]

DEFAULT_POLL_SECONDS = 60.0
#: Between looks at a service on this machine: the emulator, or a user's own.
LOOPBACK_POLL_SECONDS = 1.0

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})

_ENDPOINT_VARIABLES = ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT")
_VERSION_VARIABLES = ("AZURE_API_VERSION", "OPENAI_API_VERSION")

#: Arguments that say where, beside those that say who.
_PLACE_ARGUMENTS = frozenset(
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
TARGET_ARGUMENTS = _PLACE_ARGUMENTS | CREDENTIAL_ARGUMENTS | ROUTING_ARGUMENTS
#: Arguments about the identity that are not secret: kept with the job; a restart needs the secret only.
_KEPT_IDENTITY = ("tenant_id", "client_id", "azure_username", "azure_scope")


# ---------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class Settings:
    """Where state is kept and how patient langbatch is. Times are seconds; None means unset."""

    home: Path
    #: A SQLAlchemy URL, which may hold a password; None: SQLite in `home`.
    database_url: str | None = field(default=None, repr=False)
    poll_seconds: float = DEFAULT_POLL_SECONDS
    #: Whether the user chose `poll_seconds`; else a loopback service is looked at more often.
    poll_is_chosen: bool = False
    #: How long an absent batch may still turn up; None: the caller chooses (1800, or 600 behind a fence).
    grace_seconds: float | None = None
    #: How long `resume --wait` rides out an outage; None: the caller's default.
    outage_seconds: float | None = None
    allow_http: bool = False
    #: Where events are appended as JSON lines; None: nowhere.
    event_log: Path | None = None
    #: Whether events become OpenTelemetry's metrics and traces.
    telemetry: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    #: For how long a webhook is tried; None: the default, three days.
    webhook_seconds: float | None = None

    @classmethod
    def load(
        cls,
        home: str | os.PathLike[str] | None = None,
        database_url: str | None = None,
        environ: Mapping[str, str] = os.environ,
        profile: Mapping[str, str] | None = None,
    ) -> Settings:
        """The settings in force. `profile` holds the variables' names in lower case without `LANGBATCH_`."""

        def find(name: str) -> str | None:
            return environ.get(f"LANGBATCH_{name.upper()}") or (profile or {}).get(name) or None

        poll = _seconds("poll_seconds", find, positive=True)
        # LangBatch's variable: who put its data on a disk that lasts finds ours there, too.
        folder = home if home is not None else find("home") or find("data_path")
        log = find("event_log")
        named = (profile or {}).get("webhook_secret_env")
        secrets = ("LANGBATCH_WEBHOOK_SECRET", *([named] if named else []))
        return cls(
            home=_default_home() if folder is None else Path(folder).expanduser().absolute(),
            database_url=database_url or find("database_url"),
            poll_seconds=DEFAULT_POLL_SECONDS if poll is None else poll,
            poll_is_chosen=poll is not None,
            grace_seconds=_seconds("grace_seconds", find),
            outage_seconds=_seconds("outage_seconds", find),
            allow_http=_yes_or_no("LANGBATCH_ALLOW_HTTP", find("allow_http")),
            event_log=None if log is None else Path(log).expanduser().absolute(),
            telemetry=_yes_or_no("LANGBATCH_TELEMETRY", find("telemetry")),
            webhook_url=find("webhook_url"),
            # Never in the profile itself, which names the variable at most.
            webhook_secret=next(filter(None, map(environ.get, secrets)), None),
            webhook_seconds=_seconds("webhook_seconds", find),
        )

    @property
    def tells_others(self) -> bool:
        """Whether anybody outside this process wants to be told of events."""
        return self.event_log is not None or self.webhook_url is not None or self.telemetry

    def check(self) -> None:
        """`SetupError` for what would turn out to be unusable only when it is needed."""
        _ = self.webhook

    @property
    def webhook(self) -> Webhook | None:
        """Where the ends of jobs are posted; `SetupError` for what could not be used."""
        if self.webhook_url is None:
            return None
        from langbatch.telling.signing import MAKE_ONE, read_secrets
        from langbatch.telling.webhook import PATIENCE_SECONDS, Webhook

        named, url = "LANGBATCH_WEBHOOK_URL", self.webhook_url.strip()
        address = read_address(url, named)
        if not url.isascii() or "://" not in url:
            raise SetupError(f"{named} is not a whole address", hint="https://hooks.example.com/langbatch")
        refuse_plain_http(address, self.allow_http)
        if not self.webhook_secret:
            raise SetupError("a webhook is set, but LANGBATCH_WEBHOOK_SECRET is not", hint=MAKE_ONE)
        keys = read_secrets(self.webhook_secret, "LANGBATCH_WEBHOOK_SECRET")
        patience = self.webhook_seconds
        return Webhook(url, keys, PATIENCE_SECONDS if patience is None else patience)

    def poll_seconds_for(self, target: Target) -> float:
        """The longest wait between looks at this target."""
        if self.poll_is_chosen or not is_loopback(target.host):
            return self.poll_seconds
        return LOOPBACK_POLL_SECONDS


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("langbatch", appauthor=False)


def _seconds(name: str, find: Callable[[str], str | None], *, positive: bool = False) -> float | None:
    text = find(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0 or (positive and seconds == 0):
        least = "above 0" if positive else "of 0 or more"
        raise SetupError(
            f"LANGBATCH_{name.upper()} is {text[:40]!r}, not a number of seconds",
            hint=f"give a number {least}",
        )
    return seconds


def _yes_or_no(named: str, text: object) -> bool:
    if text is None or isinstance(text, bool):
        return bool(text)
    word = str(text).strip().lower()
    if word not in _YES | _NO:
        raise SetupError(f"{named} is neither yes nor no", hint="1 or 0")
    return word in _YES


# ---------------------------------------------------------------- targets


def resolve_target(
    provider: str,
    kind: EndpointKind,
    *,
    model: str | None = None,
    environ: Mapping[str, str] = os.environ,
    **arguments: Any,
) -> tuple[Target, Credentials]:
    """Where to send and what opens the door; sends nothing.

    `TypeError` for an unknown argument; `SetupError` for what is missing or contradictory. With `client=` the
    place and the credentials are that SDK client's own; an Azure client makes the target an Azure one,
    whatever `provider` says, because LangBatch's users pass it so.
    """
    unknown = sorted(set(arguments) - TARGET_ARGUMENTS)
    if unknown:
        raise TypeError(f"unknown target argument: {', '.join(unknown)}")
    if provider not in PROVIDER_NAMES:
        raise SetupError(
            f"there is no provider named {provider[:40]!r}",
            hint=f"known: {', '.join(PROVIDER_NAMES)}",
            code="unknown_provider",
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    routing = read_routing(given)
    key_variable = given.get("api_key_env")
    if key_variable is not None:
        given["api_key"] = _key_in(environ, str(key_variable))
        routing["api_key_env"] = str(key_variable)
    given = {name: value for name, value in given.items() if name not in ROUTING_ARGUMENTS}
    target, credentials = _resolve(provider, kind, model, given, environ)
    return replace(target, settings={**target.settings, **routing}), credentials


def resolve_targets(
    provider: str,
    kind: EndpointKind,
    *,
    model: str | None = None,
    profile: Profile | None = None,
    targets: Sequence[Mapping[str, Any]] = (),
    environ: Mapping[str, str] = os.environ,
    **arguments: Any,
) -> list[tuple[Target, Credentials]]:
    """As `resolve_target`, for a job that names several: `targets`, each with arguments of its own beside the
    common ones; several deployments of one resource (`deployment=["a", "b"]`); or a profile."""
    deployments = arguments.get("deployment")
    if isinstance(deployments, list | tuple):
        if targets or model:
            raise SetupError(
                "several deployments are given beside targets or a model", hint="give one of them"
            )
        targets = [{"deployment": deployment} for deployment in deployments]
        del arguments["deployment"]
    if profile is not None:
        if targets:
            raise SetupError("a profile and targets are both given", hint="give one of them")
        targets, provider = profile.targets, profile.provider
    if not targets:
        return [resolve_target(provider, kind, model=model, environ=environ, **arguments)]
    found = []
    for own in targets:
        merged = {**arguments, **own}
        chosen = str(merged.pop("provider", provider))
        named = merged.pop("model", None) or model
        found.append(resolve_target(chosen, kind, model=named, environ=environ, **merged))
    labels = [target.label for target, _ in found]
    if len(set(labels)) < len(labels):
        raise SetupError(f"a target is named twice: {', '.join(labels)}", hint="name each once")
    if len(found) > 1 and any(target.provider == "azure" and not target.model for target, _ in found):
        raise SetupError("each of several Azure targets needs its deployment", hint='deployment = "NAME"')
    return found


def find_profile(name: str | None, home: Path, environ: Mapping[str, str] = os.environ) -> Profile | None:
    """The profile of that name, or the one `LANGBATCH_PROFILE` names; None where neither does."""
    chosen = name or environ.get("LANGBATCH_PROFILE") or None
    if chosen is None:
        return None
    return read_profile(Path(environ.get("LANGBATCH_PROFILES") or home / FILE_NAME), chosen)


def _key_in(environ: Mapping[str, str], variable: str) -> str:
    key = environ.get(variable, "").strip()
    if not key:
        raise SetupError(f"no key is in the environment variable {variable}", hint=f"export {variable}=…")
    return key


def _resolve(
    provider: str, kind: EndpointKind, model: str | None, given: dict[str, Any], environ: Mapping[str, str]
) -> tuple[Target, Credentials]:
    allow_http = _yes_or_no("allow_http", given.pop("allow_http", None)) or _yes_or_no(
        "LANGBATCH_ALLOW_HTTP", environ.get("LANGBATCH_ALLOW_HTTP") or None
    )
    if "client" in given:
        return _target_of_client(provider, kind, model, given, allow_http)
    if provider == "azure":
        return _azure_target(kind, model, given, allow_http, environ)
    return _openai_target(kind, model, given, allow_http, environ)


def reopen_target(target: Target, environ: Mapping[str, str] = os.environ, **arguments: Any) -> Credentials:
    """Credentials for a stored target, after a restart: from `arguments`, else from the environment, with the
    identity (tenant, client id, user name) that the job was given."""
    unknown = sorted(set(arguments) - CREDENTIAL_ARGUMENTS)
    if unknown:
        raise TypeError(f"unknown credential argument: {', '.join(unknown)}")
    given = {name: value for name, value in arguments.items() if value is not None}
    if "client" in given:
        other, credentials = _target_of_client(
            target.provider, target.kind, target.model, given, allow_http=True
        )
        if (other.provider, other.host) != (target.provider, target.host):
            raise SetupError(f"the client speaks to {other.host}, but this job is on {target.host}")
        return credentials
    if not given and (variable := target.settings.get("api_key_env")) is not None:
        return choose_credentials(target.provider, {"api_key": _key_in(environ, variable)}, environ)
    kept = {name: target.settings[name] for name in _KEPT_IDENTITY if name in target.settings}
    if not given and kept:
        try:
            return choose_credentials(target.provider, kept, environ)
        except SetupError:
            pass  # the job's own identity lacks its secret here: what else the environment has may serve
    return choose_credentials(target.provider, given, environ)


def target_warnings(target: Target) -> tuple[str, ...]:
    """What looks wrong about a target, for people; it is used as given all the same."""
    found = version_warning(target.settings) if target.provider == "azure" else None
    return (found,) if found else ()


def _azure_target(
    kind: EndpointKind,
    model: str | None,
    given: Mapping[str, Any],
    allow_http: bool,
    environ: Mapping[str, str],
) -> tuple[Target, Credentials]:
    endpoint = _one_of(given, "azure_endpoint", "api_base")
    base_url = _text(given, "base_url")
    if endpoint and base_url:
        raise SetupError("azure_endpoint and base_url are both given", hint="give one of them")
    explicit = endpoint or base_url
    named = "azure_endpoint" if endpoint else "base_url" if base_url else "the endpoint"
    where = explicit or _first(environ, _ENDPOINT_VARIABLES)
    if not where:
        raise SetupError(
            "no Azure endpoint is known",
            hint="set AZURE_API_BASE (or AZURE_OPENAI_ENDPOINT) to https://NAME.openai.azure.com",
        )
    url = read_azure_url(where, named)
    refuse_plain_http(url.address, allow_http)
    # An endpoint that is given with /v1 in it says more than a version left over in the environment.
    version = _text(given, "api_version") or ("v1" if explicit and url.says_v1 else None)
    version = read_api_version(version or _first(environ, _VERSION_VARIABLES) or "v1")
    if not url.literal:
        settings = {"azure_endpoint": url.address.url, "api_version": version}
    else:
        settings = {"base_url": url.address.url, "api_version": version}
    _keep(settings, given, ("organization", "project", *_KEPT_IDENTITY))
    _keep_allow_http(settings, url.address)
    target = Target("azure", url.address.host, kind, _deployment(model, given), settings)
    return target, choose_credentials("azure", given, environ)


def _openai_target(
    kind: EndpointKind,
    model: str | None,
    given: Mapping[str, Any],
    allow_http: bool,
    environ: Mapping[str, str],
) -> tuple[Target, Credentials]:
    foreign = sorted(set(given) & (AZURE_ONLY_ARGUMENTS | {"azure_endpoint", "api_version", "deployment"}))
    if foreign:
        raise SetupError(f"{', '.join(foreign)} belongs to Azure", hint='use provider="azure"')
    base_url = _one_of(given, "base_url", "api_base") or environ.get("OPENAI_BASE_URL") or OPENAI_BASE_URL
    address = read_address(base_url, "base_url")
    if is_azure_host(address.host):
        raise SetupError(f"{address.host} is an Azure resource", hint='use provider="azure"')
    refuse_plain_http(address, allow_http)
    settings = {"base_url": address.url}
    for name, variable in (("organization", "OPENAI_ORG_ID"), ("project", "OPENAI_PROJECT_ID")):
        value = _text(given, name) or environ.get(variable)
        if value:
            settings[name] = value
    _keep_allow_http(settings, address)
    return Target("openai", address.host, kind, model, settings), choose_credentials("openai", given, environ)


def _target_of_client(
    provider: str, kind: EndpointKind, model: str | None, given: Mapping[str, Any], allow_http: bool
) -> tuple[Target, Credentials]:
    client = given["client"]
    others = sorted(set(given) - {"client", "deployment"})
    if others:
        raise SetupError(f"client= is given beside {', '.join(others)}", hint="the client already says it")
    families = {family.__name__ for family in type(client).__mro__}
    if families & {"AsyncOpenAI", "AsyncAzureOpenAI"}:
        raise SetupError("client= is an asynchronous client", hint="give OpenAI() or AzureOpenAI()")
    if "OpenAI" not in families:
        raise SetupError("client= is not a client of the openai SDK", hint="give OpenAI() or AzureOpenAI()")
    url = str(client.base_url)
    address = read_address(url.partition("?")[0], "the client's base_url")
    refuse_plain_http(address, allow_http)
    credentials = Credentials("client", client=client)
    speaks_azure = "AzureOpenAI" in families
    if not speaks_azure and not is_azure_host(address.host) and provider == "openai":
        settings = {"base_url": address.url}
        _keep(settings, vars(client), ("organization", "project"))
        _keep_allow_http(settings, address)
        return Target("openai", address.host, kind, _deployment(model, given), settings), credentials
    if not speaks_azure and address.host == read_address(OPENAI_BASE_URL, "").host:
        raise SetupError(
            "client= speaks to OpenAI, not to Azure", hint='use provider="openai", or AzureOpenAI()'
        )
    found = read_azure_url(address.url, "the client's base_url")
    version = _clients_version(client, found.says_v1)
    settings = {"base_url": address.url} if found.literal else {"azure_endpoint": found.address.url}
    settings["api_version"] = version
    _keep_allow_http(settings, address)
    return Target("azure", address.host, kind, _deployment(model, given), settings), credentials


def _clients_version(client: Any, says_v1: bool) -> str:
    """The api-version that an SDK client sends: Azure's own attribute, or a default query of `OpenAI`'s."""
    query = getattr(client, "default_query", None) or {}
    sent = getattr(client, "_api_version", None) or query.get("api-version")
    version = read_api_version(sent) if isinstance(sent, str) and sent else "v1"
    # A dated version on a v1 path is ignored by the service: the path says which family it is.
    return "v1" if says_v1 and version_date(version) else version


# ---------------------------------------------------------------- arguments


def _deployment(model: str | None, given: Mapping[str, Any]) -> str | None:
    deployment = _text(given, "deployment")
    if model and deployment and model != deployment:
        raise SetupError("model and deployment differ", hint="on Azure they are the same thing: give one")
    return model or deployment


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    text = str(value).strip()  # the SDK's URL objects are welcome
    if not text:
        raise SetupError(f"{name} is empty", hint="leave it out to use the environment")
    return text


def _one_of(given: Mapping[str, Any], name: str, alias: str) -> str | None:
    first, second = _text(given, name), _text(given, alias)
    if first and second and first != second:
        raise SetupError(f"{name} and {alias} differ", hint="they mean the same: give one of them")
    return first or second


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), None)


def _keep(settings: dict[str, str], given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        value = given.get(name)
        if isinstance(value, str) and value:
            settings[name] = value


def _keep_allow_http(settings: dict[str, str], address: Address) -> None:
    """Consent to http is given once for a job, so that a restart does not ask again."""
    if address.scheme == "http" and not is_loopback(address.host):
        settings["allow_http"] = "true"
