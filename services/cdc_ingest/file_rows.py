"""The rows in the bytes of a CSV or Parquet file. Blocks for as long as the file is large."""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from services.cdc_ingest.domain.formats.dms_file import csv_rows
from services.cdc_ingest.domain.records import Image, UnreadableError

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
    # A character that is none can only be in a column that does not matter here.
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
    # It takes 60 MB and a third of a second, which only those should pay who have such files.
    import pyarrow as arrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        present = [name for name in wanted if name in file.schema_arrow.names]
        if key not in present:
            raise UnreadableError("S3_FILE_WITHOUT_COLUMN_NAMES")
        for batch in file.iter_batches(_BATCH_ROWS, columns=present, use_threads=False):
            for row in batch.to_pylist():
                yield {name: _text(value) for name, value in row.items()}
    except (arrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise UnreadableError(_DAMAGED) from error


def _text(value: object) -> object:
    """A text column without that annotation comes as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
