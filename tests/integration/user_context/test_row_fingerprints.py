"""MySQL computes of a row what an implementation of our own computes of the same values."""

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from struct import iter_unpack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devstack.mainapp_database import MainAppDatabase
from mainapp import description
from mainapp.description import ColumnType
from servicekit.clock import SystemClock
from servicekit.database import mysql_engine
from services.user_context.domain import UserId
from services.user_context.mysql.chunk_reader import ChunkReader
from services.user_context.mysql.fingerprint_readings import FingerprintReadings
from services.user_context.mysql.replica_lag import ReplicaLag
from tests.fakes.running_user_context import insertion

pytestmark = pytest.mark.integration

_DESCRIBED = description.load()
_HUGE = 2**64 - 1


def _reference(table: str, values: Mapping[str, str | None]) -> int:
    """A row's fingerprint from the texts of its columns."""
    names = _DESCRIBED.tables[table].columns
    texts = ["\0" if (text := values.get(name)) is None else text for name in names]
    product = zlib.crc32("\x1f".join(texts).encode()) * 2_654_435_761
    return product >> 32 ^ product & 0xFFFFFFFF


@pytest.fixture
async def readings(mainapp_database: MainAppDatabase) -> AsyncIterator[FingerprintReadings]:
    engine = mysql_engine(mainapp_database.url, pool_size=1, statement_timeout_seconds=5.0)
    clock = SystemClock()
    chunk_reader = ChunkReader(engine, _DESCRIBED, clock, ReplicaLag(engine, clock, 0.0))
    yield FingerprintReadings(engine, _DESCRIBED, chunk_reader, clock)
    await engine.dispose()


async def _record(readings: FingerprintReadings, user_id: int) -> bytes:
    found = await readings.people([UserId(user_id)])
    return found.packed.get(user_id, b"")


def _put(main_app: MainAppDatabase, table: str, rows: Sequence[dict[str, Any]]) -> None:
    with main_app.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = '', FOREIGN_KEY_CHECKS = 0, time_zone = '+00:00'")
        cursor.execute(f"DELETE FROM {table}")
        for row in rows:
            cursor.execute(*insertion(table, **row))


_TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_MOMENTS = st.none() | st.sampled_from(
    ["0000-00-00 00:00:00", "1970-01-01 00:00:01", "2024-03-31 01:30:00", "2038-01-19 03:14:07"]
)
_DAYS = st.none() | st.sampled_from(["0000-00-00", "2020-00-00", "1900-02-28", "2004-02-29"])
_USER = st.fixed_dictionaries(
    {
        "is_enabled": st.sampled_from(["0", "1", "-1", "127"]),
        "status": _TEXTS,
        "first_name": _TEXTS,
        "date_of_birth": _DAYS,
        "last_login": _MOMENTS,
        "notification_channels": st.sampled_from([None, "[]", '{"a":[1,"b c"]}', '"Zażółć 😀"']),
        "introducer": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "credit_response_selection_completed": st.sampled_from(["0", "1"]),
    }
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_USER, min_size=8, max_size=8))
async def test_users_come_to_what_the_reference_says(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase, users: list[dict[str, Any]]
) -> None:
    ids = [1, 9, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, _HUGE]
    rows = [
        {**user, "id": str(user_id), "email_address": f"{user_id}@example.com"}
        for user_id, user in zip(ids, users, strict=True)
    ]
    _put(mainapp_database, "users", rows)

    found = await readings.people([UserId(user_id) for user_id in ids])

    assert {
        user_id: int.from_bytes(record[:4], "little") for user_id, record in found.packed.items()
    } == {int(row["id"]): _reference("users", row) for row in rows}


@pytest.mark.parametrize(
    "payment", [None, "0.00", "-0.01", "189.50", "99999999.99", "-99999999.99"]
)
async def test_packages_come_to_what_the_reference_says(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase, payment: str | None
) -> None:
    row = {
        "id": "é" * 36,
        "claim_id": str(_HUGE - 1),
        "monthly_payment": payment,
        "contract_start_date": "0000-00-00",
        "vehicle_make": "Škoda",
    }
    _put(mainapp_database, "claim_vehicle_packages", [row])

    found = await readings.owners("claim_vehicle_packages", 1, [_HUGE - 1])

    assert (found.owner_ids, found.fingerprints) == (
        (_HUGE - 1,),
        [_reference("claim_vehicle_packages", row)],
    )


