"""What differs between the three URL families. Every instance serves all of them at once.

Sources are the sections of the wire reference; where it says "unverified", the choice made here is one
that a client must survive anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal["azure", "azure-v1", "openai"]
FAMILIES: tuple[Family, ...] = get_args(Family)
LineStyle = Literal["int", "string", "null"]

DAY_SECONDS = 86_400
#: Azure's guide (§2); some resources were seen to accept 259,200 already, hence a setting.
AZURE_EXPIRY_FLOOR_SECONDS = 14 * DAY_SECONDS
OPENAI_EXPIRY_FLOOR_SECONDS = 3_600
EXPIRY_CEILING_SECONDS = 30 * DAY_SECONDS

#: First dated versions with a feature (§1), compared by their date alone.
FIRST_BATCH_VERSION = "2024-07-01"
FIRST_NUMERIC_TIMES_VERSION = "2024-10-01"
FIRST_EXPIRY_VERSION = "2025-03-01"
FIRST_BLOB_VERSION = "2025-04-01"
#: The GA version whose file list knows no paging (§1).
UNPAGED_FILES_VERSION = "2024-10-21"

OPENAI_ENDPOINTS = frozenset(
    {
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos",
    }
)
AZURE_ENDPOINTS = frozenset(
    {"/chat/completions", "/responses", "/embeddings", "/completions"}
    | {"/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions"}
)


@dataclass(frozen=True, slots=True)
class Profile:
    """One family's manners.

    `missing_id`: how an output or error file id that does not exist is written.
    `strict_urls`: whether a line's url must equal the batch's `endpoint` (Azure tolerates it, §1).
    `expires`: whether work still open after 24 h ends as `expired` (OpenAI) or goes on (Azure, §3).
    """

    family: Family
    endpoints: frozenset[str]
    requests_limit: int
    missing_id: str | None
    line_style: LineStyle
    pending_files: bool
    strict_urls: bool
    expires: bool
    empty_error_file: bool
    row_ids: bool
    content_filters: bool
    usage: bool
    expiry_floor_seconds: int


PROFILES: Mapping[Family, Profile] = {
    "azure": Profile(
        family="azure",
        endpoints=AZURE_ENDPOINTS,
        requests_limit=100_000,
        missing_id="",
        line_style="string",
        pending_files=True,
        strict_urls=False,
        expires=False,
        empty_error_file=True,
        row_ids=False,
        content_filters=True,
        usage=False,
        expiry_floor_seconds=AZURE_EXPIRY_FLOOR_SECONDS,
    ),
    "azure-v1": Profile(
        family="azure-v1",
        endpoints=AZURE_ENDPOINTS,
        requests_limit=100_000,
        missing_id=None,
        line_style="int",
        pending_files=True,
        strict_urls=False,
        expires=False,
        empty_error_file=True,
        row_ids=False,
        content_filters=True,
        usage=False,
        expiry_floor_seconds=AZURE_EXPIRY_FLOOR_SECONDS,
    ),
    "openai": Profile(
        family="openai",
        endpoints=OPENAI_ENDPOINTS,
        requests_limit=50_000,
        missing_id=None,
        line_style="int",
        pending_files=False,
        strict_urls=True,
        expires=True,
        empty_error_file=False,
        row_ids=True,
        content_filters=False,
        usage=True,
        expiry_floor_seconds=OPENAI_EXPIRY_FLOOR_SECONDS,
    ),
}


def at_least(version: str | None, first: str) -> bool:
    """Whether a dated api-version has a feature. v1 and OpenAI have no date and have them all."""
    return version is None or version[:10] >= first
