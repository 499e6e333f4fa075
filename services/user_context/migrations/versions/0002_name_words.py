"""The words of people's names, for search, and how far a sweep has indexed them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "name_words",
        sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("words", TSVECTOR, nullable=False),
        schema="user_context",
    )
    op.create_index(
        "name_words_words", "name_words", ["words"], schema="user_context", postgresql_using="gin"
    )
    op.create_table(
        "name_sweep",
        sa.Column("only", sa.Boolean, primary_key=True, server_default=sa.true()),
        sa.Column("through_user_id", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("completed_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("first_completed_at", sa.TIMESTAMP(timezone=True)),
        sa.CheckConstraint('"only"', name="name_sweep_only"),
        schema="user_context",
    )
    op.execute("INSERT INTO user_context.name_sweep (through_user_id) VALUES (0)")
