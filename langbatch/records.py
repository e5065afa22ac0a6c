"""The values that travel through langbatch: frozen, typed, without behaviour that does I/O.

Times are seconds since the epoch (float, UTC); sizes are bytes; lines count from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["succeeded", "errored", "expired", "cancelled", "missing", "unreadable"]
OUTCOMES: tuple[Outcome, ...] = ("succeeded", "errored", "expired", "cancelled", "missing", "unreadable")

EndpointKind = Literal["chat_completions", "embeddings", "responses", "completions"]
#: Path of each kind under a provider's base; OpenAI's own spelling puts `/v1` before it.
ENDPOINT_PATHS: Mapping[EndpointKind, str] = {
    "chat_completions": "/chat/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "completions": "/completions",
}

JobState = Literal["draft", "running", "paused", "needs_operator", "completed", "failed", "cancelled"]


# ---------------------------------------------------------------- input


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of the input. `line` 0 means the file as a whole."""

    line: int
    byte_offset: int
    custom_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class InputWarning:
    """Something odd that is let through; said once, with a count."""

    code: str
    count: int
    first_line: int
    message: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one provider batch may hold. None: no such limit."""

    requests: int
    file_bytes: int
    embedding_inputs: int | None = None


# ---------------------------------------------------------------- target


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests are sent. Holds no secret: credentials are found again when they are needed.

    `settings` are the provider's non-secret keyword arguments (`azure_endpoint`, `api_version`,
    `base_url`, `organization`, …), kept with the job so that a restart needs only credentials.
    `model` is what is written into every line: the deployment on Azure, the model id on OpenAI;
    None leaves the lines as they are.
    """

    provider: str
    host: str
    kind: EndpointKind
    model: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For people: `azure/my-resource.openai.azure.com/my-deployment`."""
        return "/".join(part for part in (self.provider, self.host, self.model) if part)

    @property
    def weight(self) -> float:
        """Its share of a job's shards beside the job's other targets, while all have room."""
        return float(self.settings.get("weight", 1.0))

    @property
    def quota_tokens(self) -> int | None:
        """The enqueued-token quota as the user stated it."""
        text = self.settings.get("quota_tokens")
        return None if text is None else int(text)


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of the token quota that a deployment's batches share. No endpoint reports it.

    `limit_tokens` was stated by the user, or learnt from the service. Until `hold_until` nothing is sent
    there: the service had no room (`quota`), or did not take calls (`trouble`). `refusals` count in a row.
    """

    label: str
    limit_tokens: int | None = None
    hold_until: float = 0.0
    hold_reason: Literal["quota", "trouble"] | None = None
    refusals: int = 0


# ---------------------------------------------------------------- remote objects


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """The provider's file object, read leniently. `status` is lower case, None where absent."""

    id: str
    status: str | None
    bytes: int | None = None
    filename: str | None = None
    created_at: float | None = None
    status_details: str | None = None


@dataclass(frozen=True, slots=True)
class BatchCounts:
    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class BatchFault:
    """One entry of a batch's `errors.data`. `line` is None where the service gave none."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. None where no service reported any."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """The provider's batch object, read leniently: `""` is None, times are epoch seconds,
    `status` is lower case with `canceled` spelled `cancelled`; unknown words pass through."""

    id: str
    status: str
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    counts: BatchCounts | None = None
    faults: tuple[BatchFault, ...] = ()
    metadata: Mapping[str, str] | None = None
    usage: Usage | None = None
    endpoint: str | None = None
    #: The deployment's quota, where the reply to a create named it.
    quota_tokens: int | None = None


#: Stands for the id of a batch of which only downloaded files are left here, after a recovery.
UNKNOWN_BATCH = "unknown"
TERMINAL_BATCH_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class BatchPage:
    """One page of the provider's batches, newest first.

    `has_more` is None where the service did not say. `server_time` is the reply's `Date` header.
    """

    batches: tuple[RemoteBatch, ...]
    has_more: bool | None
    server_time: float | None = None


@dataclass(frozen=True, slots=True)
class FilePage:
    """One page of the provider's files; as `BatchPage`."""

    files: tuple[RemoteFile, ...]
    has_more: bool | None
    server_time: float | None = None


# ---------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Tally:
    """How many requests ended with each outcome."""

    succeeded: int = 0
    errored: int = 0
    expired: int = 0
    cancelled: int = 0
    missing: int = 0
    unreadable: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in OUTCOMES)

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in OUTCOMES))


@dataclass(frozen=True, slots=True)
class Unsuccessful:
    """One request without success: `ordinal` counts the requests that the job sends from 0."""

    ordinal: int
    line: int
    outcome: Outcome
    code: str
    attempt: int


# ---------------------------------------------------------------- progress

