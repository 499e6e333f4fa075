"""How long a search takes, beside one that has no index: the main app's MySQL may get none."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
from dialler.user_context.v1 import user_context_pb2 as pb
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub

from bench.measurement import BenchResult, load_average, summarise
from devstack.mysql_connection import connect
from devstack.processes import DidNotStart
from devstack.stack import Stack

if TYPE_CHECKING:
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub

ROUNDS = 5
SEARCHES = 20
SCANS = 3
# The words of all names are indexed in the background, a quarter of the time.
TAKEN_UP_SECONDS = 1_800.0
_SHOWN = "SELECT id, first_name, last_name, phone_number FROM users WHERE"


@dataclass(frozen=True)
class SearchKind:
    """A way to search: what we are asked, and what MySQL would be by itself."""

    name: str
    ours: Callable[[SearchedUser], pb.SearchUsersRequest]
    scan: str
    values: Callable[[SearchedUser], tuple[str, ...]]


@dataclass(frozen=True)
class SearchedUser:
    """A user to search for."""

    first_name: str
    last_name: str
    phone_number: str


KINDS = (
    SearchKind(
        "phone",
        lambda it: pb.SearchUsersRequest(phone=it.phone_number),
        f"{_SHOWN} REPLACE(phone_number, ' ', '') LIKE %s LIMIT 20",
        lambda it: (f"%{it.phone_number[-10:]}",),
    ),
    SearchKind(
        "name",
        lambda it: pb.SearchUsersRequest(name=f"{it.last_name[:3]} {it.first_name[:2]}"),
        f"{_SHOWN} last_name LIKE %s AND first_name LIKE %s ORDER BY id DESC LIMIT 20",
        lambda it: (f"%{it.last_name[:3]}%", f"%{it.first_name[:2]}%"),
    ),
)


async def measure(stack: Stack) -> list[BenchResult]:
    """Milliseconds a search, one after the other."""
    people = _people(stack)
    conditions = f"{_count(stack):,} people; one after the other; load {load_average()}"
    results = []
    async with grpc.aio.insecure_channel(stack.addresses.grpc["user_context"]) as channel:
        stub = UserContextServiceStub(channel)
        await _taken_up(stub)
        for kind in KINDS:
            ours, floors = [], []
            for _ in range(ROUNDS):
                ours.append(await _search(stub, kind, people))
                floors.append(await asyncio.to_thread(_scan, stack, kind, people))
            results.append(
                summarise(
                    f"search_{kind.name}",
                    ours,
                    floors,
                    unit="ms",
                    conditions=conditions,
                    floor_name="the same asked of users in MySQL, which has no index for it",
                )
            )
    return results


async def _search(
    stub: UserContextServiceAsyncStub, kind: SearchKind, people: list[SearchedUser]
) -> float:
    wanted = random.sample(people, SEARCHES)
    began = time.perf_counter()
    for person in wanted:
        answer = await stub.SearchUsers(kind.ours(person), timeout=30)
        if not answer.users:
            raise RuntimeError(f"a user was not found by {kind.name}")
    return (time.perf_counter() - began) / SEARCHES * 1e3


def _scan(stack: Stack, kind: SearchKind, people: list[SearchedUser]) -> float:
    wanted = random.sample(people, SCANS)
    with connect(stack.addresses.mysql_reader) as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        for person in wanted:
            cursor.execute(kind.scan, kind.values(person))
            cursor.fetchall()
    return (time.perf_counter() - began) / SCANS * 1e3


async def _taken_up(stub: UserContextServiceAsyncStub) -> None:
    """Return once every user can be found by name."""
    given_up_at = time.monotonic() + TAKEN_UP_SECONDS
    no_user = pb.SearchUsersRequest(name="qqqqqqqq")
    while not (await stub.SearchUsers(no_user, timeout=30)).is_complete:
        if time.monotonic() > given_up_at:
            raise DidNotStart("the names of all people were not taken up in time")
        await asyncio.sleep(1.0)


def _people(stack: Stack) -> list[SearchedUser]:
    query = (
        "SELECT first_name, last_name, phone_number FROM users"
        " WHERE phone_number REGEXP '^07[0-9]{9}$' AND LENGTH(last_name) > 3"
        " AND LENGTH(first_name) > 2 LIMIT 1000"
    )
    return [SearchedUser(*row) for row in _rows(stack, query)]


def _count(stack: Stack) -> int:
    ((count,),) = _rows(stack, "SELECT COUNT(*) FROM users")
    return int(count)


def _rows(stack: Stack, query: str) -> list[Any]:
    with connect(stack.addresses.mysql_reader) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())
