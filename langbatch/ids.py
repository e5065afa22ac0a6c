"""Job ids: `job_` and 26 characters that sort by time of making (a ULID, lower case)."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id(now: float) -> str:
    """48 bits of milliseconds, then 80 random bits, in Crockford's base 32."""
    number = (int(now * 1000) & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return "job_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def made_at(job_id: str) -> float:
    """When a job's id was made, in seconds since the epoch."""
    number = 0
    for character in job_id.removeprefix("job_"):
        number = number << 5 | _ALPHABET.index(character)
    return (number >> 80) / 1000
