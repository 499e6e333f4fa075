"""Ways to Redis: one shared socket, and a cluster."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from devstack.processes import free_port
from devstack.servers import Redis
from servicekit.redis_client import redis_client
from services.user_context.cache.breaker import Breaker
from services.user_context.cache.cluster import ClusterLink
from services.user_context.cache.context_cache import ContextCache, Filling, Grant, Lifetimes
from services.user_context.cache.links import RedisUnavailable, ReplyError
from services.user_context.cache.redis import PipelinedLink
from services.user_context.cache.rendering import RenderedPart
from services.user_context.domain import Part, UserId
from services.user_context.metrics import CacheStats
from tests.fakes import waiting
from tests.fakes.clock import FakeClock
from tests.fakes.proxy import FaultProxy
from tests.fakes.redis_cluster import RedisCluster, running_redis_cluster

pytestmark = pytest.mark.integration


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    redis_server.flush()
    return redis_server.url()


async def test_concurrent_requests_get_their_own_replies(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=5.0)

    async def ask(number: int) -> list[Any]:
        return await link.execute([("ECHO", f"{number}-{part}") for part in range(number % 5 + 1)])

    replies = await asyncio.gather(*(ask(number) for number in range(500)))
    await link.stop()

    assert replies == [
        [f"{number}-{part}".encode() for part in range(number % 5 + 1)] for number in range(500)
    ]


async def test_a_refused_command_spoils_nothing_around_it(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=5.0)
    replies = await link.execute([("SET", "k", "v"), ("LPUSH", "k", "x"), ("GET", "k")])
    await link.stop()

    assert replies[0] == b"OK"
    assert isinstance(replies[1], ReplyError)
    assert str(replies[1]).startswith("WRONGTYPE")
    assert replies[2] == b"v"


async def test_values_of_any_bytes_and_sizes_pass(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=5.0)
    value = os.urandom(3_000_000)
    replies = await link.execute([("SET", b"\x00\r\n", value), ("GET", b"\x00\r\n")])
    await link.stop()

    assert replies[1] == value


async def test_the_logical_database_of_the_address_is_used(redis_server: Redis) -> None:
    first = PipelinedLink(redis_server.url(0), timeout_seconds=5.0)
    second = PipelinedLink(redis_server.url(3), timeout_seconds=5.0)
    await second.execute([("SET", "only in three", "1")])
    (reply,) = await first.execute([("GET", "only in three")])
    await second.execute([("DEL", "only in three")])
    await first.stop()
    await second.stop()

    assert reply is None


async def test_cancelling_one_request_leaves_the_others_their_replies(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=5.0)
    await link.start()
    given_up = asyncio.create_task(link.execute([("ECHO", "one"), ("ECHO", "two")]))
    patient = asyncio.create_task(link.execute([("ECHO", "three")]))
    await asyncio.sleep(0)
    given_up.cancel()

    assert await patient == [b"three"]
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await link.execute([("ECHO", "four")]) == [b"four"]
    await link.stop()


async def test_a_command_that_cannot_be_packed_takes_no_other_its_reply(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=5.0)
    await link.execute([("SET", "a", "mine")])

    with pytest.raises(UnicodeEncodeError):
        await link.execute([("ECHO", "of another"), ("GET", "\ud800")])
    beside, _ = await asyncio.gather(
        link.execute([("GET", "a")]),
        link.execute([("ECHO", "of another"), ("GET", "\ud800")]),
        return_exceptions=True,
    )

    assert beside == [b"mine"]
    assert await link.execute([("GET", "a")]) == [b"mine"]
    await link.stop()


async def _fill_the_memory(server: Redis) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", "1")


async def _lose_the_replicas(server: Redis) -> None:
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")


async def _fail_a_snapshot(server: Redis) -> None:
    server.ask("CONFIG", "SET", "save", '"3600 1"')
    # A folder where the snapshot belongs.
    (server.data / "dump.rdb").mkdir()
    server.ask("SET", "changed", "1")
    server.ask("BGSAVE")
    async with waiting.limit(20):
        while "rdb_last_bgsave_status:err" not in server.ask("INFO", "persistence"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _demote(server: Redis) -> None:
    server.ask("REPLICAOF", "127.0.0.1", str(free_port()))


async def _demote_although_writable(server: Redis) -> None:
    server.ask("CONFIG", "SET", "replica-read-only", "no")
    await _demote(server)


async def _demote_without_what_is_stale(server: Redis) -> None:
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    await _demote_although_writable(server)


REFUSALS = {
    "OOM": _fill_the_memory,
    "NOREPLICAS": _lose_the_replicas,
    "MISCONF": _fail_a_snapshot,
    "READONLY": _demote,
    "MASTERDOWN": _demote_without_what_is_stale,
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_server_that_refuses_writes_is_not_read_from_either(
    own_redis: Redis, code: str
) -> None:
    link = PipelinedLink(own_redis.url(), timeout_seconds=2.0)
    await link.execute([("SET", "a", "of the past")])
    await REFUSALS[code](own_redis)

    for ask in (link.confirm(), link.execute([("GET", "a")]), link.execute([("GET", "a")])):
        with pytest.raises(RedisUnavailable) as unavailable:
            await ask
        assert unavailable.value.code == code
    assert "connected_clients:1\r" in own_redis.ask("INFO", "clients")
    await link.stop()


async def test_a_replica_that_takes_writes_is_left_once_it_is_looked_at(own_redis: Redis) -> None:
    link = PipelinedLink(own_redis.url(), timeout_seconds=2.0)
    await link.start()
    await _demote_although_writable(own_redis)

    with pytest.raises(RedisUnavailable) as unavailable:
        await link.confirm()
    assert unavailable.value.code == "REPLICA"
    # Nothing of ours is left on it.
    async with waiting.limit(10):
        while "connected_clients:1\r" not in own_redis.ask("INFO", "clients"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    with pytest.raises(RedisUnavailable):
        await link.execute([("SET", "a", "forgotten")])
    await link.stop()


async def test_a_server_that_was_replica_meanwhile_is_of_another_run(own_redis: Redis) -> None:
    """What it missed in between is not known, so that nothing it has kept counts as fresh."""
    link = PipelinedLink(own_redis.url(), timeout_seconds=2.0)
    await link.confirm()
    before = link.run
    own_redis.ask("REPLICAOF", "127.0.0.1", str(free_port()))
    own_redis.ask("REPLICAOF", "NO", "ONE")

    with pytest.raises(RedisUnavailable):
        await link.confirm()
    await link.confirm()
    assert link.run != before
    await link.stop()


async def test_a_demoted_server_is_left_for_the_one_its_address_leads_to(
    own_redis: Redis, servers_folder: Path
) -> None:
    other = Redis(Path(tempfile.mkdtemp(dir=servers_folder)))
    other.start()
    async with FaultProxy("127.0.0.1", own_redis.port) as proxy:
        link = PipelinedLink(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=2.0)
        await link.execute([("SET", "a", "of the past")])
        other.ask("SET", "a", "present")
        proxy.lead_to("127.0.0.1", other.port)
        assert await link.execute([("GET", "a")]) == [b"of the past"]
        own_redis.ask("REPLICAOF", "127.0.0.1", str(other.port))

        with pytest.raises(RedisUnavailable):
            await link.execute([("GET", "a")])
        assert await link.execute([("GET", "a")]) == [b"present"]
        await link.stop()
    other.discard()


async def test_it_comes_back_after_a_restart_and_notices_it(own_redis: Redis) -> None:
    link = PipelinedLink(own_redis.url(), timeout_seconds=2.0)
    await link.start()
    before = link.run
    own_redis.kill()
    with pytest.raises(RedisUnavailable):
        await link.execute([("PING",)])
    own_redis.start()

    assert await link.execute([("PING",)]) == [b"PONG"]
    assert link.run != before
    assert len(link.run) == len(before) == 8
    await link.stop()


async def test_flushing_is_no_restart(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=2.0)
    await link.start()
    before = link.run
    await link.execute([("FLUSHALL",)])

    assert link.run == before
    await link.stop()


async def test_a_server_that_hangs_is_given_up_in_time_and_taken_up_again(own_redis: Redis) -> None:
    link = PipelinedLink(own_redis.url(), timeout_seconds=0.2)
    await link.start()
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        async with waiting.limit(5):
            results = await asyncio.gather(
                *(link.execute([("PING",)]) for _ in range(20)), return_exceptions=True
            )
            with pytest.raises(RedisUnavailable):
                await link.execute([("PING",)])
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)

    assert [type(result) for result in results] == [RedisUnavailable] * 20
    async with waiting.limit(10):
        while True:
            try:
                assert await link.execute([("PING",)]) == [b"PONG"]
                break
            except RedisUnavailable:
                continue
    await link.stop()


async def test_a_stopped_link_is_unavailable(redis_url: str) -> None:
    link = PipelinedLink(redis_url, timeout_seconds=1.0)
    await link.start()
    await link.stop()

    with pytest.raises(RedisUnavailable):
        await link.execute([("PING",)])


async def test_a_port_without_a_server_is_unavailable(redis_url: str) -> None:
    link = PipelinedLink(f"redis://127.0.0.1:{free_port()}", timeout_seconds=1.0)
    await link.start()

    with pytest.raises(RedisUnavailable):
        await link.execute([("PING",)])
    await link.stop()


async def test_a_password_is_sent_and_a_wrong_one_is_refused(own_redis: Redis) -> None:
    own_redis.ask("CONFIG", "SET", "requirepass", "s3cret")
    address = own_redis.url().removeprefix("redis://")
    right = PipelinedLink(f"redis://:s3cret@{address}", timeout_seconds=1.0)
    wrong = PipelinedLink(f"redis://:guess@{address}", timeout_seconds=1.0)

    assert await right.execute([("PING",)]) == [b"PONG"]
    with pytest.raises(RedisUnavailable) as refused:
        await wrong.execute([("PING",)])
    assert "guess" not in str(refused.value)
    await right.stop()
    await wrong.stop()


async def test_what_an_account_lacks_is_one_commands_but_for_the_check(own_redis: Redis) -> None:
    own_redis.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client", "-getdel")
    address = own_redis.url().removeprefix("redis://")
    link = PipelinedLink(f"redis://app:pw@{address}", timeout_seconds=2.0)
    refused, found = await link.execute([("GETDEL", "a"), ("GET", "a")])
    assert isinstance(refused, ReplyError)
    assert str(refused).startswith("NOPERM")
    assert found is None

    own_redis.ask("ACL", "SETUSER", "app", "-lpushx")
    for _ in range(2):
        with pytest.raises(RedisUnavailable) as unavailable:
            await link.execute([("GET", "a")])
        assert unavailable.value.code == "NOPERM"
    await link.stop()


@pytest.fixture
def cluster_url(redis_cluster: RedisCluster) -> str:
    redis_cluster.flush()
    return redis_cluster.url()


async def test_a_cluster_answers_for_keys_of_every_node(cluster_url: str) -> None:
    link = ClusterLink(cluster_url, timeout_seconds=2.0)
    await link.start()
    keys = [b"ctx:{%d}" % number for number in range(100)]

    stored = await link.execute([("HSET", key, "f", key) for key in keys])
    found = await link.execute([("HMGET", key, "f", "g") for key in keys])
    await link.stop()

    assert stored == [1] * 100
    assert found == [[key, None] for key in keys]


async def test_the_keys_of_every_node_of_a_cluster_are_listed(cluster_url: str) -> None:
    link = ClusterLink(cluster_url, timeout_seconds=2.0)
    keys = {b"listed:{%d}" % number for number in range(2_500)}
    await link.execute([("SET", key, "x") for key in [*keys, b"another"]])

    pages = [page async for page in link.keys("listed:{*}")]
    await link.stop()

    assert len(pages) > 2
    assert {key for page in pages for key in page} == keys


async def test_a_cluster_says_in_place_which_scripts_it_lacks(cluster_url: str) -> None:
    link = ClusterLink(cluster_url, timeout_seconds=2.0)
    script = "return ARGV[1]"
    replies = await link.execute(
        [("EVALSHA", "0" * 40, 1, "a", "x"), ("EVAL", script, 1, "b", "y")]
    )
    await link.stop()

    assert isinstance(replies[0], ReplyError)
    assert str(replies[0]).startswith("NOSCRIPT")
    assert replies[1] == b"y"


async def test_a_node_of_a_cluster_that_refuses_writes_is_not_read_from(
    cluster_url: str, redis_cluster: RedisCluster
) -> None:
    link = ClusterLink(cluster_url, timeout_seconds=2.0)
    keys = [b"ctx:{%d}" % number for number in range(100)]
    await link.execute([("HSET", key, "f", "1") for key in keys])
    await link.confirm()
    refusing = redis_cluster.primaries[1]
    refusing.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    answers = await asyncio.gather(
        *(link.execute([("HMGET", key, "f")]) for key in keys), return_exceptions=True
    )
    codes = {answer.code for answer in answers if isinstance(answer, RedisUnavailable)}
    assert codes == {"NOREPLICAS"}
    assert [b"1"] in [answer[0] for answer in answers if isinstance(answer, list)]
    with pytest.raises(RedisUnavailable):
        await link.confirm()
    refusing.ask("CONFIG", "SET", "min-replicas-to-write", "0")

    await link.confirm()
    assert await link.execute([("HMGET", key, "f") for key in keys]) == [[b"1"]] * 100
    await link.stop()


async def test_contexts_are_fenced_in_a_cluster_as_anywhere(cluster_url: str) -> None:
    link = ClusterLink(cluster_url, timeout_seconds=2.0)
    await link.start()
    clock, stats = FakeClock(), CacheStats()
    cache = ContextCache(
        link,
        breaker=Breaker(clock),
        clock=clock,
        lifetimes=Lifetimes(main_fresh=900, call_fresh=300, absent_fresh=30, kept=3_600),
        stats=stats,
    )
    people = [UserId(number) for number in range(1, 121)]
    rendered = RenderedPart(b"message", b"json", 1)

    async def fill(version: int, grants: dict[UserId, Grant]) -> int:
        forms = {
            one: cache.form(Part.MAIN, Filling(one, version, rendered), grants[one].run, 0)
            for one in people
        }
        await cache.fill(Part.MAIN, forms, grants)
        held = await cache.read_many(people, as_json=True)
        return sum(one.is_main_fresh for one in held)

    early = await cache.begin(Part.MAIN, people, 5)
    assert len(early) == len(people)
    assert await fill(5, early) == len(people)
    late = await cache.invalidate(Part.MAIN, people, 6)
    assert await fill(5, early) == 0
    assert await fill(6, late) == len(people)
    await cache.raise_fences(Part.MAIN, dict.fromkeys(people[:20], 7))
    assert await fill(6, late) == len(people) - 20
    assert stats.fenced_fills == len(people) + 20
    await link.stop()


@pytest.fixture
def replicated_cluster(servers_folder: Path) -> Iterator[RedisCluster]:
    """A cluster of the test's own in which a dead primary is soon replaced."""
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    with running_redis_cluster(folder, with_replicas=True, fails_after_seconds=2.0) as cluster:
        yield cluster


