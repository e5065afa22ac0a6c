"""When two requests ask for the same: 16 bytes that are equal then, and only then.

Same endpoint kind, same model that is really asked, same body. Bodies are compared by what they say, not
how it is written: white space, escapes and a number's spelling do not count. The order of the body's own
keys does not count either: they are parameters. Below them order counts, since it reaches the model: a
response schema's properties are written in their order, and so are tools. A difference that would not have
mattered costs one request; a sameness wrongly seen would give somebody a wrong answer. `custom_id` and
`url` are not in the body.

A digest tells nothing about its prompt to somebody who cannot guess it whole.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec

from langbatch.records import EndpointKind

DIGEST_BYTES: Final = 16


class _Line(msgspec.Struct):
    body: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode
_encode = msgspec.json.Encoder().encode


def body_digest(line: bytes, kind: EndpointKind, model: str | None) -> bytes:
    """Of a request line that validation accepts. `model` is what will answer; None: the one the body names.

    Give a model, or a name that no other endpoint uses (`<host>/<deployment>`): deployments of one name may
    run different models. Raises `ValueError` for a line that is not sound.
    """
    body = _decode(line).body
    named = body.pop("model", None)
    digest = blake2b(digest_size=DIGEST_BYTES, person=b"langbatch body 1")
    digest.update(_encode([kind, named if model is None else model]))
    digest.update(_encode(dict(sorted(body.items()))))
    return digest.digest()
