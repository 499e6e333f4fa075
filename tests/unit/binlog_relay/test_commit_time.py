"""When a transaction was committed, as MySQL's GTID events tell it."""

import pytest

from services.binlog_relay.binlog.translator import commit_microseconds

BEFORE_THE_TIME = b"\x01" + bytes(16) + bytes(8) + b"\x02" + bytes(8) + bytes(8)
COMMITTED = 1_700_000_000_123_456


@pytest.mark.parametrize("version", [(8, 0, 36), (8, 4, 3), (9, 7, 4)])
def test_mysql_8_tells_microseconds(version: tuple[int, ...]) -> None:
    body = BEFORE_THE_TIME + COMMITTED.to_bytes(7, "little")
    assert commit_microseconds(body, 1_700_000_000, version) == COMMITTED


def test_a_replicas_event_holds_its_own_time_first() -> None:
    body = BEFORE_THE_TIME + (COMMITTED | 1 << 55).to_bytes(7, "little")
    assert commit_microseconds(body, 1_700_000_000, (8, 4, 3)) == COMMITTED


@pytest.mark.parametrize(
    ("body", "version"),
    [(BEFORE_THE_TIME, (8, 4, 3)), (BEFORE_THE_TIME + bytes(7), (5, 7, 44))],
)
def test_older_servers_tell_seconds(body: bytes, version: tuple[int, ...]) -> None:
    assert commit_microseconds(body, 1_700_000_000, version) == 1_700_000_000_000_000