async def _until_confirmed(link: ClusterLink) -> None:
    async with waiting.limit(30):
        while True:
            try:
                await link.confirm()
            except RedisUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_what_a_promoted_replica_has_is_not_fresh_even_when_all_is_trusted(
    replicated_cluster: RedisCluster,
) -> None:
    """It may lack invalidations that its predecessor has taken."""
    link = ClusterLink(replicated_cluster.url(), timeout_seconds=2.0)
    await link.start()
    cache, person = _cache(link), UserId(1)
    part = RenderedPart(b"message", b"json", 1)

    async def fill(version: int) -> None:
        grants = await cache.begin(Part.MAIN, [person], version)
        form = cache.form(Part.MAIN, Filling(person, version, part), grants[person].run, 0)
        await cache.fill(Part.MAIN, {person: form}, grants)

    await fill(1)
    assert (await cache.read_one(person, as_json=True)).is_main_fresh
    (before,) = await link.execute([("HGETALL", "ctx:{1}")])
    await cache.invalidate(Part.MAIN, [person], 2)
    victim = replicated_cluster.primary_of("ctx:{1}")
    victim.kill()
    await _until_confirmed(link)
    assert "role:master" in replicated_cluster.successor_of(victim).ask("INFO", "replication")

    # As if the invalidation had not been copied any more.
    fields = [word for pair in before.items() for word in pair]
    await link.execute([("HSET", "ctx:{1}", *fields)])
    cache.trust(cache.losses, inf)
    held = await cache.read_one(person, as_json=True)
    assert held.main is not None
    assert not held.is_main_fresh
    await fill(3)
    assert (await cache.read_one(person, as_json=True)).is_main_fresh
    await link.stop()


