"""What a target means for the lines sent to it, and when two targets are the same."""

from __future__ import annotations

import hashlib
import json

from langbatch.records import ENDPOINT_PATHS, Target


def sent_url(target: Target) -> str | None:
    """The `url` every line must carry; None where lines keep what the user wrote.

    OpenAI wants `/v1/…` equal to the batch's endpoint; Azure takes both spellings (wire reference, 1).
    """
    return "/v1" + ENDPOINT_PATHS[target.kind] if target.provider == "openai" else None


def growth_bytes(target: Target) -> int:
    """The most bytes that the target's edits can add to a line: a longer or missing model, a longer url."""
    growth = 0
    if target.model is not None:
        growth += len(json.dumps(target.model)) + len('"model": , ')
    if sent_url(target) is not None:
        growth += len("/v1")
    return growth


def identity(target: Target) -> str:
    """Provider, host, deployment or model, and kind; not api-version, trailing slash or credentials."""
    return "\n".join((target.provider, target.host.lower(), target.model or "", target.kind))


def reuse_key(input_sha256: str, target: Target) -> str:
    """Names the job that the same bytes on the same target make."""
    return hashlib.sha256(f"{input_sha256}\n{identity(target)}".encode()).hexdigest()
