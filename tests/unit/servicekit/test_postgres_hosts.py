"""The addresses of PostgreSQL that are understood, and what they name."""

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from servicekit.postgres_hosts import PostgresHosts


def _named(url: str) -> list[tuple[str | None, int | None]]:
    made = [make_url(it) for it in PostgresHosts(url)._addresses]
    assert {(it.drivername, it.username, it.password) for it in made} == {
        ("postgresql", "u", "p/w")
    }
    assert {it.database for it in made} == {"dialler"}
    return [(it.host, it.port) for it in made]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%2Fw@a:5432,b:5433/dialler",
        "postgresql+asyncpg://u:p/w@a:5432,b:5433/dialler",
        "postgres://u:p%2Fw@a,b/dialler?port=5432,5433",
        "postgresql+asyncpg://u:p%2Fw@/dialler?host=a:5432&host=b:5433",
        "postgresql://u:p%2Fw@/dialler?host=a,b&port=5432,5433",
    ],
)
def test_several_hosts_may_be_written_as_libpq_and_as_sqlalchemy_read_them(url: str) -> None:
    assert _named(url) == [("a", 5432), ("b", 5433)]


def test_one_host_is_enough() -> None:
    assert _named("postgresql+asyncpg://u:p%2Fw@a:5432/dialler") == [("a", 5432)]
    assert _named("postgresql://u:p%2Fw@a/dialler") == [("a", None)]
    assert _named("postgresql://u:p%2Fw@[::1]:5432,[::2]/dialler") == [("::1", 5432), ("::2", None)]


def test_folders_of_sockets_stay_what_they_are() -> None:
    (address,) = PostgresHosts("postgresql://u@/dialler?host=/run/postgresql")._addresses
    assert make_url(address).query == {"host": "/run/postgresql"}


def test_other_options_go_to_every_host() -> None:
    hosts = PostgresHosts("postgresql://u@a,b/dialler?sslmode=require&host=")
    assert [make_url(it).query["sslmode"] for it in hosts._addresses] == ["require", "require"]
    (one,) = PostgresHosts("postgresql+asyncpg://u@a/dialler?ssl=verify-full")._addresses
    assert make_url(one).query == {"sslmode": "verify-full"}


async def test_each_host_has_the_time_that_the_address_says() -> None:
    hosts = PostgresHosts("postgresql://u@a,b/dialler?connect_timeout=7&sslmode=disable")
    asked: list[tuple[str | None, object]] = []

    async def connect(address: str, *, timeout: object, **_: object) -> None:
        asked.append((make_url(address).host, timeout))
        assert make_url(address).query == {"sslmode": "disable"}
        raise ConnectionRefusedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg, "connect", connect)
        with pytest.raises(ConnectionRefusedError):
            await hosts.connect(timeout=1.0)
    assert asked == [("a", 7.0), ("b", 7.0)]


def test_servers_that_take_writes_are_wanted_unless_the_address_says_otherwise() -> None:
    assert PostgresHosts("postgresql://u@a/d").target == "read-write"
    assert PostgresHosts("postgresql://u@a/d", default_target="any").target == "any"
    assert PostgresHosts("postgresql://u@a/d?target_session_attrs=primary").target == "primary"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u@a/d",
        "a,b",
        "postgresql://u@a:x/d",
        "postgresql://u@a/d?target_session_attrs=standby",
        "postgresql://u@a/d?target_session_attrs=primary ",
    ],
)
def test_what_is_no_address_of_a_primary_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"postgresql URL|target_session_attrs"):
        PostgresHosts(url)
