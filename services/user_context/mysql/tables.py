"""The main app's tables as its description gives them."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mainapp.description import ColumnType, Description

# Types that pass the driver's values on unchanged; `rows` normalises them.
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
    """Return every described table with the columns that are read, under our names."""
    main_app = sa.MetaData()
    return {
        name: sa.Table(
            name,
            main_app,
            *(
                sa.Column(column, _TYPES[found.type](), key=table.our_name(column))
                for column, found in table.columns.items()
            ),
        )
        for name, table in description.tables.items()
    }
