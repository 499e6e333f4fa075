"""The reconciler's one table, in its own schema."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

SCHEMA: Final = "reconciler"

# `users.id` is unsigned, so that it may exceed BIGINT.
USER_ID: Final = Numeric(20, 0)

metadata = MetaData(schema=SCHEMA)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("users_checked", BigInteger, nullable=False, server_default="0"),
    Column("users_moved", BigInteger, nullable=False, server_default="0"),
    Column("users_failed", BigInteger, nullable=False, server_default="0"),
    Column("failed_user_ids", ARRAY(USER_ID), nullable=False, server_default="{}"),
    Column("last_user_id", USER_ID, nullable=False, server_default="0"),
    Column("max_user_id", USER_ID, nullable=False, server_default="0"),
    Column("error", Text, nullable=False, server_default=""),
    # Who works on it; another who takes over makes the first one's writes miss.
    Column("holder", Uuid),
    Index(
        "runs_active_kind",
        "kind",
        unique=True,
        postgresql_where=text("state IN ('PENDING', 'RUNNING')"),
    ),
    Index("runs_requested", "requested_at"),
)
