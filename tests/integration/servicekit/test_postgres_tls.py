"""PostgreSQL over verified TLS: engines, the lock of a leader and migrations, by one setting."""

import logging
from pathlib import Path

import pytest
from sqlalchemy import text

from devstack.postgres_database import PostgresDatabase
from devstack.servers import PostgreSQL
from servicekit.database import database_errors, postgres_engine
from servicekit.errors import Unavailable
from servicekit.leadership import Leadership
from servicekit.migrations import upgrade
from tests.fakes.certificates import Authority, Signed

pytestmark = pytest.mark.integration

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def url(own_postgres: PostgreSQL, authority: Authority) -> str:
    """An address that says nothing of TLS, of a server that takes nothing else."""
    made = PostgresDatabase.create(own_postgres)
    server = authority.sign("server")
    own_postgres.encrypt(server.certificate, server.key, authority.file)
    return made.url


def _trust(monkeypatch: pytest.MonkeyPatch, ca: Path, client: Signed | None) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(ca))
    if client is not None:
        monkeypatch.setenv("PGSSLCERT", str(client.certificate))
        monkeypatch.setenv("PGSSLKEY", str(client.key))


async def _ask(url: str, statement: str) -> object:
    engine = postgres_engine(
        url, pool_size=1, application_name="dialler-test", statement_timeout_seconds=5.0
    )
    try:
        with database_errors():
            async with engine.connect() as connection:
                return (await connection.execute(text(statement))).scalar()
    finally:
        await engine.dispose()


async def test_one_setting_encrypts_engines_locks_and_migrations(
    url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trust(monkeypatch, authority.file, authority.sign("client"))
    assert await _ask(url, IS_ENCRYPTED) is True
    leadership = Leadership(url, 7, name="lock")
    assert await leadership.is_ours()
    await leadership.check()
    await leadership.release()
    await upgrade(url, package="services.reconciler", schema="reconciler")
    assert await _ask(url, "SELECT count(*) FROM reconciler.runs") == 0


async def test_the_address_may_say_it_too(url: str, authority: Authority) -> None:
    client = authority.sign("client")
    named = (
        f"{url}?sslmode=verify-full&sslrootcert={authority.file}"
        f"&sslcert={client.certificate}&sslkey={client.key}"
    )
    assert await _ask(named, IS_ENCRYPTED) is True
    leadership = Leadership(named, 7, name="lock")
    assert await leadership.is_ours()
    await leadership.release()


async def test_a_server_of_another_authority_is_refused_and_the_reason_logged(
    url: str,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _trust(monkeypatch, Authority(tmp_path, "stranger").file, authority.sign("client"))
    with caplog.at_level(logging.ERROR), pytest.raises(Unavailable):
        await _ask(url, "SELECT 1")
    [record] = [it for it in caplog.records if it.message == "postgres_tls_failed"]
    assert "certificate" in record.__dict__["tls_reason"]


async def test_a_replica_that_may_not_ask_for_the_lock_says_that_it_cannot_lead(
    url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trust(monkeypatch, authority.file, None)
    leadership = Leadership(url, 7, name="lock")
    with pytest.raises(Unavailable):
        await leadership.is_ours()
    with pytest.raises(Unavailable, match="CANNOT_LEAD"):
        await leadership.check()