async def test_json_is_the_same_with_and_without_the_spaces_a_server_puts(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    user = {"id": "1", "email_address": "a@example.com", "introducer": "mcc"}
    user |= {"is_enabled": "1", "credit_response_selection_completed": "0"}
    records = set()
    for text in ('{"a": 1, "b": [2, 3]}', '{"a":1,"b":[2,3]}'):
        _put(mainapp_database, "users", [{**user, "notification_channels": text}])
        records.add(await _record(readings, 1))

    assert {record[:4] for record in records} == {
        _reference("users", {**user, "notification_channels": text}).to_bytes(4, "little")
    }


async def test_neither_zone_nor_charset_nor_fractions_of_the_server_make_a_difference(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    """A column in another charset or collation is hashed as UTF-8 all the same."""
    for change in (
        "MODIFY lender varchar(255) CHARACTER SET latin1 COLLATE latin1_swedish_ci",
        "MODIFY solicitor varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "MODIFY created_at timestamp(3) NULL",
    ):
        mainapp_database.execute(f"ALTER TABLE claims {change}")
    row = {
        "id": "1",
        "user_id": "1",
        "type": "pcp",
        "lender": "Crédit",
        "solicitor": "Ünï😀",
        "created_at": "2024-07-01 10:00:00.120",
    }
    _put(mainapp_database, "claims", [row])
    with mainapp_database.connect("admin") as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL time_zone = '+05:30', GLOBAL character_set_server = latin1")
    try:
        found = await readings.owners("claims", 1, [1])
    finally:
        with mainapp_database.connect("admin") as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL time_zone = '+00:00', GLOBAL character_set_server = utf8mb4")

    assert found.fingerprints == [_reference("claims", row)]


_CHANGED: dict[ColumnType, list[Any]] = {
    ColumnType.TEXT: ["a", "b", "", "A", "a ", "å", None],
    ColumnType.UUID: ["a", "b", "", "A", None],
    ColumnType.JSON: ['["a"]', '["b"]', "[]", '{"a":1}', None],
    ColumnType.BOOL: [0, 1, 2],
    ColumnType.DATE: ["2024-01-01", "2024-01-02", "0000-00-00", None],
    ColumnType.TIMESTAMP: ["2024-01-01 10:00:00", "2024-01-01 10:00:01", "0000-00-00", None],
    ColumnType.DECIMAL: [Decimal("0.00"), Decimal("0.01"), Decimal("1.00"), None],
}


def _one_of_everything(main_app: MainAppDatabase) -> None:
    key = "k" * 36
    for table, row in {
        "users": {"id": 1, "email_address": "a@example.com"},
        "claims": {"id": 5, "user_id": 1, "type": "pcp"},
        "claim_requirements": {"id": key, "claim_id": 5, "type": "cfa"},
        "claim_vehicle_packages": {"id": key, "claim_id": 5},
        "user_addresses": {"id": key, "user_id": 1},
    }.items():
        _put(main_app, table, [row])


async def test_every_change_of_every_described_column_is_another_fingerprint(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    _one_of_everything(mainapp_database)
    tried = 0
    with mainapp_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = '', FOREIGN_KEY_CHECKS = 0")
        for table, described in _DESCRIBED.tables.items():
            for name in described.columns.keys() - {described.key, described.user.column}:
                column = described.columns[name]
                kind = _kind(cursor, table, name)
                cursor.execute(f"ALTER TABLE {table} MODIFY {name} {kind} NULL")
                seen, values = set(), _CHANGED[column.type]
                for value in values:
                    cursor.execute(f"UPDATE {table} SET {name} = %s", [value])
                    seen.add(await _record(readings, 1))
                assert len(seen) == len(values), (table, name)
                tried += 1
    assert tried > 50


def _kind(cursor: Any, table: str, name: str) -> str:
    """The column's own type, so that NULL can be tried everywhere."""
    cursor.execute(f"SHOW COLUMNS FROM {table} LIKE '{name}'")
    kind: str = cursor.fetchone()[1]
    # Spaces at the end, which are tried too, are no part of what a char column holds.
    return kind.replace("char(36)", "varchar(36)") if kind.startswith("char") else kind


async def test_what_is_not_described_makes_no_difference(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    _one_of_everything(mainapp_database)
    before = await _record(readings, 1)
    mainapp_database.execute("UPDATE users SET password = 'x', justcall_id = 'y'")
    mainapp_database.execute("UPDATE user_addresses SET is_linked_address = 1")

    assert await _record(readings, 1) == before


async def test_a_value_that_moves_to_the_next_column_is_a_change(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    _one_of_everything(mainapp_database)
    seen = set()
    for first, last in (("a", None), (None, "a"), ("a", ""), ("", "a"), ("", None), (None, None)):
        mainapp_database.execute("UPDATE users SET first_name = %s, last_name = %s", [first, last])
        seen.add(await _record(readings, 1))

    assert len(seen) == 6


async def test_rows_changed_alike_do_not_cancel_out(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    """Under exclusive or of plain checksums, which are linear, they would."""
    _one_of_everything(mainapp_database)
    for number in range(8):
        mainapp_database.execute(
            *insertion("claim_requirements", id=f"{number:036d}", claim_id=5, type="cfa")
        )
    seen = {await _record(readings, 1)}
    for status in ("PENDING", "COMPLETE", "FAILED"):
        mainapp_database.execute(
            "UPDATE claim_requirements SET status = %s WHERE id < 'a'", [status]
        )
        seen.add(await _record(readings, 1))
        mainapp_database.execute(
            "UPDATE claim_requirements SET status = %s WHERE id < %s", ["ODD", f"{2:036d}"]
        )
        seen.add(await _record(readings, 1))

    assert len(seen) == 7


async def test_a_claim_that_moves_changes_both_and_one_deleted_leaves_the_record(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    _one_of_everything(mainapp_database)
    mainapp_database.execute(*insertion("users", id=2, email_address="b@example.com"))
    first, second = await _record(readings, 1), await _record(readings, 2)
    mainapp_database.execute("UPDATE claims SET user_id = 2")
    assert (len(await _record(readings, 1)), len(await _record(readings, 2))) == (16, 32)
    moved = await _record(readings, 2)
    ((claim_id, *_),) = iter_unpack("<QII", moved[16:])
    mainapp_database.execute("DELETE FROM claims")

    assert (len(first), len(second)) == (32, 16)
    assert claim_id == 5
    assert moved[16:] == first[16:]
    assert await _record(readings, 2) == second
    mainapp_database.execute("DELETE FROM users WHERE id = 2")
    assert await _record(readings, 2) == b""


async def test_every_address_counts_not_the_current_one_alone(
    readings: FingerprintReadings, mainapp_database: MainAppDatabase
) -> None:
    _one_of_everything(mainapp_database)
    before = await _record(readings, 1)
    mainapp_database.execute(*insertion("user_addresses", id="z" * 36, user_id=1))
    after = await _record(readings, 1)

    assert before[8:12] != after[8:12]
    assert before[:8] + before[12:] == after[:8] + after[12:]
