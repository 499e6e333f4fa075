"""The rows in a CSV or Parquet file. Blocks: a large file takes seconds."""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from services.cdc_ingest.domain.formats.dms_file import csv_rows
from services.cdc_ingest.domain.formats.records import Image, UnreadableError
from services.cdc_ingest.domain.naming import places_of

_GZIP_MAGIC: Final = b"\x1f\x8b"
_DAMAGED: Final = "S3_FILE_DAMAGED"
_BATCH_ROWS: Final = 8_192


def rows_of_csv(content: bytes, wanted: Sequence[str], key: str) -> Iterator[Image]:
    """Yield the wanted columns of each row of a CSV file, compressed with gzip or not.

    Raises:
        UnreadableError: S3_FILE_DAMAGED, or the file does not name its columns.
    """
    stream: io.BytesIO | gzip.GzipFile = io.BytesIO(content)
    if content.startswith(_GZIP_MAGIC):
        stream = gzip.GzipFile(fileobj=stream)
    # An invalid character can only be in a column that is not read.
    lines = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
    try:
        yield from csv_rows(lines, wanted, key)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError(_DAMAGED) from error


def rows_of_parquet(content: bytes, wanted: Sequence[str], key: str) -> Iterator[Image]:
    """Yield the wanted columns of each row of a Parquet file.

    Raises:
        UnreadableError: S3_FILE_DAMAGED, or the file does not have the column `key`.
    """
    # The import takes 60 MB and a third of a second: only a service with such files pays it.
    import pyarrow as arrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        names = file.schema_arrow.names
        spelt = {name: names[at] for name, at in places_of(wanted, names)}
        if key not in spelt:
            raise UnreadableError("S3_FILE_WITHOUT_COLUMN_NAMES")
        present = list(spelt.values())
        for batch in file.iter_batches(_BATCH_ROWS, columns=present, use_threads=False):
            for row in batch.to_pylist():
                # A text column without the annotation for text is read as bytes.
                yield {
                    name: (
                        value.decode(errors="replace")
                        if isinstance(value := row[written], bytes)
                        else value
                    )
                    for name, written in spelt.items()
                }
    except (arrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UnreadableError(_DAMAGED) from error
