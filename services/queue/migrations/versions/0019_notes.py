"""Notes of a person outside a call."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "notes",
        sa.Column("note_id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("noted_by", sa.Text, nullable=False),
        sa.Column("noted_at", TIMESTAMP(timezone=True), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        schema="queue",
    )
    latest_first = ["user_id", sa.text("noted_at DESC")]
    op.create_index("notes_user", "notes", latest_first, schema="queue")
    op.create_index("notes_noted", "notes", ["noted_at"], schema="queue")


def downgrade() -> None:
    op.drop_table("notes", schema="queue")
