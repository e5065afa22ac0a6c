"""How a webhook is signed: the Standard Webhooks specification, version 1.0.0, with a shared secret.

https://github.com/standard-webhooks/standard-webhooks: the secret is base64 behind `whsec_`, 24 to 64 bytes;
what is signed is `id.timestamp.body`; the header may hold several signatures, for a secret being replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from langbatch.errors import SetupError

_PREFIX = "whsec_"
_BYTES = range(24, 65)
MAKE_ONE = (
    'make one: python -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)


def read_secrets(text: str, named: str) -> tuple[bytes, ...]:
    """The keys in a variable's value: one, or several with blanks between them while one replaces another.
    `named` is what to call the variable in errors, which never quote it."""
    keys = []
    for word in text.split():
        try:
            key = base64.b64decode(word.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise SetupError(f"{named} is not base64 behind {_PREFIX}", hint=MAKE_ONE) from None
        if len(key) not in _BYTES:
            raise SetupError(f"{named} holds {len(key)} bytes, not 24 to 64", hint=MAKE_ONE)
        keys.append(key)
    if not keys:
        raise SetupError(f"{named} is empty", hint=MAKE_ONE)
    return tuple(keys)


def signed_headers(message_id: str, at: float, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The three headers of one try at time `at`."""
    timestamp = str(int(at))
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (
        "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }
