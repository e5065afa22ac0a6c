"""The first schema: jobs, shards, attempts, unsuccessful requests, events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column(
            "label", sa.Text(), nullable=False, comment="provider/host/deployment: what shares a token quota"
        ),
        sa.Column(
            "limit_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="enqueued tokens the service allows, as far as known",
        ),
        sa.Column(
            "limit_from",
            sa.String(length=16),
            nullable=True,
            comment="stated by the user, or told by the service",
        ),
        sa.Column("hold_until", sa.Float(), nullable=False, comment="nothing is sent there before"),
        sa.Column("hold_reason", sa.String(length=16), nullable=True, comment="quota or trouble"),
        sa.Column("refusals", sa.Integer(), nullable=False, comment="in a row, for growing waits"),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("label"),
        comment="The token quotas that no endpoint reports. What is reserved is read off the attempts.",
    )
    op.create_table(
        "attempts",
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "name", sa.Text(), nullable=False, comment="unique file name: store, job, shard, attempt, hash"
        ),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False, comment="place of its target among the job's"),
        sa.Column("account", sa.Text(), nullable=True, comment="the quota it counts against"),
        sa.Column(
            "tokens", sa.BigInteger(), nullable=False, comment="input tokens reserved for it, estimated"
        ),
        sa.Column(
            "counted_input_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="upper end of our count; with a budget only",
        ),
        sa.Column(
            "committed_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="of the budget: its bound, or what it used",
        ),
        sa.Column("committed_cost_nanos", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True, comment="reported in its rows"),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=True),
        sa.Column(
            "answer_model",
            sa.Text(),
            nullable=True,
            comment="the model that its answers name: what the deployment runs",
        ),
        sa.Column("file_id", sa.Text(), nullable=True),
        sa.Column(
            "file_bytes",
            sa.BigInteger(),
            nullable=True,
            comment="bytes sent, to compare with what the service says",
        ),
        sa.Column("uploaded_at", sa.Float(), nullable=True),
        sa.Column("file_ready_at", sa.Float(), nullable=True),
        sa.Column(
            "create_intent_at", sa.Float(), nullable=True, comment="committed before the create is sent"
        ),
        sa.Column("fate_unknown_at", sa.Float(), nullable=True),
        sa.Column("fenced_at", sa.Float(), nullable=True, comment="when the input file was known to be gone"),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("batch_status", sa.String(length=32), nullable=True),
        sa.Column("batch_total", sa.Integer(), nullable=False),
        sa.Column("batch_completed", sa.Integer(), nullable=False),
        sa.Column("batch_failed", sa.Integer(), nullable=False),
        sa.Column("output_file_id", sa.Text(), nullable=True),
        sa.Column("error_file_id", sa.Text(), nullable=True),
        sa.Column("polled_at", sa.Float(), nullable=True),
        sa.Column("cancel_sent_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("ended_as", sa.String(length=24), nullable=True),
        sa.Column("fault_code", sa.Text(), nullable=True),
        sa.Column("fault_message", sa.Text(), nullable=True, comment="the service's words, masked and cut"),
        sa.Column(
            "files_gone_at",
            sa.Float(),
            nullable=True,
            comment="when none of its files was left at the service",
        ),
        sa.PrimaryKeyConstraint("job", "shard", "number"),
        sa.UniqueConstraint("name"),
    )
    op.create_index(op.f("ix_attempts_account"), "attempts", ["account"], unique=False)
    op.create_index(op.f("ix_attempts_batch_id"), "attempts", ["batch_id"], unique=False)
    op.create_index(op.f("ix_attempts_file_id"), "attempts", ["file_id"], unique=False)
    op.create_table(
        "endpoint_facts",
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("fact", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "host", "fact"),
        comment="What `doctor --canary` measured on an endpoint, such as whether the fence holds.",
    )
    op.create_table(
        "events",
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("move", sa.String(length=32), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=True),
        sa.Column("to", sa.String(length=16), nullable=True),
        sa.Column(
            "note",
            sa.Text(),
            nullable=True,
            comment="codes and ids, masked; never text of a request or an answer",
        ),
        sa.PrimaryKeyConstraint("n"),
        comment="Append-only: every transition, in the transaction that made it.",
    )
    op.create_index(op.f("ix_events_job"), "events", ["job"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("key", sa.Integer(), nullable=False, comment="short number used by the other tables"),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column(
            "input_name", sa.Text(), nullable=False, comment="the user's file name, without its folder"
        ),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("settings", sa.Text(), nullable=False, comment="JSON of the target's non-secret arguments"),
        sa.Column("others", sa.Text(), nullable=False, comment="JSON list of further targets"),
        sa.Column("input_sha256", sa.String(length=64), nullable=False),
        sa.Column("snapshot_sha256", sa.String(length=64), nullable=False),
        sa.Column(
            "reuse_key",
            sa.String(length=64),
            nullable=True,
            comment="same bytes and target; null once `new` replaced it",
        ),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attention", sa.Text(), nullable=True),
        sa.Column(
            "remark",
            sa.Text(),
            nullable=True,
            comment="stands in attention when no shard has anything to say: it was recovered",
        ),
        sa.Column(
            "max_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="the budget: input and output tokens of all attempts together",
        ),
        sa.Column(
            "max_cost_nanos", sa.BigInteger(), nullable=True, comment="the budget: billionths of `currency`"
        ),
        sa.Column("currency", sa.String(length=8), nullable=True),
        sa.Column(
            "counts_agree",
            sa.Boolean(),
            nullable=True,
            comment="no more input was reported than we had counted",
        ),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("errored", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("unreadable", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("reuse_key"),
    )
    op.create_index("jobs_by_state", "jobs", ["state"], unique=False)
    op.create_table(
        "store_facts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        comment="What this store knows of itself: its id, which marks our files on a shared resource.",
    )
    op.create_table(
        "unsuccessful",
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=12), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job", "ordinal"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shards",
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column(
            "first", sa.Integer(), nullable=False, comment="ordinal of its first request in the job, from 0"
        ),
        sa.Column(
            "first_line", sa.Integer(), nullable=False, comment="line of its first request in the user's file"
        ),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column(
            "byte_start", sa.BigInteger(), nullable=False, comment="where its lines begin in the snapshot"
        ),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True, comment="the model that its lines name"),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "attempt",
            sa.Integer(),
            nullable=False,
            comment="number of the newest attempt, 0 before the first",
        ),
        sa.Column("due_at", sa.Float(), nullable=False, comment="when langbatch wants to look again"),
        sa.Column(
            "not_before", sa.Float(), nullable=False, comment="when the service asked to be called again"
        ),
        sa.Column("troubles", sa.Integer(), nullable=False, comment="consecutive failed calls, for backoff"),
        sa.Column(
            "crashes",
            sa.Integer(),
            nullable=False,
            comment="processes that died holding it since its last move",
        ),
        sa.Column(
            "in_vain",
            sa.Integer(),
            nullable=False,
            comment="paid attempts since the last that brought a success",
        ),
        sa.Column(
            "waits_for",
            sa.String(length=16),
            nullable=True,
            comment="trouble, quota, budget, throttle, file, fate or batch",
        ),
        sa.Column(
            "blocker",
            sa.String(length=16),
            nullable=True,
            comment="access, setup, disk or budget: a person must mend it",
        ),
        sa.Column("attention", sa.Text(), nullable=True, comment="what it waits for, in words, masked"),
        sa.Column("ended_as", sa.String(length=16), nullable=True),
        sa.Column(
            "most_input_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="of its next attempt, counted; with a budget only",
        ),
        sa.Column("most_tokens", sa.BigInteger(), nullable=True, comment="with the output's bound"),
        sa.Column("most_cost_nanos", sa.BigInteger(), nullable=True),
        sa.Column(
            "cautious_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="the same, as long as `counts_agree` is not so",
        ),
        sa.Column("cautious_cost_nanos", sa.BigInteger(), nullable=True),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("errored", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("unreadable", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column(
            "lease_owner",
            sa.Text(),
            nullable=True,
            comment="host, process and its start time, so that a dead owner is recognised",
        ),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False, comment="rises with every claim; writes carry it"),
        sa.ForeignKeyConstraint(["job"], ["jobs.key"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "index"),
    )
    op.create_index("shards_by_state", "shards", ["state", "due_at"], unique=False)
