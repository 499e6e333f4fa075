"""Runs that may take any number of people for gone, and whom the others left as they were.

A run with `allow_gone` waits beside one of its kind without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("allow_gone", sa.Boolean, nullable=False, server_default=sa.false()),
        schema="reconciler",
    )
    op.add_column(
        "runs",
        sa.Column("users_withheld", sa.BigInteger, nullable=False, server_default="0"),
        schema="reconciler",
    )
    _index_pending("kind", "allow_gone")


def downgrade() -> None:
    op.execute("DELETE FROM reconciler.runs WHERE allow_gone AND state = 'PENDING'")
    _index_pending("kind")
    op.drop_column("runs", "users_withheld", schema="reconciler")
    op.drop_column("runs", "allow_gone", schema="reconciler")


def _index_pending(*columns: str) -> None:
    op.drop_index("runs_pending_kind", table_name="runs", schema="reconciler")
    op.create_index(
        "runs_pending_kind",
        "runs",
        columns,
        unique=True,
        schema="reconciler",
        postgresql_where=sa.text("state = 'PENDING'"),
    )
