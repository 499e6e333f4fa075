"""Reports of calls can be amended: what they changed is kept, and so is each earlier version."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0017"
down_revision = "0016"

_MOMENT = TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.add_column("assignments", sa.Column("report_effects", JSONB), schema="queue")
    op.create_table(
        "amendments",
        sa.Column("amendment_id", sa.Uuid, primary_key=True),
        sa.Column(
            "assignment_id",
            sa.Uuid,
            sa.ForeignKey("queue.attempts.assignment_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("amended_at", _MOMENT, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("outcome", sa.SmallInteger),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("callback_at", _MOMENT),
        sa.Column("disposition", sa.Text),
        sa.Index("amendments_assignment", "assignment_id"),
        sa.Index("amendments_user", "user_id", sa.text("amended_at DESC")),
        sa.Index(
            "amendments_noted",
            "amended_at",
            postgresql_where=sa.text("notes <> '' OR reason <> ''"),
        ),
        schema="queue",
    )


def downgrade() -> None:
    op.drop_table("amendments", schema="queue")
    op.drop_column("assignments", "report_effects", schema="queue")
