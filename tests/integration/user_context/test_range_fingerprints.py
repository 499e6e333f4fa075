"""Checksums of ranges, owners and people agree, whatever the chunks are."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from struct import iter_unpack, unpack_from
from typing import Any

import pytest
from dialler.user_context.v1 import user_context_pb2 as pb
from prometheus_client import REGISTRY

from devstack.mainapp_database import MainAppDatabase
from mainapp import description
from servicekit.clock import SystemClock
from servicekit.database import mysql_engine
from servicekit.errors import InvalidArgument, ServiceError, Unavailable
from services.user_context.mysql import chunk_reader, fingerprint_readings
from services.user_context.mysql.chunk_reader import ChunkReader
from services.user_context.mysql.fingerprint_readings import FingerprintReadings, RangeFingerprints
from services.user_context.mysql.fingerprints import edition_of
from services.user_context.mysql.replica_lag import ReplicaLag
from tests.fakes import waiting
from tests.fakes.running_user_context import RunningUserContext, insertion

pytestmark = pytest.mark.integration

_DESCRIBED = description.load()
TABLES = ("users", "claims", "user_addresses", "claim_requirements", "claim_vehicle_packages")
_SIZE = 16


async def _people(service: RunningUserContext, *user_ids: int) -> dict[int, bytes]:
    request = pb.ReadRowFingerprintsRequest(user_ids=user_ids)
    answer = await service.stub.ReadRowFingerprints(request)
    assert answer.statements == 7
    return dict(zip(answer.user_ids, answer.row_fingerprints, strict=True))


def _lanes(people: dict[int, bytes]) -> dict[str, dict[int, int]]:
    """The checksum of each owner, table by table, from the records of people; without zeros."""
    lanes: dict[str, dict[int, int]] = {table: {} for table in TABLES}
    for user_id, record in people.items():
        users, claims, addresses, made_by = unpack_from("<IIII", record)
        assert made_by == edition_of(_DESCRIBED.tables)
        lanes["users"][user_id] = users
        lanes["claims"][user_id] = claims
        lanes["user_addresses"][user_id] = addresses
        for claim_id, requirements, packages in iter_unpack("<QII", record[16:]):
            lanes["claim_requirements"][claim_id] = requirements
            lanes["claim_vehicle_packages"][claim_id] = packages
    return {table: {k: v for k, v in lane.items() if v} for table, lane in lanes.items()}


def _by_range(lane: dict[int, int], size: int) -> dict[int, int]:
    sums: dict[int, int] = {}
    for owner, fingerprint in lane.items():
        sums[owner // size] = sums.get(owner // size, 0) ^ fingerprint
    return {number: found for number, found in sums.items() if found}


async def _chunks(
    service: RunningUserContext, table: str, **fields: Any
) -> list[pb.StreamRangeFingerprintsResponse]:
    request = pb.StreamRangeFingerprintsRequest(table=table, **{"range_size": _SIZE, **fields})
    return [chunk async for chunk in service.stub.StreamRangeFingerprints(request)]


def _summed(chunks: list[pb.StreamRangeFingerprintsResponse]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for chunk in chunks:
        assert len(set(chunk.ranges)) == len(chunk.ranges)
        for number, found in zip(chunk.ranges, chunk.fingerprints, strict=True):
            sums[number] = sums.get(number, 0) ^ found
    return {number: found for number, found in sums.items() if found}


async def test_ranges_and_owners_are_the_sums_of_people(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = seeded_user_context
    lanes = _lanes(await _people(service, *range(1, 301)))
    rows = {it: seeded_mainapp.rows(f"SELECT COUNT(*) FROM {it}")[0][0] for it in TABLES}
    whole = {table: await _chunks(service, table) for table in TABLES}
    monkeypatch.setattr(chunk_reader, "MOST_ROWS", 37)
    monkeypatch.setattr(fingerprint_readings, "OWNERS_PER_STATEMENT", 40)

    for table, (chunk,) in whole.items():
        assert chunk.last
        assert _summed([chunk]) == _by_range(lanes[table], _SIZE)
        assert sum(chunk.row_counts) == rows[table]
        parts = await _chunks(service, table)
        assert len(parts) == rows[table] // 37 + 1
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
        assert _summed(parts) == _summed([chunk])
        assert sum(sum(part.row_counts) for part in parts) == rows[table]
        after = await _chunks(service, table, after_key=parts[1].through_key)
        assert [it.through_key for it in after] == [it.through_key for it in parts[2:]]
        assert _summed([*parts[:2], *after]) == _summed([chunk])
        ranges = [*list(chunk.ranges)[:9], 10**15, 2**64 - 1]
        owners = await service.stub.ReadOwnerFingerprints(
            pb.ReadOwnerFingerprintsRequest(table=table, range_size=_SIZE, ranges=ranges)
        )
        found = dict(zip(owners.owner_ids, owners.fingerprints, strict=True))
        assert found == {k: v for k, v in lanes[table].items() if k // _SIZE in ranges}
        assert owners.statements == 5
    assert sum(chunk.mysql_seconds for (chunk,) in whole.values()) > 0


async def test_a_refresh_says_what_rows_come_to_and_no_other_reading_does(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    service, ids = seeded_user_context, [*range(1, 301), 10**6]
    refreshed = await service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=ids))
    live = await service.stub.ReadUserFacts(pb.ReadUserFactsRequest(user_ids=ids))

    refreshed_fingerprints = {facts.user_id: facts.row_fingerprints for facts in refreshed.facts}
    assert refreshed_fingerprints.pop(10**6) == b""
    assert refreshed_fingerprints == await _people(service, *ids)
    assert not any(facts.row_fingerprints for facts in live.facts)


async def test_rows_without_an_owner_do_not_count(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    for number, user_id in enumerate((0, -5, -16, 3)):
        mainapp_database.execute(*insertion("user_addresses", id=f"{number:036d}", user_id=user_id))

    (chunk,) = await _chunks(user_context, "user_addresses")
    owners = await user_context.stub.ReadOwnerFingerprints(
        pb.ReadOwnerFingerprintsRequest(table="user_addresses", range_size=16, ranges=[0])
    )

    assert (list(chunk.ranges), list(chunk.row_counts)) == ([0], [1])
    assert list(owners.owner_ids) == [3]
    assert list(owners.fingerprints) == list(chunk.fingerprints)


async def test_an_empty_table_and_the_highest_ids(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    (chunk,) = await _chunks(user_context, "users", after_key="17")
    assert (list(chunk.ranges), chunk.through_key, chunk.last) == ([], "17", True)

    for user_id in (2**63, 2**64 - 1):
        mainapp_database.execute(
            *insertion("users", id=user_id, email_address=f"{user_id}@example.com")
        )
    (chunk,) = await _chunks(user_context, "users", after_key=str(2**63))
    assert (list(chunk.ranges), chunk.through_key) == ([2**60 - 1], str(2**64 - 1))
    owners = await user_context.stub.ReadOwnerFingerprints(
        pb.ReadOwnerFingerprintsRequest(table="users", range_size=16, ranges=[2**60 - 1, 2**59])
    )
    assert sorted(owners.owner_ids) == [2**63, 2**64 - 1]
    assert await _people(user_context, 5) == {}


_BAD: list[tuple[dict[str, Any], str]] = [
    ({"table": ""}, "UNKNOWN_TABLE"),
    ({"table": "user_logs"}, "UNKNOWN_TABLE"),
    ({"range_size": 0}, "RANGE_SIZE_MISSING"),
    ({"load_share": -0.5}, "LOAD_SHARE_OUT_OF_RANGE"),
    ({"load_share": float("nan")}, "LOAD_SHARE_OUT_OF_RANGE"),
    ({"after_key": "12abc"}, "AFTER_KEY_INVALID"),
    ({"after_key": str(2**64)}, "AFTER_KEY_INVALID"),
    ({"table": "user_addresses", "after_key": "x" * 37}, "AFTER_KEY_INVALID"),
    ({"table": "user_addresses", "after_key": "a\0"}, "AFTER_KEY_INVALID"),
]


_BAD_OWNERS: list[tuple[dict[str, Any], str]] = [
    ({"table": "claim"}, "UNKNOWN_TABLE"),
    ({"range_size": 0}, "RANGE_SIZE_MISSING"),
    ({"range_size": 10_001}, "RANGE_SIZE_TOO_LARGE"),
    ({"ranges": range(101)}, "TOO_MANY_RANGES"),
]


async def test_what_cannot_be_is_refused(user_context: RunningUserContext) -> None:
    stub = user_context.stub
    for fields, reason in _BAD:
        with pytest.raises(InvalidArgument, match=reason):
            await _chunks(user_context, **{"table": "users", **fields})
    for fields, reason in _BAD_OWNERS:
        request: dict[str, Any] = {"table": "claims", "range_size": 4, "ranges": [1], **fields}
        with pytest.raises(InvalidArgument, match=reason):
            await stub.ReadOwnerFingerprints(pb.ReadOwnerFingerprintsRequest(**request))
    with pytest.raises(InvalidArgument, match="TOO_MANY_USERS"):
        await _people(user_context, *range(1, 1_002))
    with pytest.raises(InvalidArgument, match="USER_ID_MISSING"):
        await _people(user_context, 0)


class _Rests:
    """Takes the place of sleeping."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.then: Callable[[], object] = lambda: None

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.then()


