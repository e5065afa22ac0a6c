"""One HTTP exchange through the openai SDK, with our rules instead of its own.

Its retries are off, because it re-sends POSTs without an idempotency key (measured: three POSTs for one lost
reply), and redirects are not followed: a POST that is re-sent elsewhere is a second batch. Both are set on
every request, so a user's own client is used as it is, without a copy (copies lose the Azure endpoint in some
2.x releases). Replies arrive unparsed. openai 2 speaks httpx, openai 3 httpx2: their classes are found
through the SDK, and their exceptions told apart by name.
"""

from __future__ import annotations

import importlib
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from langbatch import failpoints
from langbatch.errors import AccessRefused, FateUnknown, ProviderError, Unreachable
from langbatch.providers.credentials import Access
from langbatch.providers.error_table import MAKING_VERBS, Verb, error_for
from langbatch.redaction import safe_text

CONNECT_SECONDS = 10.0
#: Longest silence within a small call, and within an upload or download.
CALL_SECONDS = 60.0
TRANSFER_SECONDS = 600.0
#: A reply to anything but a download is never larger; a page of 10,000 files has about 3 MB.
REPLY_LIMIT_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 256 * 1024

#: Transport exceptions after which the request cannot have reached the service.
_NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL"}
)
#: ... and those that say that a reply ended before its promised end, or cannot be unpacked.
_CUT_SHORT = frozenset({"RemoteProtocolError", "DecodingError"})
CUT_SHORT = "cut_short"

