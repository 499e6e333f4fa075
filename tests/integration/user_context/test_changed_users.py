"""People of rows that say they were changed, whichever table the rows are in."""

from datetime import UTC, datetime, timedelta

import pytest
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.mainapp_database import MainAppDatabase
from servicekit.errors import InvalidArgument
from services.user_context.mysql import chunk_reader
from tests.fakes.running_user_context import RunningUserContext, insertion

pytestmark = pytest.mark.integration

# Later than any row of the seed.
_SINCE = datetime(2031, 1, 1, 12, 0, 0, tzinfo=UTC)
_TABLES = ("users", "claims", "claim_requirements", "claim_vehicle_packages")


def _timestamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


async def _changed(
    service: RunningUserContext, since: datetime = _SINCE
) -> list[pb.StreamChangedUsersResponse]:
    request = pb.StreamChangedUsersRequest(since=_timestamp(since))
    return [chunk async for chunk in service.stub.StreamChangedUsers(request)]


def _people(chunks: list[pb.StreamChangedUsersResponse]) -> set[int]:
    assert all(len(set(chunk.user_ids)) == len(chunk.user_ids) for chunk in chunks)
    return {user_id for chunk in chunks for user_id in chunk.user_ids}


def _owner_of_one(main_app: MainAppDatabase, table: str, place: int) -> tuple[object, int]:
    """A row's key and its person."""
    ((key, user_id),) = main_app.rows(
        f"SELECT it.id, claims.user_id FROM {table} AS it JOIN claims ON claims.id = it.claim_id"
        f" ORDER BY it.id LIMIT 1 OFFSET {place}"
    )
    return key, user_id


@pytest.mark.parametrize("rows", [20_000, 50])
async def test_a_changed_row_of_every_table_leads_to_its_person(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
) -> None:
    monkeypatch.setattr(chunk_reader, "MOST_ROWS", rows)
    first = await _changed(seeded_user_context)
    assert _people(first) == set()
    expected = {11, 12}
    later = _SINCE.replace(tzinfo=None)
    seeded_mainapp.execute("UPDATE users SET updated_at = %s WHERE id = 11", [later])
    seeded_mainapp.execute("UPDATE claims SET created_at = %s WHERE user_id = 12", [later])
    for place, table in enumerate(("claim_requirements", "claim_vehicle_packages")):
        key, user_id = _owner_of_one(seeded_mainapp, table, 10 * place)
        seeded_mainapp.execute(f"UPDATE {table} SET updated_at = %s WHERE id = %s", [later, key])
        expected.add(user_id)
    early = later - timedelta(seconds=1)
    seeded_mainapp.execute("UPDATE users SET updated_at = %s WHERE id = 13", [early])
    seeded_mainapp.execute("UPDATE users SET updated_at = NULL WHERE id = 14")

    chunks = await _changed(seeded_user_context)

    assert _people(chunks) == expected
    # Rows have whole seconds: one written in the same second may have come after the moment.
    assert _people(await _changed(seeded_user_context, _SINCE + timedelta(seconds=0.7))) == expected
    counts = [seeded_mainapp.rows(f"SELECT COUNT(*) FROM {it}")[0][0] for it in _TABLES]
    assert sum(chunk.rows_read for chunk in chunks) == sum(counts)
    # Two for a chunk, three for a table's last unless it is empty.
    last = sum(count % rows != 0 for count in counts)
    assert sum(chunk.statements for chunk in first) == 2 * len(first) + last
    # Where full chunks end is known by now; two statements more lead to people.
    full = len(chunks) - len(_TABLES)
    assert sum(chunk.statements for chunk in chunks) == 2 * len(chunks) + last + 2 - full


async def test_rows_without_their_claim_lead_to_no_person(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    with mainapp_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        cursor.execute(
            *insertion(
                "claim_requirements", id="r" * 36, claim_id=9, type="cfa", created_at="2035-01-01"
            )
        )

    chunks = await _changed(user_context)

    assert [(chunk.rows_read, list(chunk.user_ids)) for chunk in chunks if chunk.rows_read] == [
        (1, [])
    ]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.StreamChangedUsersRequest(), "SINCE_MISSING"),
        (pb.StreamChangedUsersRequest(since=Timestamp(), load_share=2), "LOAD_SHARE_OUT_OF_RANGE"),
    ],
)
async def test_what_cannot_be_is_refused(
    user_context: RunningUserContext, request_: pb.StreamChangedUsersRequest, reason: str
) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        async for _ in user_context.stub.StreamChangedUsers(request_):
            pass
    beyond = pb.StreamChangedUsersRequest()
    beyond.since.seconds = 2**62
    with pytest.raises(InvalidArgument, match="SINCE_INVALID"):
        async for _ in user_context.stub.StreamChangedUsers(beyond):
            pass
