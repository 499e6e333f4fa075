"""The relay's one table, in its own schema."""

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text

SCHEMA: Final = "binlog_relay"

metadata = MetaData(schema=SCHEMA)

positions = Table(
    "positions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("server", Text, nullable=False, server_default=""),
    Column("file", Text, nullable=False, server_default=""),
    Column("file_offset", BigInteger, nullable=False, server_default="0"),
    Column("gtid", Text, nullable=False, server_default=""),
    Column("saved_at", DateTime(timezone=True)),
    Column("records_published", BigInteger, nullable=False, server_default="0"),
)
