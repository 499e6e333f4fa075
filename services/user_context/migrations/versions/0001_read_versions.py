"""The sequence that orders readings, and the fences that Redis does not have yet."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE user_context.read_version")
    op.create_table(
        "unraised_fences",
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Numeric(20, 0), primary_key=True),
        sa.Column("version", sa.Numeric(20, 0), nullable=False),
        schema="user_context",
    )