ProgressStep = Literal["validate", "compare", "count", "upload", "wait", "download", "join"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long step has come. `total` is None where it is not known. `unit`: bytes or requests."""

    step: ProgressStep
    done: int
    total: int | None
    unit: Literal["bytes", "requests"]
    detail: str = ""


OnProgress = Callable[[Progress], None]


# ---------------------------------------------------------------- stored state

ShardState = Literal[
    "waiting",
    "uploading",
    "uploaded",
    "creating",
    "uncertain",
    "fencing",
    "active",
    "harvesting",
    "done",
    "needs_operator",
]

#: Why a shard cannot go on until a person mends something here; makes the job `paused`.
Blocker = Literal["access", "setup", "disk", "budget"]

#: What an unfinished shard is waiting for. Only `trouble` counts as an outage.
WaitsFor = Literal["trouble", "quota", "budget", "throttle", "file", "fate", "batch"]

#: How a shard ended: rows were harvested, the service refused it as a whole, or it was cancelled.
ShardEnd = Literal["harvested", "refused", "cancelled", "expired"]

#: How an attempt ended. The last five brought no batch that could have cost anything.
AttemptEnd = Literal[
    "harvested",
    "refused",
    "quota_bounced",
    "resubmitted",
    "cancelled_unsent",
    "moved_away",
    "upload_lost",
    "file_unusable",
    "no_batch",
]


@dataclass(frozen=True, slots=True)
class Job:
    """One input file's work, as stored. `key` is the store's own small number for it."""

    key: int
    id: str
    name: str | None
    input_name: str
    target: Target
    input_sha256: str
    total: int
    rejected: int
    state: JobState
    cancel_requested: bool
    attention: str | None
    tally: Tally
    usage: Usage
    created_at: float
    updated_at: float
    finished_at: float | None
    #: Where shards may go beside `target`.
    others: tuple[Target, ...] = ()
    #: The budget of all attempts together: tokens, and billionths of `currency`.
    max_tokens: int | None = None
    max_cost_nanos: int | None = None
    currency: str | None = None
    #: Whether no more input was reported so far than had been counted here; None: nothing was yet.
    counts_agree: bool | None = None
    #: Requests that earlier jobs had answered, so that no shard has them; counted in `tally` as successes.
    answered: int = 0

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target a shard may be sent to; attempts name theirs by its place here."""
        return (self.target, *self.others)

    @property
    def has_budget(self) -> bool:
        return self.max_tokens is not None or self.max_cost_nanos is not None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a shard's next attempt can use, for a budget. None: not worked out, or it cannot be said.

    `input_tokens` as counted here, `tokens` with the output. `cautious_*` take a quarter of the bytes for
    input where that is more, until the service has shown that it counts as we do. Costs are billionths of
    the job's currency.
    """

    input_tokens: int | None = None
    tokens: int | None = None
    cost_nanos: int | None = None
    cautious_tokens: int | None = None
    cautious_cost_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of consecutive requests small enough for one provider batch.

    `first` counts the requests that the job sends from 0; `byte_start` is where its lines begin in the
    snapshot. `due_at` is when langbatch itself wants to look again, `not_before` what the service asked for.
    `tally` counts its requests and their copies (docs/design.md). `fence` rises with every claim, so that a
    writer from before cannot write.
    """

    job: int
    index: int
    first: int
    first_line: int
    requests: int
    byte_start: int
    bytes: int
    state: ShardState
    attempt: int = 0
    due_at: float = 0.0
    not_before: float = 0.0
    troubles: int = 0
    crashes: int = 0
    in_vain: int = 0
    waits_for: WaitsFor | None = None
    blocker: Blocker | None = None
    attention: str | None = None
    ended_as: ShardEnd | None = None
    #: The model that its lines name.
    model: str | None = None
    bounds: Bounds = field(default_factory=Bounds)
    tally: Tally = field(default_factory=Tally)
    usage: Usage = field(default_factory=Usage)
    lease_owner: str | None = None
    lease_until: float = 0.0
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a shard: one upload under a name of its own, at most one batch."""

    job: int
    shard: int
    number: int
    name: str
    requests: int
    opened_at: float
    #: Its target's place among the job's; the quota it counts against, and for how much.
    target: int = 0
    account: str | None = None
    tokens: int = 0
    #: Of its input, the upper end of our count; with a budget only.
    counted_input_tokens: int | None = None
    file_id: str | None = None
    file_bytes: int | None = None
    uploaded_at: float | None = None
    #: On the service's clock.
    file_made_at: float | None = None
    file_ready_at: float | None = None
    create_intent_at: float | None = None
    fate_unknown_at: float | None = None
    fenced_at: float | None = None
    #: Since when lists have lacked its batch behind the fence, on the service's clock.
    absent_since: float | None = None
    batch_id: str | None = None
    batch_status: str | None = None
    batch_counts: BatchCounts = field(default_factory=BatchCounts)
    output_file_id: str | None = None
    error_file_id: str | None = None
    polled_at: float | None = None
    cancel_sent_at: float | None = None
    ended_at: float | None = None
    ended_as: AttemptEnd | None = None
    fault_code: str | None = None
    fault_message: str | None = None


@dataclass(frozen=True, slots=True)
class ShardView:
    """Everything a decision about a shard may depend on, as stored."""

    job: Job
    shard: Shard
    attempt: Attempt | None
    #: Attempts so far that came to nothing, and cost nothing.
    fruitless_attempts: int = 0

    @property
    def place(self) -> int:
        """The place of the newest attempt's target among the job's; before the first, the job's own."""
        return 0 if self.attempt is None else self.attempt.target

    @property
    def target(self) -> Target:
        """Where the newest attempt was or will be sent."""
        return self.job.targets[self.place]
