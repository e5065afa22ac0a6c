"""Times on the service's clock, for the search after a lost reply: ours may be set in between."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name, comment in (
        ("file_made_at", "when the service made the file, on its clock: no batch on it is older"),
        ("absent_since", "when a list first lacked the batch behind the fence, on the service's clock"),
    ):
        op.add_column("attempts", sa.Column(name, sa.Float(), nullable=True, comment=comment))
