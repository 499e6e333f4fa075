"""Calls keep the disposition they were reported by, and objections are of several kinds."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("disposition", sa.Text), schema="queue")
    kind = sa.Column("kind", sa.SmallInteger, nullable=False, server_default=sa.text("2"))
    op.add_column("suppressions", kind, schema="queue")
    op.create_index(
        "suppressions_standing_kind",
        "suppressions",
        ["user_id", "kind"],
        unique=True,
        schema="queue",
        postgresql_where=sa.text("lifted_at IS NULL"),
    )
    op.drop_index("suppressions_standing_user", "suppressions", schema="queue")


def downgrade() -> None:
    # One objection of a person stands, as the code before has it: the latest is kept.
    op.execute(
        "UPDATE queue.suppressions AS made SET lifted_at = now(), lifted_by = 'downgrade',"
        " lift_notes = 'another objection stands' WHERE lifted_at IS NULL AND EXISTS ("
        "SELECT FROM queue.suppressions AS other WHERE other.user_id = made.user_id"
        " AND other.lifted_at IS NULL AND other.kind < made.kind)"
    )
    op.execute("UPDATE queue.entries SET block = (block & 3) | 2 WHERE block & 4 <> 0")
    op.create_index(
        "suppressions_standing_user",
        "suppressions",
        ["user_id"],
        unique=True,
        schema="queue",
        postgresql_where=sa.text("lifted_at IS NULL"),
    )
    op.drop_index("suppressions_standing_kind", "suppressions", schema="queue")
    op.drop_column("suppressions", "kind", schema="queue")
    op.drop_column("attempts", "disposition", schema="queue")
