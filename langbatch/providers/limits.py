"""What one batch may hold at each service (wire reference, 2), as data that costs no import."""

from __future__ import annotations

from collections.abc import Mapping

from langbatch.records import Limits

#: "200 MB" read as the smaller of its two meanings.
_INPUT_FILE_BYTES = 200_000_000

AZURE_LIMITS = Limits(requests=100_000, file_bytes=_INPUT_FILE_BYTES)
OPENAI_LIMITS = Limits(requests=50_000, file_bytes=_INPUT_FILE_BYTES, embedding_inputs=50_000)

LIMITS: Mapping[str, Limits] = {"azure": AZURE_LIMITS, "openai": OPENAI_LIMITS}
