"""The files DMS writes to S3: rows with the operation in the column `Op`, perhaps old values too.

The format is described in the DMS user guide under "Using Amazon S3 as a target". Column names
must be in the file: Parquet always has them, CSV with the endpoint setting AddColumnName.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from services.cdc_ingest.domain.formats.dms import BEFORE_PREFIX, before_image_columns
from services.cdc_ingest.domain.records import (
    ChangeFile,
    Image,
    Operation,
    RowChange,
    UnreadableError,
)

OPERATION_COLUMN: Final = "Op"
CSV: Final = "dms_csv"
PARQUET: Final = "dms_parquet"
_OPERATIONS = {"I": Operation.INSERT, "U": Operation.UPDATE, "D": Operation.DELETE}
# What DMS writes for NULL unless told otherwise, and what some tell it.
_NULLS = frozenset({"NULL", "null", r"\N"})
_MAX_FIELD_CHARACTERS: Final = 64 * 1024 * 1024


def wanted_columns(leading: Iterable[str]) -> tuple[str, ...]:
    """Return the columns to read so that the `leading` ones are known, before and after."""
    names = tuple(leading)
    return (OPERATION_COLUMN, *names, *(BEFORE_PREFIX + name for name in names))


def csv_rows(lines: Iterable[str], wanted: Sequence[str], key: str) -> Iterator[Image]:
    """Yield the wanted columns of each row.

    Raises:
        UnreadableError: the first line does not name the columns, `key` among them; or it is no
            CSV from some row on.
    """
    # One setting for the process; JSON columns outgrow the default.
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    rows = csv.reader(lines)
    try:
        header = next(rows, [])
        if key not in header:
            raise UnreadableError("S3_FILE_WITHOUT_COLUMN_NAMES")
        places = [(name, header.index(name)) for name in wanted if name in header]
        for row in rows:
            if row:
                # An empty field may be NULL or not, as in a JSON record that leaves it out.
                yield {name: _value(row[at]) for name, at in places if at < len(row) and row[at]}
    except csv.Error as error:
        raise UnreadableError("S3_FILE_DAMAGED") from error


def row_change(file: ChangeFile, row: Image, form: str) -> RowChange:
    """Return the change a row tells of; a row without `Op` is of a load, or a mere insert."""
    operation = row.get(OPERATION_COLUMN)
    before = before_image_columns(row)
    after = {
        name: row[name]
        for name in row
        if name != OPERATION_COLUMN and not name.startswith(BEFORE_PREFIX)
    }
    return RowChange(
        table=file.table,
        operation=_OPERATIONS.get(str(operation), Operation.OTHER) if operation else Operation.LOAD,
        images=(after,) if before is None else (before, after),
        # DMS had the row in its hands at the latest when it wrote the file.
        captured_at=file.written_at,
        transaction=f"s3:{file.bucket}/{file.key}",
        format=form,
        # A signed type in Parquet shows large unsigned numbers as negative.
        wraps_unsigned=True,
    )


def _value(text: str) -> str | None:
    return None if text in _NULLS else text
