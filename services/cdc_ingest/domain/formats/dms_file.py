"""The files DMS writes to S3: rows with the operation in the column `Op`.

The format is described in the DMS user guide under "Using Amazon S3 as a target". Column names
must be in the file: Parquet always has them, CSV with the endpoint setting AddColumnName.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from services.cdc_ingest.domain.formats.dms import BEFORE_PREFIX, before_image_columns
from services.cdc_ingest.domain.formats.records import (
    ChangeFile,
    ChangeRecord,
    Image,
    Operation,
    UnreadableError,
)
from services.cdc_ingest.domain.naming import places_of

OPERATION_COLUMN: Final = "Op"
CSV: Final = "dms_csv"
PARQUET: Final = "dms_parquet"
_OPERATIONS = {"I": Operation.INSERT, "U": Operation.UPDATE, "D": Operation.DELETE}
# What DMS writes for NULL by default, and the usual settings.
_NULLS = frozenset({"NULL", "null", r"\N"})
_MAX_FIELD_CHARACTERS: Final = 64 * 1024 * 1024


def wanted_columns(leading: Iterable[str]) -> tuple[str, ...]:
    """Return the columns to read for the values of `leading` before and after the change."""
    names = tuple(leading)
    return (OPERATION_COLUMN, *names, *(BEFORE_PREFIX + name for name in names))


def csv_rows(lines: Iterable[str], wanted: Sequence[str], key: str) -> Iterator[Image]:
    """Yield the wanted columns of each row.

    Raises:
        UnreadableError: the first line does not name the columns, `key` among them; or a row is
            not CSV.
    """
    # The setting holds for the process; JSON columns exceed the default.
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    rows = csv.reader(lines)
    try:
        header = next(rows, [])
        places = places_of(wanted, header)
        if key not in dict(places):
            raise UnreadableError("S3_FILE_WITHOUT_COLUMN_NAMES")
        for row in rows:
            if row:
                # An empty field may be NULL or empty: it counts as absent, as in a JSON record.
                yield {
                    name: None if row[at] in _NULLS else row[at]
                    for name, at in places
                    if at < len(row) and row[at]
                }
    except csv.Error as error:
        raise UnreadableError("S3_FILE_DAMAGED") from error


def row_change(file: ChangeFile, row: Image, form: str) -> ChangeRecord:
    """Return the change of a row; a row without `Op` is of a full load, or an insert."""
    operation = row.get(OPERATION_COLUMN)
    before = before_image_columns(row)
    after = {
        name: row[name]
        for name in row
        if name != OPERATION_COLUMN and not name.startswith(BEFORE_PREFIX)
    }
    return ChangeRecord(
        table=file.table,
        operation=_OPERATIONS.get(str(operation), Operation.OTHER) if operation else Operation.LOAD,
        images=(after,) if before is None else (before, after),
        # DMS captured the row before it wrote the file.
        captured_at=file.written_at,
        transaction=f"s3:{file.bucket}/{file.key}",
        format=form,
        # A signed type in Parquet shows large unsigned numbers as negative.
        wraps_unsigned=True,
    )
