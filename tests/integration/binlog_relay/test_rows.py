"""Every kind of column, decoded from the binlog as the server itself prints it."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from devstack.mainapp_database import MainAppDatabase
from mainapp.description import Description
from services.binlog_relay.binlog.reader import BinlogReader, StreamEndedError, StreamStart
from services.binlog_relay.binlog.server import MySqlSource, examine
from services.binlog_relay.domain.packing import Gap, Item, RowChange
from services.binlog_relay.domain.positions import Resume

# Among its types and names are some that MySQL has not, or reserves.
pytestmark = [pytest.mark.integration, pytest.mark.mariadb]

# Type of the column, the literal stored, and what the record must hold.
CASES: Mapping[str, tuple[str, str, Any]] = {
    "tiny": ("tinyint", "-128", -128),
    "tiny_u": ("tinyint unsigned", "255", 255),
    "flag": ("tinyint(1)", "1", 1),
    "small": ("smallint", "-32768", -32768),
    "small_u": ("smallint unsigned", "65535", 65535),
    "medium": ("mediumint", "-8388608", -8388608),
    "medium_u": ("mediumint unsigned", "16777215", 16777215),
    "whole": ("int", "-2147483648", -2147483648),
    "whole_u": ("int unsigned", "4294967295", 4294967295),
    "big": ("bigint", "-9223372036854775808", -9223372036854775808),
    "big_u": ("bigint unsigned", "18446744073709551615", 18446744073709551615),
    "money": ("decimal(10,2)", "-1234.50", "-1234.50"),
    "zero_money": ("decimal(10,2)", "0", "0.00"),
    "long_decimal": (
        "decimal(30,10)",
        "12345678901234567890.0123456789",
        "12345678901234567890.0123456789",
    ),
    "no_fraction": ("decimal(20,0)", "-98765432109876543210", "-98765432109876543210"),
    "real_4": ("float", "1.5e-3", 0.0015),
    "real_8": ("double", "-2.25e100", -2.25e100),
    "day": ("date", "'1999-12-31'", "1999-12-31"),
    "no_day": ("date", "'0000-00-00'", None),
    "moment": ("datetime", "'2024-02-29 23:59:59'", "2024-02-29T23:59:59Z"),
    "moment_3": ("datetime(3)", "'0001-01-01 00:00:00.007'", "0001-01-01T00:00:00.007000Z"),
    "moment_6": ("datetime(6)", "'9999-12-31 23:59:59.999999'", "9999-12-31T23:59:59.999999Z"),
    "no_moment": ("datetime", "'0000-00-00 00:00:00'", None),
    "stamp": ("timestamp NULL", "'1970-01-01 00:00:01'", "1970-01-01T00:00:01Z"),
    "stamp_6": ("timestamp(6) NULL", "'2038-01-19 03:14:07.5'", "2038-01-19T03:14:07.500000Z"),
    "no_stamp": ("timestamp NULL", "'0000-00-00 00:00:00'", None),
    "hours": ("time", "'-838:59:59'", "-838:59:59"),
    "hours_2": ("time(2)", "'-00:00:01.25'", "-00:00:01.250000"),
    "hours_6": ("time(6)", "'12:34:56.000001'", "12:34:56.000001"),
    "annum": ("year", "2024", 2024),
    "bits": ("bit(12)", "b'101000000001'", 2561),
    "fixed": ("char(36)", "'k\u00e4se'", "k\u00e4se"),
    "wide_fixed": ("char(255)", "repeat('\u20ac', 255)", "\u20ac" * 255),
    "short": ("varchar(60)", "'\U0001f600'", "\U0001f600"),
    "variable": ("varchar(255)", "repeat('x', 255)", "x" * 255),
    "latin": ("varchar(20) CHARACTER SET latin1", "'na\u00efve \u20ac'", "na\u00efve \u20ac"),
    "prose": ("text", "repeat('y', 300)", "y" * 300),
    "long_prose": ("mediumtext", "repeat('z', 70000)", "z" * 70000),
    "empty": ("varchar(255)", "''", ""),
    "choice": ("enum('a','b\u00e9','c')", "'b\u00e9'", "b\u00e9"),
    "choices": ("set('p','q','r')", "'p,r'", "p,r"),
    "no_choice": ("set('p','q','r')", "''", ""),
    "doc": ("json", "'{\"a\": [1, null]}'", '{"a": [1, null]}'),
    "nothing": ("varchar(255)", "NULL", None),
}
# Stepped over between the others, so that a step of the wrong length shows.
UNWANTED = {
    "skipped_text": ("longtext", "repeat('s', 100000)"),
    "skipped_blob": ("mediumblob", "repeat('b', 70000)"),
    "skipped_decimal": ("decimal(38,20)", "1.5"),
    "skipped_point": ("geometry", "ST_GeomFromText('POINT(1 2)')"),
    "skipped_moment": ("datetime(5)", "'2024-01-01 00:00:00.12345'"),
    "skipped_bits": ("bit(33)", "b'1'"),
    "skipped_set": ("set('a','b','c','d','e','f','g','h','i')", "'i'"),
    "skipped_null": ("varchar(10)", "NULL"),
    "skipped_short": ("varchar(10)", "'abc'"),
}


@pytest.fixture
def kinds(mainapp_database: MainAppDatabase) -> MainAppDatabase:
    """A main app with one more table, which has a column of every kind."""
    columns: list[str] = []
    fillers = list(UNWANTED.items())
    for number, (name, (kind, _, __)) in enumerate(CASES.items()):
        columns.append(f"{name} {kind}")
        if number < len(fillers):
            columns.append(f"{fillers[number][0]} {fillers[number][1][0]}")
    definition = ", ".join(["id int PRIMARY KEY", *columns])
    mainapp_database.execute(
        f"CREATE TABLE kinds ({definition}) CHARSET utf8mb4 ROW_FORMAT=DYNAMIC"
    )
    return mainapp_database


def test_every_kind_of_column_is_decoded(kinds: MainAppDatabase) -> None:
    values = {name: literal for name, (_, literal, __) in CASES.items()}
    values |= {name: literal for name, (_, literal) in UNWANTED.items()}
    names, literals = ", ".join(values), ", ".join(values.values())
    with changes_of(kinds, expected=3) as records:
        run(
            kinds,
            "SET SESSION sql_mode = ''",
            f"INSERT INTO kinds (id, {names}) VALUES (1, {literals})",
            "UPDATE kinds SET id = 2",
            "DELETE FROM kinds",
        )
    inserted, updated, deleted = records
    images = [inserted["data"], updated["before-image"], updated["data"], deleted["data"]]
    for image in images:
        assert image.keys() == {"id", *CASES}
        for name, (_, __, expected) in CASES.items():
            assert image[name] == expected, name
    assert [image["id"] for image in images] == [1, 1, 2, 2]


def test_a_session_that_logs_less_gives_what_there_is(kinds: MainAppDatabase) -> None:
    gaps: list[str] = []
    with changes_of(kinds, expected=2, gaps=gaps) as records:
        run(kinds, MINIMAL, INSERT, "UPDATE kinds SET short = 'y'")
    assert records[0]["data"]["big"] == 7
    assert records[1]["before-image"] == {"id": 1}
    assert records[1]["data"] == {"short": "y"}
    assert gaps == []


@pytest.mark.parametrize("statement", ["UPDATE kinds SET big = 8", "DELETE FROM kinds"])
def test_a_row_without_its_user_is_a_gap(kinds: MainAppDatabase, statement: str) -> None:
    gaps: list[str] = []
    with changes_of(kinds, expected=2, user="big", gaps=gaps) as records:
        run(kinds, MINIMAL, INSERT, statement)
    assert len(records) == 2
    assert gaps == ["partial_image"]


MINIMAL = "SET SESSION binlog_row_image = 'MINIMAL'"
INSERT = "INSERT INTO kinds (id, big, short) VALUES (1, 7, 'x')"


def run(database: MainAppDatabase, *statements: str) -> None:
    """Run the statements in one session of an administrator."""
    with database.connect("admin") as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextlib.contextmanager
def changes_of(
    database: MainAppDatabase,
    *,
    expected: int,
    user: str = "id",
    gaps: list[str] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Collect that many records of what the block does; they are there once it has ended.

    `user` is the column that leads to the person; the reasons of blind spots go to `gaps`.
    """
    found = [] if gaps is None else gaps
    source = MySqlSource.parse(database.relay_url)
    state = examine(source, [])
    records: list[dict[str, Any]] = []

    def deliver(items: Sequence[Item]) -> None:
        records.extend(loaded(item.body) for item in items if isinstance(item, RowChange))
        found.extend(item.reason for item in items if isinstance(item, Gap))
        if len(records) >= expected:
            reader.stop()

    reader = BinlogReader(
        source,
        StreamStart(state.position, Resume.BY_FILE, state),
        described(user),
        deliver,
        server_id=9_999_001,
        heartbeat_seconds=1.0,
        bulk_above_bytes=0,
        max_record_bytes=180_000,
    )
    yield records
    with pytest.raises(StreamEndedError):
        reader.run()


def loaded(body: bytes) -> dict[str, Any]:
    """Parse a record with its decimals as the text they are."""
    parsed: dict[str, Any] = json.loads(body, parse_float=str)
    for image in (parsed["data"], parsed.get("before-image", {})):
        for name, convert in (("real_4", float), ("real_8", float), ("no_fraction", str)):
            if image.get(name) is not None:
                image[name] = convert(image[name])
    return parsed


def described(user: str) -> Description:
    columns = {"id": "uint64"} | dict.fromkeys(CASES, "text")
    table = {"key": "id", "user": {"column": user}, "columns": columns}
    return Description.model_validate({"tables": {"kinds": table}})
