"""Consumers of the events, webhooks to be delivered, and numbers of events that are never given twice."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _number_events_once()
    op.create_table(
        "consumers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False, comment="the last event that it was told"),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True, comment="who is telling it now, as in `shards`"),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        comment="Who follows the events from process to process.",
    )
    op.create_table(
        "deliveries",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False, comment="webhook-id, the same at every try"),
        sa.Column("job", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="what is posted: ids, counts and times"),
        sa.Column(
            "told_at",
            sa.Float(),
            nullable=False,
            comment="when the job ended; the time to give up counts from it",
        ),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "id"),
        comment="Webhooks still to be delivered. What became of each is in the events.",
    )
    op.create_index(op.f("ix_deliveries_job"), "deliveries", ["job"], unique=False)


def _number_events_once() -> None:
    """SQLite gives the numbers of deleted last rows again, unless the table is made with AUTOINCREMENT, which
    can only be said when it is made."""
    op.rename_table("events", "events_0001")
    op.drop_index("ix_events_job")
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
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("n"),
        sqlite_autoincrement=True,
    )
    columns = 'n, at, job, shard, attempt, move, origin, "to", note'
    op.execute(f"INSERT INTO events ({columns}) SELECT {columns} FROM events_0001 ORDER BY n")
    op.drop_table("events_0001")
    op.create_index(op.f("ix_events_job"), "events", ["job"], unique=False)
