"""What opens a service's door, and how it is kept open for jobs that last days.

Tokens last roughly 60-90 minutes (wire reference, 6): they are fetched again before they expire, and once
more when a service answers 401. Nothing here is ever stored, and a repr shows the kind only.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langbatch.errors import AccessRefused, ProviderError, Unreachable
from langbatch.redaction import safe_text

CredentialKind = Literal[
    "key",
    "token",
    "token_provider",
    "credential",
    "client_secret",
    "username_password",
    "default",
    "client",
]

#: The 401 text names this audience; `https://ai.azure.com/.default` is on newer pages (wire reference, 6).
DEFAULT_AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"

#: A token is renewed this long before it expires; clocks differ by minutes.
_RENEW_EARLY_SECONDS = 300.0
#: How long a token without a stated end is used before it is asked for again.
_UNDATED_TOKEN_SECONDS = 300.0
#: When renewing fails, the old token serves until this close to its end.
_LAST_MOMENT_SECONDS = 30.0

_NO_CREDENTIALS_HINT = (
    "set AZURE_API_KEY, or sign in (az login, a managed identity, AZURE_TENANT_ID + AZURE_CLIENT_ID + "
    "AZURE_CLIENT_SECRET)"
)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """One way in. `client` is a user's own SDK client, which then brings its credentials itself."""

    kind: CredentialKind
    api_key: str | None = None
    token: str | None = None
    token_provider: Callable[[], str] | None = None
    credential: Any = None
    client: Any = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    username: str | None = None
    password: str | None = None
    scope: str = DEFAULT_AZURE_SCOPE

    def __repr__(self) -> str:
        return f"Credentials(kind={self.kind!r})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret known here, for masking what services echo."""
        found = [self.api_key, self.token, self.client_secret, self.password]
        if self.client is not None:
            found += [getattr(self.client, name, None) for name in ("api_key", "_azure_ad_token")]
        return tuple(secret for secret in found if isinstance(secret, str) and secret)


def build_credential(credentials: Credentials) -> Any:
    """The azure-identity object for a kind that needs one; imports that package (0.4 s) only now."""
    import azure.identity

    # It logs each way that it tried; unless the program listens, Python would print that on stderr.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    match credentials.kind:
        case "client_secret":
            return azure.identity.ClientSecretCredential(
                tenant_id=credentials.tenant_id or "",
                client_id=credentials.client_id or "",
                client_secret=credentials.client_secret or "",
            )
        case "username_password":
            options = {"tenant_id": credentials.tenant_id} if credentials.tenant_id else {}
            with warnings.catch_warnings():
                # It is deprecated for want of multi-factor sign-in; LangBatch's users still have it.
                warnings.simplefilter("ignore", DeprecationWarning)
                return azure.identity.UsernamePasswordCredential(
                    client_id=credentials.client_id or "",
                    username=credentials.username or "",
                    password=credentials.password or "",
                    **options,
                )
        case "default":
            chosen = {"managed_identity_client_id": credentials.client_id} if credentials.client_id else {}
            return azure.identity.DefaultAzureCredential(**chosen)
        case _:
            raise AssertionError(f"no azure-identity object stands behind {credentials.kind}")


