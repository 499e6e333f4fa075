"""The main app's tables as its description gives them, and what we keep ourselves."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TIMESTAMP, TSVECTOR

from mainapp.description import ColumnType, Description

SCHEMA = "user_context"

metadata = sa.MetaData(schema=SCHEMA)

# Of two readings of the main app the one with the higher version began later.
read_version = sa.Sequence("read_version", metadata=metadata)

# Fences that had to be raised while the cache could not be reached. Numeric, because the main
# app's ids are unsigned 64-bit numbers and bigint is signed.
unraised_fences = sa.Table(
    "unraised_fences",
    metadata,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Numeric(20, 0), primary_key=True),
    sa.Column("version", sa.Numeric(20, 0), nullable=False),
)

# The words of people's names, for search alone (docs/decisions/0015).
name_words = sa.Table(
    "name_words",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("words", TSVECTOR, nullable=False),
    sa.Index("name_words_words", "words", postgresql_using="gin"),
)

# How far they have been taken up: one row.
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

# Types that hand the driver's values on unchanged; `store` normalises them.
_TYPES: Mapping[ColumnType, type[sa.types.TypeEngine[Any]]] = {
    ColumnType.UINT64: sa.BigInteger,
    ColumnType.UUID: sa.String,
    ColumnType.TEXT: sa.String,
    ColumnType.BOOL: sa.SmallInteger,
    ColumnType.DATE: sa.Date,
    ColumnType.TIMESTAMP: sa.DateTime,
    ColumnType.DECIMAL: sa.Numeric,
    ColumnType.JSON: sa.Text,
}


def main_app_tables(description: Description) -> dict[str, sa.Table]:
    """Return a table for each one described, holding only the columns that are read.

    Its columns go by our names for them.
    """
    main_app = sa.MetaData()
    return {
        name: sa.Table(
            name,
            main_app,
            *(
                sa.Column(column, _TYPES[found.type](), key=found.name_with_us or column)
                for column, found in table.columns.items()
            ),
        )
        for name, table in description.tables.items()
    }
