"""The tables. Ids, hashes, counts, codes and times; never a prompt, an answer, a key or a token.

One row per job, shard, attempt and unsuccessful request; none per successful request, so that a job
of ten million requests stays small. Migrations live beside this file; `SCHEMA_VERSION` is their head.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from langbatch.store.version import SCHEMA_VERSION as SCHEMA_VERSION

metadata = MetaData()

store_facts = Table(
    "store_facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    comment="What this store knows of itself: its id, which marks our files on a shared resource.",
)

endpoint_facts = Table(
    "endpoint_facts",
    metadata,
    Column("provider", String(32), nullable=False),
    Column("host", Text, nullable=False),
    Column("fact", String(64), nullable=False),
    Column("value", Text, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("provider", "host", "fact"),
    comment="What `doctor --canary` measured on an endpoint, such as whether the fence holds.",
)

accounts = Table(
    "accounts",
    metadata,
    Column("label", Text, primary_key=True, comment="provider/host/deployment: what shares a token quota"),
    Column("limit_tokens", BigInteger, comment="enqueued tokens the service allows, as far as known"),
    Column("limit_from", String(16), comment="stated by the user, or told by the service"),
    Column("hold_until", Float, nullable=False, comment="nothing is sent there before"),
    Column("hold_reason", String(16), comment="quota or trouble"),
    Column("refusals", Integer, nullable=False, comment="in a row, for growing waits"),
    Column("at", Float, nullable=False),
    comment="The token quotas that no endpoint reports. What is reserved is read off the attempts.",
)

jobs = Table(
    "jobs",
    metadata,
    Column("key", Integer, primary_key=True, comment="short number used by the other tables"),
    Column("id", String(32), nullable=False, unique=True),
    Column("name", Text),
    Column("input_name", Text, nullable=False, comment="the user's file name, without its folder"),
    Column("provider", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("host", Text, nullable=False),
    Column("model", Text),
    Column("settings", Text, nullable=False, comment="JSON of the target's non-secret arguments"),
    Column("others", Text, nullable=False, comment="JSON list of further targets"),
    Column("input_sha256", String(64), nullable=False),
    Column("snapshot_sha256", String(64), nullable=False),
    Column(
        "reuse_key", String(64), unique=True, comment="same bytes and target; null once `new` replaced it"
    ),
    Column("total", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column(
        "answered",
        Integer,
        nullable=False,
        server_default="0",
        comment="requests that earlier jobs had answered: successes from the start, in no shard",
    ),
    Column("state", String(16), nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attention", Text),
    Column("remark", Text, comment="stands in attention when no shard has anything to say: it was recovered"),
    Column("max_tokens", BigInteger, comment="the budget: input and output tokens of all attempts together"),
    Column("max_cost_nanos", BigInteger, comment="the budget: billionths of `currency`"),
    Column("currency", String(8)),
    Column("counts_agree", Boolean, comment="no more input was reported than we had counted"),
    Column("succeeded", Integer, nullable=False),
    Column("errored", Integer, nullable=False),
    Column("expired", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("missing", Integer, nullable=False),
    Column("unreadable", Integer, nullable=False),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("finished_at", Float),
)
Index("jobs_by_state", jobs.c.state)

shards = Table(
    "shards",
    metadata,
    Column("job", Integer, ForeignKey("jobs.key", ondelete="CASCADE"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("first", Integer, nullable=False, comment="ordinal of its first request in the job, from 0"),
    Column("first_line", Integer, nullable=False, comment="line of its first request in the user's file"),
    Column("requests", Integer, nullable=False),
    Column("byte_start", BigInteger, nullable=False, comment="where its lines begin in the snapshot"),
    Column("bytes", BigInteger, nullable=False),
    Column("model", Text, comment="the model that its lines name"),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, comment="number of the newest attempt, 0 before the first"),
    Column("due_at", Float, nullable=False, comment="when langbatch wants to look again"),
    Column("not_before", Float, nullable=False, comment="when the service asked to be called again"),
    Column("troubles", Integer, nullable=False, comment="consecutive failed calls, for backoff"),
    Column("crashes", Integer, nullable=False, comment="processes that died holding it since its last move"),
    Column("in_vain", Integer, nullable=False, comment="paid attempts since the last that brought a success"),
    Column("waits_for", String(16), comment="trouble, quota, budget, throttle, file, fate or batch"),
    Column("blocker", String(16), comment="access, setup, disk or budget: a person must mend it"),
    Column("attention", Text, comment="what it waits for, in words, masked"),
    Column("ended_as", String(16)),
    Column("most_input_tokens", BigInteger, comment="of its next attempt, counted; with a budget only"),
    Column("most_tokens", BigInteger, comment="with the output's bound"),
    Column("most_cost_nanos", BigInteger),
    Column("cautious_tokens", BigInteger, comment="the same, as long as `counts_agree` is not so"),
    Column("cautious_cost_nanos", BigInteger),
    Column("succeeded", Integer, nullable=False),
    Column("errored", Integer, nullable=False),
    Column("expired", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("missing", Integer, nullable=False),
    Column("unreadable", Integer, nullable=False),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column(
        "lease_owner", Text, comment="host, process and its start time, so that a dead owner is recognised"
    ),
    Column("lease_until", Float, nullable=False),
    Column("fence", Integer, nullable=False, comment="rises with every claim; writes carry it"),
    PrimaryKeyConstraint("job", "index"),
)
Index("shards_by_state", shards.c.state, shards.c.due_at)

attempts = Table(
    "attempts",
    metadata,
    Column("job", Integer, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column(
        "name",
        Text,
        nullable=False,
        unique=True,
        comment="unique file name: store, job, shard, attempt, hash",
    ),
    Column("requests", Integer, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("target", Integer, nullable=False, comment="place of its target among the job's"),
    Column("account", Text, index=True, comment="the quota it counts against"),
    Column("tokens", BigInteger, nullable=False, comment="input tokens reserved for it, estimated"),
    Column("counted_input_tokens", BigInteger, comment="upper end of our count; with a budget only"),
    Column("committed_tokens", BigInteger, comment="of the budget: its bound, or what it used"),
    Column("committed_cost_nanos", BigInteger),
    Column("input_tokens", BigInteger, comment="reported in its rows"),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("answer_model", Text, comment="the model that its answers name: what the deployment runs"),
    Column("file_id", Text, index=True),
    Column("file_bytes", BigInteger, comment="bytes sent, to compare with what the service says"),
    Column("uploaded_at", Float),
    Column(
        "file_made_at",
        Float,
        comment="when the service made the file, on its clock: no batch on it is older",
    ),
    Column("file_ready_at", Float),
    Column("create_intent_at", Float, comment="committed before the create is sent"),
    Column("fate_unknown_at", Float),
    Column("fenced_at", Float, comment="when the input file was known to be gone"),
    Column(
        "absent_since",
        Float,
        comment="when a list first lacked the batch behind the fence, on the service's clock",
    ),
    Column("batch_id", Text, index=True),
    Column("batch_status", String(32)),
    Column("batch_total", Integer, nullable=False),
    Column("batch_completed", Integer, nullable=False),
    Column("batch_failed", Integer, nullable=False),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("polled_at", Float),
    Column("cancel_sent_at", Float),
    Column("ended_at", Float),
    Column("ended_as", String(24)),
    Column("fault_code", Text),
    Column("fault_message", Text, comment="the service's words, masked and cut"),
    Column("files_gone_at", Float, comment="when none of its files was left at the service"),
    PrimaryKeyConstraint("job", "shard", "number"),
)

unsuccessful = Table(
    "unsuccessful",
    metadata,
    Column("job", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("line", Integer, nullable=False),
    Column("outcome", String(12), nullable=False),
    Column("code", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    PrimaryKeyConstraint("job", "ordinal"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("job", Integer, nullable=False, index=True),
    Column("shard", Integer),
    Column("attempt", Integer),
    Column("move", String(32), nullable=False),
    Column("origin", String(16)),
    Column("to", String(16)),
    Column("note", Text, comment="codes and ids, masked; never text of a request or an answer"),
    comment="Append-only: every transition, in the transaction that made it.",
    # Those who follow the log remember how far they are, so that no number is ever given again.
    sqlite_autoincrement=True,
)

consumers = Table(
    "consumers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seen", Integer, nullable=False, comment="the last event that it was told"),
    Column("at", Float, nullable=False),
    Column("lease_owner", Text, comment="who is telling it now, as in `shards`"),
    Column("lease_until", Float, nullable=False),
    Column("fence", Integer, nullable=False),
    comment="Who follows the events from process to process.",
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("consumer", Text, nullable=False),
    Column("id", String(64), nullable=False, comment="webhook-id, the same at every try"),
    Column("job", Integer, nullable=False, index=True),
    Column("body", Text, nullable=False, comment="what is posted: ids, counts and times"),
    Column(
        "told_at", Float, nullable=False, comment="when the job ended; the time to give up counts from it"
    ),
    Column("due_at", Float, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Float, nullable=False),
    Column("fence", Integer, nullable=False),
    PrimaryKeyConstraint("consumer", "id"),
    comment="Webhooks still to be delivered. What became of each is in the events.",
)