async def test_a_pipeline_finds_the_successor_of_a_dead_node(
    replicated_cluster: RedisCluster,
) -> None:
    """redis-py itself would ask the dead node for ever."""
    client = redis_client(replicated_cluster.url(), timeout_seconds=2.0)

    async def store() -> None:
        pipe = client.pipeline(transaction=False)
        pipe.set("a", b"b")
        await pipe.execute()

    await store()
    replicated_cluster.primary_of("a").kill()
    async with waiting.limit(30):
        while True:
            try:
                await store()
            except RedisError:
                await asyncio.sleep(0.05)
            else:
                break
    await client.aclose()


async def test_keys_that_move_to_another_node_are_followed_and_stay_fresh(
    replicated_cluster: RedisCluster,
) -> None:
    link = ClusterLink(replicated_cluster.url(), timeout_seconds=2.0)
    await link.start()
    cache, people = _cache(link), [UserId(1), UserId(2)]
    part = RenderedPart(b"message", b"json", 1)
    grants = await cache.begin(Part.MAIN, people, 1)
    forms = {
        one: cache.form(Part.MAIN, Filling(one, 1, part), grants[one].run, 0) for one in people
    }
    await cache.fill(Part.MAIN, forms, grants)
    old = replicated_cluster.primary_of("ctx:{1}")
    new = next(node for node in replicated_cluster.primaries if node is not old)
    slot = old.ask("CLUSTER", "KEYSLOT", "ctx:{1}")[1:].strip()
    losses = cache.losses

    async def still_fresh() -> bool:
        held = await cache.read_many(people, as_json=True)
        return all(one.is_main_fresh for one in held)

    new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old.node_id)
    old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new.node_id)
    assert await still_fresh()
    old.ask("MIGRATE", "127.0.0.1", str(new.port), "ctx:{1}", "0", "5000")
    # The old node says ASK.
    assert await still_fresh()
    for node in (new, old):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", new.node_id)
    # And now MOVED.
    assert await still_fresh()
    assert cache.losses == losses
    await link.stop()


