"""Search by number, address and name, against a real main app and a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from dialler.user_context.v1 import user_context_pb2 as pb

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from servicekit.errors import InvalidArgument
from services.user_context.testing import (
    RunningUserContext,
    insertion,
    running_user_context,
)

pytestmark = pytest.mark.integration

PEOPLE: list[dict[str, Any]] = [
    {"id": 1, "first_name": "Aoife", "last_name": "O'Brien", "phone_number": "07700 900123"},
    {"id": 2, "first_name": "José", "last_name": "Núñez", "phone_number": "+44 7700 900124"},
    {"id": 3, "first_name": "Ann", "last_name": "Smith-Jones", "previous_name": "Black"},
    {"id": 4, "first_name": None, "last_name": None, "phone_number": "(07700) 900-123"},
    {"id": 2**40, "first_name": "Ann", "last_name": "Obrien", "is_enabled": 0},
]


@pytest.fixture
def people(mainapp_database: MainAppDatabase) -> MainAppDatabase:
    for person in PEOPLE:
        address = f"person-{person['id']}@example.com"
        mainapp_database.execute(*insertion("users", email_address=address, **person))
    return mainapp_database


@pytest.fixture
async def service(
    people: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> AsyncIterator[RunningUserContext]:
    async with running_user_context(
        mysql_url=people.url, postgres_url=postgres_database.url, redis_url=redis_url
    ) as running:
        await until(running, "ann", lambda it: it.is_complete)
        yield running


async def search(running: RunningUserContext, **by: Any) -> pb.SearchUsersResponse:
    return await running.stub.SearchUsers(pb.SearchUsersRequest(**by))


async def until(
    running: RunningUserContext, name: str, is_right: Callable[[pb.SearchUsersResponse], bool]
) -> pb.SearchUsersResponse:
    """Search until it is so: names are followed by loops of the service."""
    async with asyncio.timeout(10):
        while True:
            found = await search(running, name=name)
            if is_right(found):
                return found
            await asyncio.sleep(0.02)


def ids(found: pb.SearchUsersResponse) -> list[int]:
    return [it.user_id for it in found.users]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("o'brien", [2**40, 1]),
        ("OBRIEN aoi", [1]),
        ("nunez", [2]),
        ("bla", [3]),
        ("jones ann", [3]),
        ("ann", [2**40, 3]),
        ("nobody", []),
        ("ann' & '", [2**40, 3]),
    ],
)
async def test_names(service: RunningUserContext, name: str, expected: list[int]) -> None:
    found = await search(service, name=name)
    assert ids(found) == expected
    assert found.is_complete


@pytest.mark.parametrize("phone", ["07700900123", "+44 (0)7700 900123", "0044 7700-900-123"])
async def test_numbers_in_any_form(service: RunningUserContext, phone: str) -> None:
    service.queue.phones["+447700900123"] = [4, 2, 1]
    found = await search(service, phone=phone)
    # The queue's word on the second is out of date: MySQL has another number.
    assert ids(found) == [4, 1]
    assert found.users[0].phone_number == "+447700900123"


async def test_addresses_compare_as_the_main_app_compares_them(
    service: RunningUserContext,
) -> None:
    (user,) = (await search(service, email_address="Person-3@EXAMPLE.com")).users
    assert (user.user_id, user.last_name, user.is_enabled) == (3, "Smith-Jones", True)
    assert not user.HasField("phone_number")
    assert ids(await search(service, email_address="person-%@example.com")) == []


async def test_at_most_so_many_and_it_says_so(service: RunningUserContext) -> None:
    found = await search(service, name="ann", limit=1)
    assert (ids(found), found.is_complete) == ([2**40], False)


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ({}, "SEARCH_EMPTY"),
        ({"name": " "}, "SEARCH_EMPTY"),
        ({"email_address": "x" * 256}, "SEARCH_EMPTY"),
        ({"name": "a"}, "NAME_TOO_SHORT"),
        ({"phone": "12"}, "PHONE_NOT_VALID"),
        ({"phone": "jane"}, "PHONE_NOT_VALID"),
    ],
)
async def test_what_cannot_be_searched_for(
    service: RunningUserContext, by: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await search(service, **by)
    assert refusal.value.reason == reason


async def test_changes_are_followed(service: RunningUserContext, people: MainAppDatabase) -> None:
    people.execute("UPDATE users SET last_name = 'Whitaker' WHERE id = 1", [])
    # Before anybody has said so: not under the old name any more, since MySQL is read.
    assert ids(await search(service, name="aoife obrien")) == []
    await service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[1]))
    await until(service, "whitak", lambda it: ids(it) == [1])
    people.execute("DELETE FROM users WHERE id = 1", [])
    assert ids(await search(service, name="whitak")) == []


async def test_sweeps_find_what_nobody_has_told_of(
    people: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    """Names are taken up anew in the next sweep: here of a process that begins one at once."""
    urls = {
        "mysql_url": people.url,
        "postgres_url": postgres_database.url,
        "redis_url": redis_url,
    }
    async with running_user_context(**urls) as first:
        await until(first, "ann", lambda it: it.is_complete)
    people.execute("UPDATE users SET first_name = 'Zelda' WHERE id = 1", [])
    people.execute("DELETE FROM users WHERE id = 3", [])
    async with running_user_context(**urls, name_sweep_seconds=0.001) as second:
        await until(second, "zelda", lambda it: ids(it) == [1])
