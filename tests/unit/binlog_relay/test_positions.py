"""GTID sets in both formats, and how to go on from a saved position."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.positions import (
    BinlogPosition,
    MariadbGtids,
    MysqlGtids,
    NoGtids,
    Resume,
    way_to_resume,
)

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


@given(st.lists(st.integers(1, 60), max_size=80))
def test_a_mysql_set_holds_exactly_what_was_added(numbers: list[int]) -> None:
    gtids = MysqlGtids("")
    for number in numbers:
        gtids.add(f"{UUID}:{number}")
    held: set[int] = set()
    for part in str(gtids).partition(":")[2].split(":"):
        first, _, last = part.partition("-")
        held.update(range(int(first or 1), int(last or first or 0) + 1))
    assert held == set(numbers)
    assert str(MysqlGtids(str(gtids))) == str(gtids)


def test_a_mysql_set_is_read_as_the_server_prints_it() -> None:
    other = "4c9e3dfc-9d25-11e9-8d2e-0242ac1cfd7e"
    gtids = MysqlGtids(f"{UUID}:1-5:7,\n{other}:3:batch:1-2")
    gtids.add(f"{UUID}:6")
    gtids.add(f"{other}:batch:3")
    assert str(gtids) == f"{UUID}:1-7,{other}:3,{other}:batch:1-3"


def test_mariadb_keeps_the_last_of_each_domain() -> None:
    gtids = MariadbGtids("0-1-100,2-7-3")
    gtids.add("0-2-101")
    gtids.add("5-1-1")
    assert str(gtids) == "0-2-101,2-7-3,5-1-1"


def test_a_server_without_gtids_has_an_empty_set() -> None:
    gtids = NoGtids()
    gtids.add("0-1-1")
    assert str(gtids) == ""


@pytest.mark.parametrize(
    ("server", "gtid", "has_gtids", "expected"),
    [
        ("a", "0-1-1", True, Resume.BY_FILE),
        ("a", "", False, Resume.BY_FILE),
        ("b", "0-1-1", True, Resume.BY_GTID),
        ("b", "", True, Resume.LOST),
        ("b", "0-1-1", False, Resume.LOST),
    ],
)
def test_file_names_count_on_their_own_server_only(
    server: str, gtid: str, has_gtids: bool, expected: Resume
) -> None:
    saved = BinlogPosition("a", "binlog.3", 4, gtid)
    assert way_to_resume(saved, server, has_gtids=has_gtids) is expected
