"""The reconciler's tables, in their own schema."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

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
    Column("phase", Text, nullable=False, server_default="UNSPECIFIED"),
    Column("phase_done", BigInteger, nullable=False, server_default="0"),
    Column("phase_total", BigInteger, nullable=False, server_default="0"),
    Column("users_checked", BigInteger, nullable=False, server_default="0"),
    Column("users_refreshed", BigInteger, nullable=False, server_default="0"),
    Column("users_moved", BigInteger, nullable=False, server_default="0"),
    Column("users_drifted", BigInteger, nullable=False, server_default="0"),
    Column("users_unsettled", BigInteger, nullable=False, server_default="0"),
    Column("users_withheld", BigInteger, nullable=False, server_default="0"),
    Column("users_failed", BigInteger, nullable=False, server_default="0"),
    Column("failed_user_ids", ARRAY(USER_ID), nullable=False, server_default="{}"),
    Column("rows_read", BigInteger, nullable=False, server_default="0"),
    Column("mysql_statements", BigInteger, nullable=False, server_default="0"),
    Column("mysql_seconds", Double, nullable=False, server_default="0"),
    # Counts by name of what was done, and numbers of users by "KIND table" of their drift.
    Column("done", JSONB, nullable=False, server_default="{}"),
    Column("drift", JSONB, nullable=False, server_default="{}"),
    # Where a run continues after an interruption.
    Column("checkpoint", JSONB),
    # Whether any number of users may count as gone from the main app.
    Column("allow_gone", Boolean, nullable=False, server_default=false()),
    Column("error", Text, nullable=False, server_default=""),
    # Changes with every take-over, so that the writes of the holder before match no row.
    Column("holder", Uuid),
    # Only the previous release writes these two; the next one drops them.
    Column("last_user_id", USER_ID, nullable=False, server_default="0"),
    Column("max_user_id", USER_ID, nullable=False, server_default="0"),
    Index(
        "runs_pending_kind",
        "kind",
        "allow_gone",
        unique=True,
        postgresql_where=text("state = 'PENDING'"),
    ),
    Index("runs_requested", "requested_at"),
    Index("runs_of_kind", "kind", text("requested_at DESC")),
)

# The drifted users of each run.
drift = Table(
    "drift",
    metadata,
    Column("run_id", Uuid, ForeignKey(runs.c.run_id, ondelete="CASCADE"), primary_key=True),
    Column("user_id", USER_ID, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("table_name", Text, primary_key=True),
)

# One row: where freshness comes from.
freshness = Table(
    "freshness",
    metadata,
    Column("row_id", SmallInteger, primary_key=True, autoincrement=False, server_default="1"),
    Column("mode", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("reason", Text, nullable=False),
    Column("capture_alive_at", DateTime(timezone=True)),
    CheckConstraint("row_id = 1", name="freshness_one_row"),
)
