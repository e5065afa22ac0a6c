"""Which state of the code a campaign was played with: what was kept of it counts for that one alone."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import langbatch


class OtherCode(Exception):
    """What was kept was played by another state of the code."""


def code_digest(own: Path) -> str:
    """Of the product's modules and the campaign's `own` folder."""
    digest = blake2b(digest_size=8)
    for root in (Path(langbatch.__file__).parent, own):
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
