"""Makes text from elsewhere fit to be shown, logged and stored: no secrets, no control characters, short.

Services echo keys in their 401 texts, proxies answer with whole HTML pages, and either may hold terminal
escapes or bidirectional overrides. Everything foreign passes through `safe_text` once, at the edge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: Longest foreign text that is kept, in characters.
TEXT_LIMIT = 500
MASK = "***"

#: Only so much of a text is looked at: a megabyte of error page needs no masking beyond what is shown.
_LOOKED_AT = 64 * 1024
#: A known secret shorter than this is masked as a whole word only: masking every "a" would show where it is.
_SHORTEST_SECRET = 6
_SHORTEST_WORD = 3

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # name:password@ in a URL
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{MASK}@"),
    # JSON web tokens: Entra access tokens always begin with the base64 of `{"`
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*"), MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=*-]{12,}"), rf"\1 {MASK}"),
    # OpenAI keys, also in the half-masked form its 401 text uses
    (re.compile(r"\bsk-[A-Za-z0-9_*-]{6,}"), f"sk-{MASK}"),
    # SAS signatures and credentials in query strings, headers, forms and JSON
    (
        re.compile(
            r"(?i)\b(sig|signature|api[_-]?key|subscription-key|access_token|refresh_token|client_secret|"
            r"account_?key|password|authorization)"
            r"(\"?\s*[=:]\s*\"?)(?!\s*\*\*\*)[^\s&;,\"'}]{6,}"
        ),
        rf"\1\2{MASK}",
    ),
    # Azure keys: 32 hex digits, or 84 letters and digits. Ids such as `file-<32 hex>` and
    # `batch_<32 hex>` look alike but hang on a prefix, and are needed in messages.
    (re.compile(r"(?<![A-Za-z0-9_-])[0-9a-fA-F]{32}(?![A-Za-z0-9_-])"), MASK),
    (re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/]{80,}={0,2}"), MASK),
)


def mask_secrets(text: str, known: Iterable[str] = ()) -> str:
    """`text` with everything that looks like a credential, and every `known` one, replaced by `***`."""
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
        elif len(secret) >= _SHORTEST_WORD:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _is_unprintable(character: str) -> bool:
    # Cc: escapes; Cf: bidi overrides and zero-width marks; Cs: lone surrogates that no terminal can encode;
    # Zl, Zp: line breaks that would tear a log line.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _flatten(text: str) -> str:
    spaced = "".join(
        " "
        if character in "\t\n\r\x0b\x0c\x85\u2028\u2029"
        else ""
        if _is_unprintable(character)
        else character
        for character in text[:_LOOKED_AT]
    )
    return " ".join(spaced.split())


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def clean_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """One line of at most `limit` characters, without control, bidi or invisible characters."""
    return _cut(_flatten(text), limit)


def safe_text(text: str, limit: int = TEXT_LIMIT, known: Iterable[str] = ()) -> str:
    """Cleaned, masked, cut: in this order, so that neither an escape inside a key nor the cut hides it."""
    return _cut(mask_secrets(_flatten(text), known), limit)
