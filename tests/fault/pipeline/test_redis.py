"""A Redis that stays reachable and refuses writes while changes flow."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from devstack.comparison import differences
from devstack.desk import Desk
from devstack.servers import Redis
from devstack.stack import wait_until
from tests.fault.pipeline.comparison import await_agreement
from tests.fault.pipeline.redis_name import NamedRedisStack
from tests.fault.pipeline.storm import Storm

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.fixture
def other(stack: NamedRedisStack) -> Iterator[Redis]:
    """A second server; at the end the first one leads again."""
    server = Redis(Path(tempfile.mkdtemp(dir=stack.folder)))
    server.start()
    yield server
    stack.redis.ask("REPLICAOF", "NO", "ONE")
    stack.lead_to(stack.redis)
    server.discard()


def _fail_over(stack: NamedRedisStack, old: Redis, new: Redis) -> None:
    """Promote a replica as a managed Redis does: the name changes, open connections stay."""
    new.ask("REPLICAOF", "127.0.0.1", str(old.port))
    wait_until(lambda: "master_link_status:up" in new.ask("INFO", "replication"), 30, "the replica")
    new.ask("REPLICAOF", "NO", "ONE")
    stack.lead_to(new)
    old.ask("REPLICAOF", "127.0.0.1", str(new.port))


def test_redis_is_demoted_with_its_connections_left_open(
    stack: NamedRedisStack, other: Redis
) -> None:
    with Desk(stack.addresses, "supervisor") as desk, desk.events() as events:
        with Storm(stack, "demoted") as storm:
            for old, new in ((stack.redis, other), (other, stack.redis)):
                _fail_over(stack, old, new)
                storm.rages()
                # Of a change made after the fail-over: those before are long in the desk.
                since = time.time()
                events.wait_for(
                    lambda event, since=since: _seconds(event) > since  # type: ignore[misc]
                )
                storm.rages()
        await_agreement(stack)
        _await_told(desk, None)


def _seconds(event: dict[str, Any]) -> float:
    occurred_at = event.get("occurred_at")
    return datetime.fromisoformat(occurred_at).timestamp() if occurred_at else 0.0


def _fill_the_memory(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.ask("CONFIG", "SET", "maxmemory", "1")


def _empty_the_memory(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "maxmemory", str(512 << 20))
    redis.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")


def _fail_a_snapshot(redis: Redis) -> None:
    # A folder where the snapshot belongs; a server that was stopped before has left one.
    (redis.data / "dump.rdb").unlink(missing_ok=True)
    (redis.data / "dump.rdb").mkdir()
    redis.ask("CONFIG", "SET", "save", '"3600 1"')
    redis.ask("BGSAVE")
    wait_until(
        lambda: "rdb_last_bgsave_status:err" in redis.ask("INFO", "persistence"), 30, "a failure"
    )


def _save_nothing(redis: Redis) -> None:
    redis.ask("CONFIG", "SET", "save", '""')
    (redis.data / "dump.rdb").rmdir()


REFUSALS: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object]]] = {
    "OOM": (_fill_the_memory, _empty_the_memory),
    "MISCONF": (_fail_a_snapshot, _save_nothing),
    "NOREPLICAS": (
        lambda redis: redis.ask("CONFIG", "SET", "min-replicas-to-write", "1"),
        lambda redis: redis.ask("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_redis_refuses_writes(stack: NamedRedisStack, code: str) -> None:
    refuse, relent = REFUSALS[code]
    with Desk(stack.addresses, "supervisor") as desk:
        refuse(stack.redis)
        try:
            with Storm(stack, f"refuses {code}") as storm:
                storm.rages()
                _await_told(desk, code)
            health = desk.get("/v1/pipeline")["health"]
            assert not health["fresh"]
            assert code in health["summary"]
            # Of connections that an earlier test has cut each is first met once.
            wait_until(lambda: _readiness(desk) == code, 30, "readiness to say why")
            # What desks read is right all the same.
            wait_until(lambda: not differences(stack), 60, "agreement meanwhile")
        finally:
            relent(stack.redis)
        await_agreement(stack)
        _await_told(desk, None)


def _readiness(desk: Desk) -> str:
    return str(desk.client.get("/readyz").json()["dependencies"]["redis"]["state"])


def _await_told(desk: Desk, code: str | None) -> None:
    """Wait until the gateway reports it for the events and user_context for the cache."""

    def is_told() -> bool:
        # By every copy of the gateway, and of user_context, which answer in turn.
        states = [desk.get("/v1/pipeline") for _ in range(4)]
        told = {(it["events_lost"], it["cache"]["distrust_reason"]) for it in states}
        return told == {(code, code)}

    wait_until(is_told, 30, f"{code} to be told")
