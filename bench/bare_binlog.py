"""The floor of what reads the binlog: the same library, nothing done with the rows."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent


def read_rows(url: str, position: tuple[str, int], rows: int) -> float:
    """Return the seconds it takes to read so many rows from a position on, as dictionaries."""
    parts = urlsplit(url)
    reader = BinLogStreamReader(
        connection_settings={
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "passwd": parts.password,
        },
        server_id=99_002,
        blocking=True,
        resume_stream=True,
        log_file=position[0],
        log_pos=position[1],
        only_events=[DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent],
        only_schemas=[parts.path.strip("/")],
        freeze_schema=True,
    )
    began = time.perf_counter()
    try:
        for event in reader:
            rows -= len(event.rows)
            if rows <= 0:
                break
    finally:
        reader.close()
    return time.perf_counter() - began
