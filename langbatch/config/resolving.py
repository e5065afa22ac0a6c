"""Where requests go and what opens the door: from arguments, an SDK client, a profile or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langbatch.config.arguments import deployment_of, first_set, keep, one_of, text_of, yes_or_no
from langbatch.errors import SetupError
from langbatch.profiles import (
    KEPT_IDENTITY,
    PLACE_ARGUMENTS,
    ROUTING_ARGUMENTS,
    Profile,
    read_routing,
)
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

_ENDPOINT_VARIABLES = ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT")
_VERSION_VARIABLES = ("AZURE_API_VERSION", "OPENAI_API_VERSION")

TARGET_ARGUMENTS = PLACE_ARGUMENTS | CREDENTIAL_ARGUMENTS | ROUTING_ARGUMENTS


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


def _key_in(environ: Mapping[str, str], variable: str) -> str:
    key = environ.get(variable, "").strip()
    if not key:
        raise SetupError(f"no key is in the environment variable {variable}", hint=f"export {variable}=…")
    return key


def _resolve(
    provider: str, kind: EndpointKind, model: str | None, given: dict[str, Any], environ: Mapping[str, str]
) -> tuple[Target, Credentials]:
    allow_http = yes_or_no("allow_http", given.pop("allow_http", None)) or yes_or_no(
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
    kept = {name: target.settings[name] for name in KEPT_IDENTITY if name in target.settings}
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
    endpoint = one_of(given, "azure_endpoint", "api_base")
    base_url = text_of(given, "base_url")
    if endpoint and base_url:
        raise SetupError("azure_endpoint and base_url are both given", hint="give one of them")
    explicit = endpoint or base_url
    named = "azure_endpoint" if endpoint else "base_url" if base_url else "the endpoint"
    where = explicit or first_set(environ, _ENDPOINT_VARIABLES)
    if not where:
        raise SetupError(
            "no Azure endpoint is known",
            hint="set AZURE_API_BASE (or AZURE_OPENAI_ENDPOINT) to https://NAME.openai.azure.com",
        )
    url = read_azure_url(where, named)
    refuse_plain_http(url.address, allow_http)
    # An endpoint that is given with /v1 in it says more than a version left over in the environment.
    version = text_of(given, "api_version") or ("v1" if explicit and url.says_v1 else None)
    version = read_api_version(version or first_set(environ, _VERSION_VARIABLES) or "v1")
    if not url.literal:
        settings = {"azure_endpoint": url.address.url, "api_version": version}
    else:
        settings = {"base_url": url.address.url, "api_version": version}
    keep(settings, given, ("organization", "project", *KEPT_IDENTITY))
    _keep_allow_http(settings, url.address)
    target = Target("azure", url.address.host, kind, deployment_of(model, given), settings)
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
    base_url = one_of(given, "base_url", "api_base") or environ.get("OPENAI_BASE_URL") or OPENAI_BASE_URL
    address = read_address(base_url, "base_url")
    if is_azure_host(address.host):
        raise SetupError(f"{address.host} is an Azure resource", hint='use provider="azure"')
    refuse_plain_http(address, allow_http)
    settings = {"base_url": address.url}
    for name, variable in (("organization", "OPENAI_ORG_ID"), ("project", "OPENAI_PROJECT_ID")):
        value = text_of(given, name) or environ.get(variable)
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
        keep(settings, vars(client), ("organization", "project"))
        _keep_allow_http(settings, address)
        return Target("openai", address.host, kind, deployment_of(model, given), settings), credentials
    if not speaks_azure and address.host == read_address(OPENAI_BASE_URL, "").host:
        raise SetupError(
            "client= speaks to OpenAI, not to Azure", hint='use provider="openai", or AzureOpenAI()'
        )
    found = read_azure_url(address.url, "the client's base_url")
    version = _clients_version(client, found.says_v1)
    settings = {"base_url": address.url} if found.literal else {"azure_endpoint": found.address.url}
    settings["api_version"] = version
    _keep_allow_http(settings, address)
    return Target("azure", address.host, kind, deployment_of(model, given), settings), credentials


def _clients_version(client: Any, says_v1: bool) -> str:
    """The api-version that an SDK client sends: Azure's own attribute, or a default query of `OpenAI`'s."""
    query = getattr(client, "default_query", None) or {}
    sent = getattr(client, "_api_version", None) or query.get("api-version")
    version = read_api_version(sent) if isinstance(sent, str) and sent else "v1"
    # A dated version on a v1 path is ignored by the service: the path says which family it is.
    return "v1" if says_v1 and version_date(version) else version


def _keep_allow_http(settings: dict[str, str], address: Address) -> None:
    """Consent to http is given once for a job, so that a restart does not ask again."""
    if address.scheme == "http" and not is_loopback(address.host):
        settings["allow_http"] = "true"
