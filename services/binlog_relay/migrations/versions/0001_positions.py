"""The position reached in each source's binlog."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "positions",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("server", sa.Text, nullable=False, server_default=""),
        sa.Column("file", sa.Text, nullable=False, server_default=""),
        sa.Column("file_offset", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("gtid", sa.Text, nullable=False, server_default=""),
        sa.Column("saved_at", sa.DateTime(timezone=True)),
        sa.Column("records_published", sa.BigInteger, nullable=False, server_default="0"),
        schema="binlog_relay",
    )


def downgrade() -> None:
    op.drop_table("positions", schema="binlog_relay")
