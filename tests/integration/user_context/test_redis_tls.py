"""Redis over verified TLS, one server and a cluster: the cache's link and the clients of others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from servicekit.errors import Unavailable
from servicekit.event_stream import EventStream
from servicekit.redis_client import redis_client
from services.user_context.app import redis_link
from services.user_context.cache.links import RedisUnavailable
from services.user_context.settings import UserContextSettings
from tests.fakes.certificates import Authority
from tests.fakes.redis_tls import TlsRedis, running_tls_cluster, running_tls_redis

pytestmark = pytest.mark.integration


@pytest.fixture(params=[running_tls_redis, running_tls_cluster], ids=["server", "cluster"])
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TlsRedis]:
    with request.param(tmp_path / "redis") as found:
        yield found


def _settings(url: str, ca_file: Path | None) -> UserContextSettings:
    return UserContextSettings(
        mysql_url=SecretStr("mysql://a:b@127.0.0.1/c"),
        postgres_url=SecretStr("postgresql://a:b@127.0.0.1/c"),
        redis_url=SecretStr(url),
        redis_tls_ca_file=ca_file,
        redis_seconds=5.0,
        queue_target="127.0.0.1:1",
    )


async def test_what_the_authority_has_signed_is_trusted(redis: TlsRedis) -> None:
    link = redis_link(_settings(redis.url, redis.ca_file))
    await link.confirm()
    assert (await link.execute([("SET", "a", "b"), ("GET", "a")]))[1] == b"b"
    await link.stop()
    async with redis_client(redis.url, timeout_seconds=5.0, tls_ca_file=redis.ca_file) as client:
        stream = EventStream(client)
        assert await stream.read(await stream.position(), block_seconds=0, count=1) == []


@pytest.mark.parametrize(
    "trusted",
    [lambda _: None, lambda folder: Authority(folder, "another").file],
    ids=["the system", "another"],
)
async def test_what_another_has_signed_is_not_and_it_is_told(
    redis: TlsRedis, tmp_path: Path, trusted: Callable[[Path], Path | None]
) -> None:
    ca_file = trusted(tmp_path)
    link = redis_link(_settings(redis.url, ca_file))
    with pytest.raises(RedisUnavailable) as unavailable:
        await link.execute([("GET", "a")])
    assert unavailable.value.code == "TLS"
    await link.stop()
    client = redis_client(redis.url, timeout_seconds=5.0, tls_ca_file=ca_file)
    with pytest.raises(Unavailable) as refused:
        await EventStream(client).position()
    await client.aclose()
    assert refused.value.metadata == {"redis": "TLS"}
