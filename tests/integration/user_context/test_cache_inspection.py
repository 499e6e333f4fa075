"""What the cache would serve as fresh, and copies altered behind its back."""

from collections.abc import AsyncIterator, Callable

import pytest
from dialler.user_context.v1 import user_context_pb2 as pb

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.servers import Redis
from servicekit.errors import Unavailable
from servicekit.redis_client import redis_client
from services.user_context.cache.fragments import HEADER_BYTES
from services.user_context.cache.links import RedisLink
from tests.fakes.running_user_context import RunningUserContext, link_to, running_user_context

pytestmark = pytest.mark.integration

_ALL_PEOPLE = range(1, 301)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisLink]:
    link = link_to(redis_url)
    yield link
    await link.stop()


async def _refresh(service: RunningUserContext, *user_ids: int) -> dict[int, int]:
    answer = await service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=user_ids))
    return {facts.user_id: facts.fingerprint for facts in answer.facts}


async def _inspect(service: RunningUserContext, *user_ids: int) -> dict[int, tuple[int, bool]]:
    request = pb.InspectCachedContextsRequest(user_ids=user_ids)
    answer = await service.stub.InspectCachedContexts(request)
    found = {one.user_id: (one.fingerprint, one.intact) for one in answer.contexts}
    assert len(found) == len(answer.contexts)
    return found


async def test_everything_fresh_is_listed_with_the_fingerprint_of_its_reading(
    seeded_user_context: RunningUserContext,
) -> None:
    service = seeded_user_context
    assert await _inspect(service, *_ALL_PEOPLE) == {}
    refreshed = await _refresh(service, *range(1, 200), 10**9)
    # A copy that a miss has filled says the same as one that a refresh has.
    await service.stub.GetUserContext(pb.GetUserContextRequest(user_id=250))

    found = await _inspect(service, *_ALL_PEOPLE, 10**9)

    assert refreshed[10**9] == 0
    refreshed |= await _refresh(service, 250)
    assert found == {user_id: (value, True) for user_id, value in refreshed.items()}


async def _inspect_all(service: RunningUserContext) -> dict[int, tuple[int, bool]]:
    found: dict[int, tuple[int, bool]] = {}
    async for page in service.stub.StreamCachedContexts(pb.StreamCachedContextsRequest()):
        altered = set(page.altered_user_ids)
        pairs = zip(page.user_ids, page.fingerprints, strict=True)
        found |= {user_id: (fingerprint, user_id not in altered) for user_id, fingerprint in pairs}
    return found


@pytest.mark.each_redis
async def test_every_cached_person_is_streamed_whatever_else_is_stored(
    seeded_user_context: RunningUserContext, redis: RedisLink
) -> None:
    service = seeded_user_context
    assert await _inspect_all(service) == {}
    # More than one page of keys, and keys that only look like ours.
    refreshed = await _refresh(service, *range(1, 900), 10**9, 2**64 - 1)
    refreshed |= await _refresh(service, *range(900, 1_500))
    strangers = (b"ctx:{}", b"ctx:{x}", b"ctx:{" + b"9" * 40 + b"}", b"ctx:{7}:more", b"other")
    await redis.execute([("SET", key, "anything") for key in strangers])
    (raw,) = await redis.execute([("HGET", b"ctx:{6}", "mj")])
    await redis.execute([("HSET", b"ctx:{6}", "mj", raw + b"x")])

    found = await _inspect_all(service)

    assert found.pop(6) == (refreshed.pop(6), False)
    assert found == {user_id: (value, True) for user_id, value in refreshed.items()}


_ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "a letter of the content": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "the end cut off": lambda raw: raw[:-3],
    "something more": lambda raw: raw + b"x",
    "another etag": lambda raw: raw.replace(
        raw[HEADER_BYTES - 18 : HEADER_BYTES - 2], b"no hexadecimal !", 1
    ),
}


@pytest.mark.parametrize("field", ["mp", "mj"])
@pytest.mark.parametrize("alteration", _ALTERATIONS)
async def test_an_altered_copy_is_found(
    seeded_user_context: RunningUserContext, redis: RedisLink, alteration: str, field: str
) -> None:
    await _refresh(seeded_user_context, 5, 6, 7)
    (raw,) = await redis.execute([("HGET", b"ctx:{6}", field)])
    await redis.execute([("HSET", b"ctx:{6}", field, _ALTERATIONS[alteration](raw))])

    found = await _inspect(seeded_user_context, *_ALL_PEOPLE)

    assert {user_id: is_intact for user_id, (_, is_intact) in found.items()} == {
        5: True,
        6: False,
        7: True,
    }
    await _refresh(seeded_user_context, 6)
    assert (await _inspect(seeded_user_context, 6))[6][1]


async def test_a_copy_with_a_form_gone_is_not_intact(
    seeded_user_context: RunningUserContext, redis: RedisLink
) -> None:
    await _refresh(seeded_user_context, 5, 6, 7, 8)
    await redis.execute([("HDEL", b"ctx:{5}", "mp"), ("HDEL", b"ctx:{6}", "mj")])
    await redis.execute([("HDEL", b"ctx:{7}", "mp", "mj"), ("HDEL", b"ctx:{8}", "ms")])

    found = await _inspect(seeded_user_context, 5, 6, 7, 8)

    assert {user_id: is_intact for user_id, (_, is_intact) in found.items()} == {
        5: False,
        6: False,
        8: False,
    }


async def test_what_would_not_be_served_as_fresh_is_not_listed(
    seeded_user_context: RunningUserContext, redis: RedisLink
) -> None:
    await _refresh(seeded_user_context, 5, 6, 7, 8)
    above = b"%020d" % 10**12
    await redis.execute(
        [
            ("HSET", b"ctx:{5}", "mf", above),
            ("HDEL", b"ctx:{6}", "mf"),
            ("SET", b"ctx:{8}", "something else"),
        ]
    )

    assert (await _inspect(seeded_user_context, *_ALL_PEOPLE)).keys() == {7}


async def test_a_copy_past_its_time_is_not_listed(
    seeded_mainapp: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    async with running_user_context(
        mysql_url=seeded_mainapp.url,
        postgres_url=postgres_database.url,
        redis_url=redis_url,
        context_fresh_seconds=0.000_1,
    ) as service:
        await _refresh(service, 5)

        assert await _inspect(service, 5) == {}


async def test_the_scripts_are_sent_again_to_a_server_that_lost_them(
    seeded_user_context: RunningUserContext, redis_url: str
) -> None:
    await _refresh(seeded_user_context, 5)
    async with redis_client(redis_url, timeout_seconds=5.0) as client:
        await client.script_flush()

    assert (await _inspect(seeded_user_context, 5)).keys() == {5}


async def test_without_redis_it_is_unavailable(
    seeded_mainapp: MainAppDatabase, postgres_database: PostgresDatabase, own_redis: Redis
) -> None:
    async with running_user_context(
        mysql_url=seeded_mainapp.url,
        postgres_url=postgres_database.url,
        redis_url=own_redis.url(),
    ) as service:
        await _refresh(service, 5)
        own_redis.stop()
        with pytest.raises(Unavailable, match="CACHE_UNAVAILABLE"):
            await _inspect(service, 5)
        with pytest.raises(Unavailable, match="CACHE_UNAVAILABLE"):
            await _inspect_all(service)
