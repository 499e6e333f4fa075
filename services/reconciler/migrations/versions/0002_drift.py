"""What runs find and what it cost, and where freshness comes from.

A run may now wait behind one of its kind that is under way. Until they are replaced, copies of the
release before refuse to start runs; those who ask ask again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTS = (
    "phase_done",
    "phase_total",
    "users_refreshed",
    "users_drifted",
    "users_unsettled",
    "rows_read",
    "mysql_statements",
)


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("phase", sa.Text, nullable=False, server_default="UNSPECIFIED"),
        schema="reconciler",
    )
    for name in _COUNTS:
        column = sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        op.add_column("runs", column, schema="reconciler")
    for column in (
        sa.Column("mysql_seconds", sa.Double, nullable=False, server_default="0"),
        sa.Column("done", JSONB, nullable=False, server_default="{}"),
        sa.Column("drift", JSONB, nullable=False, server_default="{}"),
        sa.Column("checkpoint", JSONB),
    ):
        op.add_column("runs", column, schema="reconciler")
    op.drop_index("runs_active_kind", table_name="runs", schema="reconciler")
    op.create_index(
        "runs_pending_kind",
        "runs",
        ["kind"],
        unique=True,
        schema="reconciler",
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_index(
        "runs_of_kind", "runs", ["kind", sa.text("requested_at DESC")], schema="reconciler"
    )
    op.create_table(
        "drift",
        sa.Column("run_id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Numeric(20, 0), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.ForeignKeyConstraint(["run_id"], ["reconciler.runs.run_id"], ondelete="CASCADE"),
        schema="reconciler",
    )
    op.create_table(
        "freshness",
        sa.Column(
            "row_id", sa.SmallInteger, primary_key=True, autoincrement=False, server_default="1"
        ),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("capture_alive_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("row_id = 1", name="freshness_one_row"),
        schema="reconciler",
    )


def downgrade() -> None:
    op.drop_table("freshness", schema="reconciler")
    op.drop_table("drift", schema="reconciler")
    for name in ("runs_of_kind", "runs_pending_kind"):
        op.drop_index(name, table_name="runs", schema="reconciler")
    op.create_index(
        "runs_active_kind",
        "runs",
        ["kind"],
        unique=True,
        schema="reconciler",
        postgresql_where=sa.text("state IN ('PENDING', 'RUNNING')"),
    )
    for name in ("checkpoint", "drift", "done", "mysql_seconds", *_COUNTS, "phase"):
        op.drop_column("runs", name, schema="reconciler")
