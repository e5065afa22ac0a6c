"""Who may call: keys, bearer tokens and the ways in which they are refused (§1, §6)."""

from __future__ import annotations

import hashlib

from langbatch.emulator.context import Context
from langbatch.emulator.effects import (
    KEYLESS_MESSAGE,
    entra_refusal,
    error_response,
    forbidden,
    key_refusal,
)
from langbatch.emulator.profiles import Family
from langbatch.emulator.wire import Request, Response


class Access:
    """Checks credentials and counts which kinds came. Tokens are remembered only as digests."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._first_seen: dict[bytes, float] = {}

    def refusal(self, family: Family, request: Request) -> Response | None:
        """What a caller without access gets; None for one who may go on."""
        key = request.headers.get("api-key")
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = bearer.strip() if scheme.lower() == "bearer" else ""
        kind = "api-key" if key and family != "openai" else "bearer" if token else "none"
        self._context.storage.count("auth", kind)
        if kind == "none":
            return self._nothing_given(family)
        if kind == "api-key":
            return self._key_refusal(family, key or "")
        return self._token_refusal(family, token)

    def _nothing_given(self, family: Family) -> Response:
        if family == "openai":
            message = "You didn't provide an API key."
            return error_response("openai", 401, None, message)
        return key_refusal(family)

    def _key_refusal(self, family: Family, key: str) -> Response | None:
        config = self._context.config
        if config.key_auth_disabled:
            return forbidden(KEYLESS_MESSAGE)
        return key_refusal(family) if config.api_key is not None and key != config.api_key else None

    def _token_refusal(self, family: Family, token: str) -> Response | None:
        config = self._context.config
        is_key = config.api_key is not None and token == config.api_key
        if family == "azure" and is_key:
            # A key sent as Bearer on a dated path: "audience is incorrect" (§1); v1 accepts it.
            return entra_refusal()
        if is_key:
            return forbidden(KEYLESS_MESSAGE) if config.key_auth_disabled else None
        if config.bearer_tokens is not None:
            if token not in config.bearer_tokens:
                return key_refusal("openai") if family == "openai" else entra_refusal()
        elif config.api_key is not None and family != "azure":
            return key_refusal(family)
        if config.token_seconds is not None and family != "openai":
            now = self._context.now()
            digest = hashlib.blake2b(token.encode(), digest_size=16).digest()
            if now - self._first_seen.setdefault(digest, now) >= config.token_seconds:
                return entra_refusal()
        return None