class Access:
    """The headers of each request, from credentials that may need renewing. Safe for several threads."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        key_header: Literal["api-key", "Authorization"],
        now: Callable[[], float] = time.time,
        build: Callable[[Credentials], Any] = build_credential,
    ) -> None:
        self._credentials = credentials
        self._key_header = key_header
        self._now = now
        self._build = build
        self._lock = threading.Lock()
        self._source: Any = credentials.credential
        self._token: str | None = None
        self._good_until = 0.0
        self._secrets = credentials.secrets

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret in use now, the present token included."""
        token = self._token
        return (*self._secrets, token) if token else self._secrets

    def headers(self) -> Mapping[str, str]:
        """What to send now; `AccessRefused` or `Unreachable` where no token can be had."""
        credentials = self._credentials
        match credentials.kind:
            case "client":
                return {}
            case "key" if self._key_header == "api-key":
                return {"api-key": credentials.api_key or ""}
            case "key":
                return {"Authorization": f"Bearer {credentials.api_key}"}
            case "token":
                return {"Authorization": f"Bearer {credentials.token}"}
            case "token_provider":
                return {"Authorization": f"Bearer {self._called_token()}"}
            case _:
                return {"Authorization": f"Bearer {self._kept_token()}"}

    def headers_after_refusal(self, refused: Mapping[str, str]) -> Mapping[str, str] | None:
        """Other headers to try once after a 401; None where the same would be sent again."""
        if self._credentials.kind in ("client", "key", "token"):
            return None
        if self._credentials.kind != "token_provider":
            self._forget_token(refused)
        fresh = self.headers()
        return None if fresh == refused else fresh

    def close(self) -> None:
        """Close what was built here; a user's own credential object stays open."""
        with self._lock:
            if self._source is not self._credentials.credential and hasattr(self._source, "close"):
                self._source.close()
            self._source = self._credentials.credential
            self._token = None

    def _forget_token(self, refused: Mapping[str, str]) -> None:
        with self._lock:
            if refused.get("Authorization") != f"Bearer {self._token}":
                return  # another thread has renewed it meanwhile
            self._token = None
            if self._source is not self._credentials.credential:
                # azure-identity keeps tokens itself and hands out the refused one again: build it anew.
                self._source = None

    def _called_token(self) -> str:
        """The callable's token. It is called for every request, as the SDK does: caching is its own job."""
        provider = self._credentials.token_provider
        if provider is None:
            raise AssertionError("a token provider is callable")
        try:
            token = provider()
        except Exception as problem:  # noqa: BLE001 - a user's callable may raise anything
            trouble = _token_trouble(problem, self.secrets)
        else:
            return self._remembered(token)
        raise trouble

    def _kept_token(self) -> str:
        with self._lock:
            if self._token is not None and self._now() < self._good_until - _RENEW_EARLY_SECONDS:
                return self._token
            try:
                if self._source is None:
                    self._source = self._build(self._credentials)
                answer = self._source.get_token(self._credentials.scope)
            except Exception as problem:  # noqa: BLE001 - identity libraries raise many families
                trouble = _token_trouble(problem, self.secrets, default=self._credentials.kind == "default")
            else:
                ends = getattr(answer, "expires_on", None)
                token = self._remembered(getattr(answer, "token", None))
                if not isinstance(ends, int | float) or isinstance(ends, bool):
                    ends = self._now() + _UNDATED_TOKEN_SECONDS + _RENEW_EARLY_SECONDS
                self._good_until = float(ends)
                return token
            if self._token is not None and self._now() < self._good_until - _LAST_MOMENT_SECONDS:
                return self._token
        raise trouble

    def _remembered(self, token: object) -> str:
        if inspect.iscoroutine(token):
            token.close()
            raise AccessRefused("the token provider is asynchronous", hint="give a plain function")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise AccessRefused("the token provider gave no usable token", hint="it must return a string")
        self._token = token
        return token


def _token_trouble(problem: Exception, known: tuple[str, ...], *, default: bool = False) -> ProviderError:
    """No token: a network that is down is plain trouble, anything else is for a person to mend."""
    if isinstance(problem, ProviderError):
        return problem
    text = safe_text(str(problem), known=known)
    names = {family.__name__ for family in type(problem).__mro__}
    # azure-core's names for "never connected" and "no answer"; requests' own errors are OSErrors.
    if isinstance(problem, OSError) or names & {"ServiceRequestError", "ServiceResponseError"}:
        return Unreachable(f"no token could be fetched: {text}")
    hint = _NO_CREDENTIALS_HINT if default else "check the identity that is used, and its sign-in"
    return AccessRefused(f"no token could be had ({type(problem).__name__}): {text}", hint=hint)