async def test_a_cluster_is_found_by_its_address_when_no_known_node_is_left(
    servers_folder: Path, redis_cluster: RedisCluster
) -> None:
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    with running_redis_cluster(folder) as former:
        first = former.primaries[0]
        async with FaultProxy(first.host, first.port) as address:
            link = ClusterLink(f"redis+cluster://127.0.0.1:{address.port}", timeout_seconds=2.0)
            await link.confirm()
            for node in former.primaries:
                node.kill()
            address.lead_to(redis_cluster.primaries[1].host, redis_cluster.primaries[1].port)
            await _until_confirmed(link)
            assert (await link.execute([("SET", "a", "b"), ("GET", "a")]))[1] == b"b"
            await link.stop()


def _cache(link: ClusterLink) -> ContextCache:
    clock = FakeClock()
    return ContextCache(
        link,
        breaker=Breaker(clock),
        clock=clock,
        lifetimes=Lifetimes(main_fresh=900, call_fresh=300, absent_fresh=30, kept=3_600),
        stats=CacheStats(),
    )


async def test_nothing_is_fresh_after_a_new_connection_until_nothing_is_due(
    own_redis: Redis,
) -> None:
    """Another process may have met the same gap with an invalidation, and have kept it."""
    link = PipelinedLink(own_redis.url(), timeout_seconds=2.0)
    clock = FakeClock()
    cache = ContextCache(
        link,
        breaker=Breaker(clock),
        clock=clock,
        lifetimes=Lifetimes(main_fresh=900, call_fresh=300, absent_fresh=30, kept=3_600),
        stats=CacheStats(),
    )
    person, part = UserId(1), RenderedPart(b"message", b"json", 1)
    await link.start()
    grants = await cache.begin(Part.MAIN, [person], 1)
    form = cache.form(Part.MAIN, Filling(person, 1, part), grants[person].run, 0)
    await cache.fill(Part.MAIN, {person: form}, grants)
    assert (await cache.read_one(person, as_json=True)).is_main_fresh

    own_redis.ask("CLIENT", "KILL", "TYPE", "normal")
    await asyncio.sleep(0.1)
    held = await cache.read_one(person, as_json=True)
    assert held.main
    assert not held.is_main_fresh
    cache.trust(cache.losses - 1, inf)
    assert not (await cache.read_one(person, as_json=True)).is_main_fresh
    cache.trust(cache.losses, inf)
    assert (await cache.read_one(person, as_json=True)).is_main_fresh
    await link.stop()


async def test_a_cluster_that_is_not_there_is_unavailable() -> None:
    link = ClusterLink(f"redis+cluster://127.0.0.1:{free_port()}", timeout_seconds=1.0)

    with pytest.raises(RedisUnavailable):
        await link.execute([("GET", "a")])
    with pytest.raises(RedisUnavailable):
        _ = [page async for page in link.keys("*")]
    await link.stop()
