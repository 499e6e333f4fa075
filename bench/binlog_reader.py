"""The floor of `change_latency`: a bare binlog reader that notes when it saw each person's row."""

from __future__ import annotations

import sys
import time
from urllib.parse import urlsplit

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import UpdateRowsEvent


def read(url: str) -> None:
    """Print ``user_id seconds`` for each update of `users`, for ever."""
    parts = urlsplit(url)
    reader = BinLogStreamReader(
        connection_settings={
            "host": parts.hostname,
            "port": parts.port,
            "user": parts.username,
            "passwd": parts.password,
        },
        server_id=99_001,
        blocking=True,
        only_events=[UpdateRowsEvent],
        only_tables=["users"],
        is_mariadb=True,
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for event in reader:
        seen = time.time()
        for row in event.rows:
            sys.stdout.write(f"{row['after_values']['id']} {seen:.6f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    read(sys.argv[1])
