"""One POST: no redirect is followed, nothing of the answer is read but its status and when to come again."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from langbatch.providers.endpoints import is_loopback
from langbatch.redaction import safe_text

_LONGEST_REASON = 120


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is None where there was no answer; `words` say what happened, without the URL, which may hold
    a secret. `retry_after_seconds`: what the receiver asked for."""

    status: int | None
    words: str
    retry_after_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more of these."""
        return self.status == 410


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
    """Post `body` as JSON. Never raises for what the network or the receiver does. `seconds`: the longest
    wait for a connection, and for each piece of the answer."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(urlsplit(url).netloc):
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy could not reach this machine
    request = urllib.request.Request(
        url,
        data=body,
        headers={"Content-Type": "application/json", "User-Agent": "langbatch", **headers},
        method="POST",
    )
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as answer:
            return Reply(answer.status, f"HTTP {answer.status}")
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, f"HTTP {error.code}", _seconds(error.headers.get("Retry-After")))
    except (OSError, http.client.HTTPException, ValueError) as error:
        # URLError, itself an OSError, says in `reason` what was wrong.
        reason = getattr(error, "reason", None) or error
        words = str(reason) or type(reason).__name__
        return Reply(None, safe_text(words, _LONGEST_REASON))


def _seconds(text: str | None) -> float | None:
    """A `Retry-After` in seconds; its other form, a date, is passed over."""
    found = (text or "").strip()
    return float(found) if found.isascii() and found.isdigit() and len(found) < 8 else None