class _Ticking(SystemClock):
    """Half a second goes by whenever it is looked at."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def monotonic(self) -> float:
        self._seconds += 0.5
        return self._seconds


@pytest.fixture
async def chunk_reads(
    seeded_mainapp: MainAppDatabase, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FingerprintReadings, _Rests]]:
    """Readings in small chunks whose statements may take 0.3 seconds."""
    monkeypatch.setattr(chunk_reader, "MOST_ROWS", 200)
    engine = mysql_engine(seeded_mainapp.url, pool_size=1, statement_timeout_seconds=0.3)
    rests, clock = _Rests(), _Ticking()
    reader = ChunkReader(engine, _DESCRIBED, clock, ReplicaLag(engine, clock, 0.0), sleep=rests)
    yield FingerprintReadings(engine, _DESCRIBED, reader, clock), rests
    await engine.dispose()


async def _read_all(readings: FingerprintReadings, share: float = 1.0) -> list[RangeFingerprints]:
    ranges = readings.ranges("claim_requirements", 16, after_key="", load_share=share)
    return [found async for found in ranges]


async def test_mysql_works_at_most_its_share_of_the_time(
    chunk_reads: tuple[FingerprintReadings, _Rests],
) -> None:
    readings, rests = chunk_reads
    found = await _read_all(readings, 0.1)

    assert len(found) > 3
    assert {it.chunk.mysql_seconds for it in found[:-1]} == {1.0}
    # What the caller took between two chunks, half a second, counts as rest.
    assert rests.seconds == pytest.approx([8.5] * (len(found) - 1))


async def test_a_closed_reading_asks_no_more(
    chunk_reads: tuple[FingerprintReadings, _Rests], mysql_statements: list[str]
) -> None:
    readings, _ = chunk_reads
    ranges = readings.ranges("claim_requirements", 16, after_key="", load_share=1.0)
    async with aclosing(ranges):
        await anext(ranges)
    asked = len(mysql_statements)

    assert asked == 2
    with pytest.raises(StopAsyncIteration):
        await anext(ranges)
    assert len(mysql_statements) == asked


async def test_a_chunk_that_takes_too_long_is_tried_again_with_fewer_rows(
    chunk_reads: tuple[FingerprintReadings, _Rests], seeded_mainapp: MainAppDatabase
) -> None:
    readings, rests = chunk_reads
    usual = await _read_all(readings)
    with seeded_mainapp.connect() as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES claim_requirements WRITE")
        rests.then = lambda: cursor.execute("UNLOCK TABLES")
        found = await _read_all(readings)
    assert sum(found[0].row_counts) == sum(usual[0].row_counts) // 2
    assert sum(sum(it.row_counts) for it in found) == sum(sum(it.row_counts) for it in usual)


async def test_without_mysql_it_is_unavailable() -> None:
    engine = mysql_engine(
        "mysql://reader:x@127.0.0.1:1/nothing", pool_size=1, statement_timeout_seconds=1.0
    )
    clock = SystemClock()
    reader = ChunkReader(engine, _DESCRIBED, clock, ReplicaLag(engine, clock, 0.0))
    readings = FingerprintReadings(engine, _DESCRIBED, reader, clock)
    with pytest.raises(Unavailable, match="MAIN_APP_UNAVAILABLE"):
        await _read_all(readings)
    with pytest.raises(ServiceError, match="MAIN_APP_UNAVAILABLE"):
        await readings.owners("users", 1, [1])
    await engine.dispose()


async def test_a_client_that_disconnects_ends_the_reading(
    seeded_user_context: RunningUserContext,
    mysql_statements: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunk_reader, "MOST_ROWS", 20)
    request = pb.StreamRangeFingerprintsRequest(table="users", range_size=16, load_share=1e-6)
    call = seeded_user_context.stub.StreamRangeFingerprints(request)
    async for chunk in call:
        assert not chunk.last
        break
    call.cancel()
    end = waiting.deadline(20)
    while REGISTRY.get_sample_value("dialler_grpc_server_in_progress") != 0:
        assert time.monotonic() < end, "waited for the reading to end"
        await asyncio.sleep(0.005)

    assert sum("CRC32" in statement for statement in mysql_statements) == 1
