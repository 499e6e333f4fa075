"""Assignments and calls say how the agent came to the person."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for table in ("assignments", "attempts"):
        # A constant default changes the catalogue alone; old code only hands people out.
        direction = sa.Column(
            "direction", sa.SmallInteger, nullable=False, server_default=sa.text("1")
        )
        op.add_column(table, direction, schema="queue")


def downgrade() -> None:
    for table in ("assignments", "attempts"):
        op.drop_column(table, "direction", schema="queue")
