"""Jobs whose requests earlier jobs have answered: how many."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "answered",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="requests that earlier jobs had answered: successes from the start, in no shard",
        ),
    )
