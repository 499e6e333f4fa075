"""What must never leave MySQL is in nothing that does."""

import logging

import orjson
import pytest
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.mainapp_database import MainAppDatabase
from devstack.people import CANARY
from mainapp import description
from services.user_context.domain import OF_CLAIMS, OF_PEOPLE
from tests.fakes.running_user_context import RunningUserContext, link_to

pytestmark = pytest.mark.integration

ALL_PEOPLE = range(1, 301)
FINGERPRINTED = (*OF_PEOPLE, *OF_CLAIMS)
_EVER = pb.StreamChangedUsersRequest(since=Timestamp())


async def _all_answers(service: RunningUserContext) -> bytes:
    """The bytes of every kind of answer about all people."""
    stub = service.stub
    batch = pb.BatchGetUserContextsRequest(user_ids=ALL_PEOPLE)
    answers: list[Message] = [
        await stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=ALL_PEOPLE)),
        await stub.ReadUserFacts(pb.ReadUserFactsRequest(user_ids=ALL_PEOPLE)),
        await stub.BatchGetUserContexts(batch),
        await stub.GetUserContext(pb.GetUserContextRequest(user_id=1)),
        await stub.ListUserIds(pb.ListUserIdsRequest()),
        *[block async for block in stub.StreamUserFacts(pb.StreamUserFactsRequest())],
        await stub.ReadRowFingerprints(pb.ReadRowFingerprintsRequest(user_ids=ALL_PEOPLE)),
        await stub.InspectCachedContexts(pb.InspectCachedContextsRequest(user_ids=ALL_PEOPLE)),
        *[it async for it in stub.StreamCachedContexts(pb.StreamCachedContextsRequest())],
        *[block async for block in stub.StreamChangedUsers(_EVER)],
    ]
    for table in FINGERPRINTED:
        ranges = pb.StreamRangeFingerprintsRequest(table=table, range_size=100)
        answers += [block async for block in stub.StreamRangeFingerprints(ranges)]
        owners = pb.ReadOwnerFingerprintsRequest(table=table, range_size=100, ranges=[0])
        answers.append(await stub.ReadOwnerFingerprints(owners))
    batch.view = pb.CONTEXT_VIEW_JSON
    answers.append(await stub.BatchGetUserContexts(batch))
    return b"\n".join(answer.SerializeToString() for answer in answers)


async def _everything_cached(redis_url: str) -> bytes:
    link = link_to(redis_url)
    keys = [key async for page in link.keys("*") for key in page]
    hashes = await link.execute([("HGETALL", key) for key in keys])
    await link.stop()
    assert len(keys) == len(ALL_PEOPLE)
    return b"\n".join(b"\n".join(one) for one in hashes)


async def test_no_canary_is_answered_cached_or_logged(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    redis_url: str,
    mysql_statements: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    planted = seeded_mainapp.rows(
        "SELECT COUNT(*) FROM users WHERE password LIKE %s", [f"%{CANARY}%"]
    )
    assert planted[0][0] > 0

    answered = await _all_answers(seeded_user_context)
    cached = await _everything_cached(redis_url)
    logged = "\n".join(str(vars(record)) for record in caplog.records)

    assert len(answered) > 100_000
    for where in (answered, cached, logged.encode(), "\n".join(mysql_statements).encode()):
        assert CANARY.encode() not in where
        for column in description.load().secret_columns - {"password"}:
            assert column.encode() not in where


async def test_nothing_personal_is_logged(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    await _all_answers(seeded_user_context)
    logged = orjson.dumps([str(vars(record)) for record in caplog.records]).decode()

    people = seeded_mainapp.rows("SELECT email_address, last_name, phone_number FROM users")
    for email, last_name, phone in people:
        assert email not in logged
        assert not phone or phone not in logged
        assert not last_name or f"{last_name}'" not in logged
