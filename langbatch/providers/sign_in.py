"""Which credentials are meant, from explicit arguments and the environment. Pure; fetches no token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langbatch.errors import SetupError
from langbatch.providers.credentials import DEFAULT_AZURE_SCOPE, CredentialKind, Credentials

AZURE_ONLY_ARGUMENTS = frozenset(
    {
        "azure_ad_token",
        "azure_ad_token_provider",
        "credential",
        "tenant_id",
        "client_id",
        "client_secret",
        "azure_username",
        "azure_password",
        "azure_scope",
    }
)
CREDENTIAL_ARGUMENTS = AZURE_ONLY_ARGUMENTS | {"api_key", "client"}

#: First found wins.
_KEY_VARIABLES = ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY")
_TOKEN_VARIABLES = ("AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN")
#: Arguments that may be completed from the environment, and where from.
_VARIABLES = {
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "client_secret": "AZURE_CLIENT_SECRET",
    "azure_username": "AZURE_USERNAME",
    "azure_password": "AZURE_PASSWORD",
    "azure_scope": "AZURE_SCOPE",
}


def choose_credentials(provider: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> Credentials:
    """The one credential that is meant. `given` are explicit arguments, which beat the environment; two
    explicit ones that exclude each other are a `SetupError`."""
    if provider == "openai":
        return _openai_credentials(given, environ)
    kinds = _explicit_kinds(given)
    if len(kinds) > 1:
        raise SetupError(f"credentials are given twice: {' and '.join(kinds)}", hint="give one of them")
    seek = _Seeker(given, environ)
    scope = seek.text("azure_scope") or DEFAULT_AZURE_SCOPE
    if kinds:
        return _explicit(kinds[0], given, seek, scope)
    key = _from_environment(environ, _KEY_VARIABLES)
    if key:
        return Credentials("key", api_key=key)
    token = _from_environment(environ, _TOKEN_VARIABLES)
    if token:
        return Credentials("token", token=token)
    if all(seek.text(name) for name in ("tenant_id", "client_id", "client_secret")):
        return _client_secret(seek, scope)
    if seek.text("azure_username") and seek.text("azure_password"):
        return _username_password(seek, scope)
    # azure-identity reads AZURE_CLIENT_ID itself, for managed and workload identities.
    return Credentials("default", scope=scope)


def _openai_credentials(given: Mapping[str, Any], environ: Mapping[str, str]) -> Credentials:
    foreign = sorted(set(given) & AZURE_ONLY_ARGUMENTS)
    if foreign:
        raise SetupError(f"{', '.join(foreign)} belongs to Azure", hint='use provider="azure"')
    if "api_key" in given:
        return _key_or_callable(given["api_key"])
    key = _from_environment(environ, ("OPENAI_API_KEY",))
    if not key:
        raise SetupError("no OpenAI key is known", hint="set OPENAI_API_KEY, or pass api_key")
    return Credentials("key", api_key=key)


def _explicit_kinds(given: Mapping[str, Any]) -> list[str]:
    """The arguments that name a credential, one for each kind."""
    kinds = [
        name
        for name in ("api_key", "azure_ad_token", "azure_ad_token_provider", "credential")
        if name in given
    ]
    if "client_secret" in given:
        kinds.append("client_secret")
    if "azure_username" in given or "azure_password" in given:
        kinds.append("azure_username")
    if not kinds and ("tenant_id" in given or "client_id" in given):
        # An identity without its secret: the secret is in the environment, or the identity is a managed one.
        kinds.append("identity")
    return kinds


def _explicit(kind: str, given: Mapping[str, Any], seek: _Seeker, scope: str) -> Credentials:
    match kind:
        case "api_key":
            return _key_or_callable(given["api_key"])
        case "azure_ad_token":
            return Credentials("token", token=_secret(given["azure_ad_token"], "azure_ad_token"))
        case "azure_ad_token_provider":
            return _provider(given["azure_ad_token_provider"])
        case "credential":
            if not callable(getattr(given["credential"], "get_token", None)):
                raise SetupError("credential has no get_token", hint="give an azure-identity credential")
            return Credentials("credential", credential=given["credential"], scope=scope)
        case "azure_username":
            return _username_password(seek, scope)
        case "identity" if seek.text("client_secret") is None and "tenant_id" not in given:
            return Credentials("default", client_id=seek.text("client_id"), scope=scope)
        case _:
            return _client_secret(seek, scope)


def _client_secret(seek: _Seeker, scope: str) -> Credentials:
    seek.demand("a client secret", ("tenant_id", "client_id", "client_secret"))
    return Credentials(
        "client_secret",
        tenant_id=seek.text("tenant_id"),
        client_id=seek.text("client_id"),
        client_secret=seek.text("client_secret"),
        scope=scope,
    )


def _username_password(seek: _Seeker, scope: str) -> Credentials:
    seek.demand("a user name and password", ("client_id", "azure_username", "azure_password"))
    return Credentials(
        "username_password",
        tenant_id=seek.text("tenant_id"),
        client_id=seek.text("client_id"),
        username=seek.text("azure_username"),
        password=seek.text("azure_password"),
        scope=scope,
    )


def _key_or_callable(value: object) -> Credentials:
    """The SDK takes a callable as `api_key` where a token must be fetched anew: the same thing here."""
    if callable(value):
        return _provider(value)
    return Credentials("key", api_key=_secret(value, "api_key"))


def _provider(value: object) -> Credentials:
    if not callable(value):
        raise SetupError(
            "azure_ad_token_provider is not callable", hint="give a function that returns a token"
        )
    provider: Callable[[], str] = value
    return Credentials("token_provider", token_provider=provider)


def _secret(value: object, named: str) -> str:
    """A key or token fit for a header. Pasted ones end in a newline, or hold a typographic dash."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SetupError(f"{named} is empty or cannot be a key: it has blanks or unusual characters")
    return text


def _from_environment(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    for name in names:
        if environ.get(name, "").strip():
            return _secret(environ[name], name)
    return None


class _Seeker:
    """Finds the parts of an identity: the argument first, then its variable."""

    def __init__(self, given: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._given = given
        self._environ = environ

    def text(self, name: str) -> str | None:
        value = self._given.get(name)
        text = self._environ.get(_VARIABLES[name], "") if value is None else str(value)
        return text.strip() or None

    def demand(self, what: str, names: tuple[str, ...]) -> None:
        missing = [f"{name} ({_VARIABLES[name]})" for name in names if self.text(name) is None]
        if missing:
            raise SetupError(
                f"signing in with {what} lacks {', '.join(missing)}",
                hint="UsernamePasswordCredential needs an app registration's client id"
                if what.startswith("a user") and any("client_id" in part for part in missing)
                else "pass it, or set the variable",
            )


__all__ = ["AZURE_ONLY_ARGUMENTS", "CREDENTIAL_ARGUMENTS", "CredentialKind", "choose_credentials"]
