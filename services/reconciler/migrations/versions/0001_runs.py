"""Runs and how far each has come."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_USER_ID = sa.Numeric(20, 0)


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("users_checked", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("users_moved", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("users_failed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("failed_user_ids", ARRAY(_USER_ID), nullable=False, server_default="{}"),
        sa.Column("last_user_id", _USER_ID, nullable=False, server_default="0"),
        sa.Column("max_user_id", _USER_ID, nullable=False, server_default="0"),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("holder", sa.Uuid),
        schema="reconciler",
    )
    op.create_index(
        "runs_active_kind",
        "runs",
        ["kind"],
        unique=True,
        schema="reconciler",
        postgresql_where=sa.text("state IN ('PENDING', 'RUNNING')"),
    )
    op.create_index("runs_requested", "runs", ["requested_at"], schema="reconciler")


def downgrade() -> None:
    op.drop_table("runs", schema="reconciler")
