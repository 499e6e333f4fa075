"""What happened to calls: dialled, ringing, answered, voicemail, ended."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "call_events",
        sa.Column("assignment_id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("at", _MOMENT, primary_key=True),
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("provider_call_id", sa.Text, primary_key=True),
        sa.Column("duration_seconds", sa.Double),
        sa.Column("recording_reference", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        schema="queue",
    )


def downgrade() -> None:
    op.drop_table("call_events", schema="queue")
