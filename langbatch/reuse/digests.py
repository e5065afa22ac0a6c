"""When two requests ask for the same: 16 bytes that are equal then, and only then.

Bodies are compared by what they say, not how it is written: white space, escapes and a number's spelling do
not count. The order of the body's own keys does not count either: they are parameters. Below them order
counts, since it reaches the model: a response schema's properties are written in their order, and so are
tools. A difference that would not have mattered costs one request; a sameness wrongly seen would give
somebody a wrong answer. `custom_id` and `url` are not in the body, and the model is told beside it: it may be
the target that says it.

A digest tells nothing about its prompt to somebody who cannot guess it whole.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec

from langbatch.records import Target

DIGEST_BYTES: Final = 16


class _Line(msgspec.Struct):
    body: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.Encoder().encode


def body_digest(line: bytes) -> tuple[bytes, str | None]:
    """Of a request line: its body without the model, and the model that it names.

    A line that this reader cannot take (validation refuses such) is equal to none with another `custom_id`.
    """
    digest = blake2b(digest_size=DIGEST_BYTES, person=b"langbatch body 1")
    try:
        body = _decode(line).body
        named = body.pop("model", None)
        digest.update(_encode(dict(sorted(body.items()))))
    except (ValueError, OverflowError, RecursionError):
        named = None
        digest.update(line)
    return digest.digest(), named if isinstance(named, str) else None


def answerer(target: Target, named: str | None) -> bytes:
    """Who answers lines that name the model `named`: endpoint kind, host, and the deployment or model.
    Deployments of one name on two hosts may run different models; api-versions are no difference."""
    who = [target.kind, target.provider, target.host.lower(), target.model or named]
    return blake2b(_encode(who), digest_size=DIGEST_BYTES, person=b"langbatch who 1").digest()


def question(body: bytes, who: bytes) -> bytes:
    """A body asked of somebody: it begins with the same byte as the body's own digest."""
    asked = blake2b(body, digest_size=DIGEST_BYTES - 1, key=who, person=b"langbatch ask 1")
    return body[:1] + asked.digest()
