"""The service's own tables, in PostgreSQL."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP, TSVECTOR

SCHEMA = "user_context"

metadata = sa.MetaData(schema=SCHEMA)

# Of two readings of the main app the one with the higher version began later.
read_version = sa.Sequence("read_version", metadata=metadata)

# Fences that must still be raised, as Redis was unavailable. Numeric, because the main app's ids
# are unsigned 64-bit numbers and bigint is signed.
unraised_fences = sa.Table(
    "unraised_fences",
    metadata,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Numeric(20, 0), primary_key=True),
    sa.Column("version", sa.Numeric(20, 0), nullable=False),
)

# The words of people's names, for search only (docs/decisions/0015).
name_words = sa.Table(
    "name_words",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("words", TSVECTOR, nullable=False),
    sa.Index("name_words_words", "words", postgresql_using="gin"),
)

# How far a sweep has indexed them: one row.
name_sweep = sa.Table(
    "name_sweep",
    metadata,
    sa.Column("only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("through_user_id", sa.BigInteger, nullable=False),
    sa.Column("began_at", TIMESTAMP(timezone=True)),
    sa.Column("completed_at", TIMESTAMP(timezone=True)),
    sa.Column("first_completed_at", TIMESTAMP(timezone=True)),
    sa.CheckConstraint(sa.column("only"), name="name_sweep_only"),
)
