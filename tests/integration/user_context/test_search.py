"""Search by number, address and name, against a real main app and a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from dialler.user_context.v1 import user_context_pb2 as pb

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from servicekit.errors import InvalidArgument
from tests.fakes import waiting
from tests.fakes.running_user_context import RunningUserContext, insertion, running_user_context

pytestmark = pytest.mark.integration

PEOPLE: list[dict[str, Any]] = [
    {"id": 1, "first_name": "Aoife", "last_name": "O'Brien", "phone_number": "07700 900123"},
    {"id": 2, "first_name": "José", "last_name": "Núñez", "phone_number": "+44 7700 900124"},
    {"id": 3, "first_name": "Ann", "last_name": "Smith-Jones", "previous_name": "Black"},
    {"id": 4, "first_name": None, "last_name": None, "phone_number": "(07700) 900-123"},
    {"id": 5, "first_name": "Mo", "phone_number": "07700900560 / 020 7946 0018 wife"},
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
    async with waiting.limit(10):
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
        ("unlisted", []),
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


@pytest.mark.parametrize(
    "phone",
    [
        "\u202a07700 900123\u202c",
        "07700\u00a0900123",
        "\ufeff07700900123",
        "07700900123\u200b",
        "07700900123\r\n",
        "\t07700900123",
        "\x0207700\x96900123\x7f",
        "\uf095 07700\u3164900\u2800123",
        "07700\ufe0f900\u034f123\U000e0020",
        "mob: 07700900123",
        "07700900123 / 07700900124",
    ],
)
async def test_numbers_as_they_are_pasted(service: RunningUserContext, phone: str) -> None:
    service.queue.phones["+447700900123"] = [4, 1]
    assert ids(await search(service, phone=phone)) == [4, 1]


@pytest.mark.parametrize("number", ["07700900560", "020 7946 0018"])
async def test_any_number_in_the_field_finds_the_person(
    service: RunningUserContext, number: str
) -> None:
    numbers = ["+447700900560", "+442079460018"]
    service.queue.phones.update({it: [5, 1] for it in numbers})
    (user,) = (await search(service, phone=number)).users
    assert (user.user_id, user.phone_number, list(user.phone_numbers)) == (5, numbers[0], numbers)
    assert user.phone_number_as_written == PEOPLE[4]["phone_number"]


async def test_names_and_addresses_as_they_are_pasted(service: RunningUserContext) -> None:
    assert ids(await search(service, name="\u200bsmith\u2011jones\u00a0ann\ufeff")) == [3]
    pasted = "\uf0e0\u202aperson-3@\u200bexample.com\ufe0f\u202c\n"
    assert ids(await search(service, email_address=pasted)) == [3]


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
        ({"name": "\u200b\ufeff\u00a0"}, "SEARCH_EMPTY"),
        ({"phone": "\x00\ufe0f"}, "SEARCH_EMPTY"),
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
    # Before the change is known here: no longer under the old name, since MySQL is read.
    assert ids(await search(service, name="aoife obrien")) == []
    await service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[1]))
    await until(service, "whitak", lambda it: ids(it) == [1])
    people.execute("DELETE FROM users WHERE id = 1", [])
    assert ids(await search(service, name="whitak")) == []


async def test_sweeps_find_changes_without_a_refresh(
    people: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    """The next sweep indexes names again; this process begins one at once."""
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