#: Asks the SDK for the response unread; the same header its own streaming wrapper sets.
_UNREAD = {"X-Stainless-Raw-Response": "stream"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx answer, read. Header names are lower case. `secrets`: what it may echo."""

    headers: Mapping[str, str]
    body: bytes
    secrets: tuple[str, ...] = ()


class Exchange:
    """An SDK client, what opens the door, and nothing remembered between calls. Safe for several threads."""

    def __init__(
        self,
        client: Any,  # OpenAI or AzureOpenAI of openai 2 or 3, whose types differ
        access: Access,
        *,
        host: str,
        headers: Mapping[str, str | None] | None = None,
        owns_client: bool = True,
    ) -> None:
        import openai

        self._sdk = openai
        self._client = client
        self._access = access
        self._host = host
        self._owns_client = owns_client
        self._headers = {
            name: openai.Omit() if value is None else value for name, value in (headers or {}).items()
        }
        # `httpx.Response` or `httpx2.Response`, whichever this SDK hands out.
        transport = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
        self._response_type = transport.Response

    @property
    def secrets(self) -> tuple[str, ...]:
        return self._access.secrets

    def call(
        self,
        verb: Verb,
        method: Literal["get", "post", "delete"],
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
        files: list[tuple[str, Any]] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Reply:
        """One exchange, its reply read whole (up to 64 MiB)."""
        with self.open(verb, method, path, query=query, form=form, files=files, seconds=seconds) as response:
            headers = header_map(response)
            body = bytearray()
            for block in self.blocks(response, decoded=True):
                body += block
                if len(body) > REPLY_LIMIT_BYTES:
                    raise FateUnknown("the reply is far too large", status=response.status_code)
            return Reply(headers, bytes(body), self._sent_secrets(response))

    @contextmanager
    def open(
        self,
        verb: Verb,
        method: Literal["get", "post", "delete"],
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
        files: list[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Iterator[Any]:
        """A 2xx response, unread; closed on leaving. Refusals raise, after one new token on a 401."""
        extra = {**(headers or {}), **({"Content-Type": "multipart/form-data"} if files else {})}

        def attempt(credentials: Mapping[str, str]) -> Any:
            return self._send(
                verb,
                method,
                path,
                credentials,
                query=query,
                form=form,
                files=files,
                extra=extra,
                seconds=seconds,
            )

        sent = self._access.headers()
        failpoints.reached(f"call.{verb}.before")
        answer = attempt(sent)
        if isinstance(answer, AccessRefused) and answer.status == 401:
            fresh = self._access.headers_after_refusal(sent)
            if fresh is not None:
                answer = attempt(fresh)
        failpoints.reached(f"call.{verb}.after")
        if isinstance(answer, ProviderError):
            raise answer
        try:
            yield answer
        finally:
            answer.close()

    def blocks(self, response: Any, *, decoded: bool) -> Iterator[bytes]:
        """The body in blocks of up to 256 KiB; `decoded` undoes compression, else bytes as sent."""
        read = response.iter_bytes if decoded else response.iter_raw
        source = read(chunk_size=BLOCK_BYTES)
        while True:
            trouble: ProviderError | None = None
            block = b""
            try:
                block = next(source, b"")
            except Exception as problem:  # transports and decoders, judged in one place
                trouble = self._trouble(problem)
                if trouble is None:
                    raise
            if trouble is not None:
                raise trouble
            if not block:
                return
            yield block

    def _sent_secrets(self, response: Any) -> tuple[str, ...]:
        """Also what a user's own client has put into its headers, whose tokens nobody else knows."""
        sent = response.request.headers
        words = f"{sent.get('Authorization', '')} {sent.get('api-key', '')}".split()
        return (*self.secrets, *(word for word in words if word.lower() not in ("bearer", "basic")))

    def close(self) -> None:
        """Close our own client; a user's stays open."""
        self._access.close()
        if self._owns_client:
            self._client.close()

    def _send(
        self,
        verb: Verb,
        method: Literal["get", "post", "delete"],
        path: str,
        credentials: Mapping[str, str],
        *,
        query: Mapping[str, Any] | None,
        form: Mapping[str, Any] | None,
        files: list[tuple[str, Any]] | None,
        extra: Mapping[str, str],
        seconds: float,
    ) -> Any:
        """The response, or the exception to raise: returned, so that no key rides on as its context."""
        headers: dict[str, Any] = {**_UNREAD, **self._headers, **extra, **credentials}
        if credentials:
            # Else the SDK would add what it finds in the environment beside our own choice.
            for name in ("Authorization", "api-key"):
                headers.setdefault(name, self._sdk.Omit())
        arguments: dict[str, Any] = {
            "cast_to": self._response_type,
            "options": {
                "headers": headers,
                "params": dict(query or {}),
                "timeout": self._sdk.Timeout(seconds, connect=CONNECT_SECONDS),
                "max_retries": 0,
                "follow_redirects": False,
            },
        }
        if form is not None:
            arguments["body"] = dict(form)
        if files is not None:
            arguments["files"] = files
        try:
            return getattr(self._client, method)(path, **arguments)
        except self._sdk.APIStatusError as refusal:
            response = refusal.response
            return error_for(
                verb,
                response.status_code,
                header_map(response),
                _error_body(response),
                now=time.time(),
                known_secrets=self._sent_secrets(response),
            )
        except Exception as problem:  # the SDK, its transport, hooks of a user's client
            trouble = self._trouble(problem, making=verb in MAKING_VERBS)
            if trouble is None:
                raise
            return trouble

    def _trouble(self, problem: BaseException, *, making: bool = False) -> ProviderError | None:
        """What an exception without an answer means; None for local trouble, such as a disk that fails."""
        sdk = self._sdk
        cause = problem
        if isinstance(problem, sdk.APIConnectionError):
            cause = problem.__cause__ or problem
        names = {family.__name__ for family in type(cause).__mro__}
        what = f"{type(cause).__name__}: {safe_text(str(cause), known=self.secrets)}".rstrip(": ")
        if names & _NEVER_SENT or isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(f"no connection to {self._host} ({what})")
        if names & {"ClientAuthenticationError", "CredentialUnavailableError"}:
            return AccessRefused(f"no token could be had ({what})")
        if names & {"ServiceRequestError", "ServiceResponseError"}:
            return Unreachable(f"no token could be fetched ({what})")
        if isinstance(cause, sdk.OpenAIError) and not isinstance(cause, sdk.APIError):
            # Raised before anything is sent: no key, a sign-in that fails.
            return AccessRefused(f"the client has no usable credentials ({what})")
        local = isinstance(cause, OSError) and not isinstance(
            cause, ssl.SSLError | ConnectionError | TimeoutError
        )
        if local and not isinstance(problem, sdk.APIConnectionError):
            return None
        hint = "the call may have arrived all the same" if making else None
        return FateUnknown(
            f"the exchange with {self._host} broke off ({what})",
            code=CUT_SHORT if names & _CUT_SHORT else None,
            hint=hint,
        )


def header_map(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _error_body(response: Any) -> bytes:
    try:
        return bytes(response.content)
    except RuntimeError:  # httpx's "not read": the connection broke within the error body
        return b""
