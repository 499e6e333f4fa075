"""The main app's tables as its description gives them, and the two things we keep ourselves."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

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
