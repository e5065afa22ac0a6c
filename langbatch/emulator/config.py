"""Settings of an emulator, with presets for tests, for a demonstration and for realism."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langbatch.emulator.profiles import DAY_SECONDS, Family


@dataclass(frozen=True, slots=True)
class RowError:
    """What a user's answer function returns for a row that fails with an HTTP status.

    Such rows land in the error file with `error: null` and the failure in `response.body.error` (§5).
    """

    status_code: int
    code: str
    message: str = "The emulator was asked to fail this request."


#: From a request's body and custom_id to a whole response body, to the text of a standard one, or to a
#: failure. Called once per row, possibly from several threads.
Answer = Callable[[dict[str, Any], str], "dict[str, Any] | str | RowError"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each stage lasts, in seconds, or in looks: how often the object was asked for.

    With looks, time does not matter: a stage passes when the object was read that many times.
    """

    unit: Literal["seconds", "looks"]
    file_pending: float
    validating: float
    running: float
    finalizing: float
    cancelling: float
    running_per_request: float = 0.0


INSTANT = Timing("looks", file_pending=1, validating=1, running=2, finalizing=1, cancelling=1)
DEMO = Timing("seconds", file_pending=0.3, validating=0.5, running=1.0, finalizing=0.2, cancelling=0.5)
REALISTIC = Timing(
    "seconds",
    file_pending=15,
    validating=60,
    running=300,
    finalizing=60,
    cancelling=120,
    running_per_request=0.05,
)

#: An attempt's number (and the hash langbatch puts behind it) is not part of what a file is about.
DEFAULT_NAME_FAMILY = r"^(?P<family>.*?)(?:[-_.](?:a|at|attempt|try)?\d+(?:-[0-9a-f]{8})?)?(?:\.jsonl)?$"

Outcome = Literal["all_fail", "expire_half", "cancel_half", "fail"]


@dataclass(frozen=True, slots=True)
class EmulatorConfig:
    """How an emulator behaves. Behaviour follows the URL family of each call; `profile` says which
    family the bare paths `/files` and `/batches` and the printed base URL belong to.

    Rows: `answer` replaces the deterministic answers, `failure_rate` (0 to 1) fails rows with HTTP 500,
    `outcome` ends every batch in one way. `deployments`: models that exist (None: all do);
    `standard_deployments`: exist, but are no batch deployments.

    Access: with `api_key` that key is required, with `bearer_tokens` one of those; `token_seconds` is
    how long a bearer token lives after it was first seen; `key_auth_disabled` answers keys with 403.

    Quota: `enqueued_token_limit` per deployment, counted as `tokens_per_byte` of the input says, reported at
    create or in validation as `token_limit_at` says, with its figure if `token_limit_named`.
    `pending_file` and `missing_file` say whether create refuses such a file or accepts and fails the batch
    later; `missing_file_status` None follows the family.

    `name_family` groups file names that carry the same requests, for the count of double payments.
    """

    profile: Family = "azure"
    seed: int = 0
    timing: Timing = DEMO
    speed: float = 1.0
    faults: tuple[str, ...] = ()
    answer: Answer | None = None
    failure_rate: float = 0.0
    outcome: Outcome | None = None
    deployments: frozenset[str] | None = None
    standard_deployments: frozenset[str] = frozenset()
    api_key: str | None = None
    bearer_tokens: frozenset[str] | None = None
    token_seconds: float | None = None
    key_auth_disabled: bool = False
    enqueued_token_limit: int | None = None
    enqueued_token_limits: Mapping[str, int] = field(default_factory=dict)
    token_limit_at: Literal["create", "validation"] = "create"
    token_limit_named: bool = True
    tokens_per_byte: float = 0.25
    pending_file: Literal["refuse", "fail"] = "refuse"
    pending_file_message: str = (
        "The input file is still being processed; wait until its status is 'processed'."
    )
    missing_file: Literal["refuse", "fail"] = "refuse"
    missing_file_status: Literal[400, 404] | None = None
    deleted_input: Literal["harmless", "fail"] = "harmless"
    cancelled_rows: Literal["absent", "listed"] = "absent"
    strict_urls: bool | None = None
    errors_listed: int = 100
    file_bytes_limit: int = 200 * 1024 * 1024
    requests_limit: int | None = None
    files_limit: int = 500
    expiring_files_limit: int = 10_000
    azure_expiry_floor_seconds: int | None = None
    window_seconds: float = DAY_SECONDS
    name_family: str = DEFAULT_NAME_FAMILY

    def __post_init__(self) -> None:
        if "family" not in re.compile(self.name_family).groupindex:
            raise ValueError("name_family must have a group named 'family'")

    @classmethod
    def instant(cls, **settings: Any) -> EmulatorConfig:
        """For tests: every stage passes when the object is read again; waiting is never needed."""
        return replace(cls(timing=INSTANT), **settings)

    @classmethod
    def demo(cls, **settings: Any) -> EmulatorConfig:
        """A batch takes about two seconds."""
        return replace(cls(timing=DEMO), **settings)

    @classmethod
    def realistic(cls, **settings: Any) -> EmulatorConfig:
        """Minutes to hours, as the services take; combine with `speed`."""
        return replace(cls(timing=REALISTIC), **settings)

    def family_of(self, filename: str) -> str:
        match = re.match(self.name_family, filename)
        return match["family"] if match else filename
