"""The private servers start, stop, are killed and come back where they were."""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.processes import wait_until
from devstack.servers import MariaDB, PostgreSQL, Redis, Server, ServerError

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
# Starts all three in a thread that ends, says so, and waits to be killed.
OWNER = """
import sys, threading
from pathlib import Path
from devstack.servers import MariaDB, PostgreSQL, Redis
folder = Path(sys.argv[1])
servers = [MariaDB(folder / "m", durable=False), PostgreSQL(folder / "p"), Redis(folder / "r")]
def start():
    for server in servers:
        server.start()
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(*(server.pid for server in servers), flush=True)
sys.stdin.read()
"""


async def _value(url: str, query: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text(query))).scalar_one()
    finally:
        await engine.dispose()


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_databases_answer_at_the_fixtures_addresses(
    mainapp_database: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    assert await _value(mainapp_database.url, "SELECT count(*) FROM users") == 0
    assert await _value(postgres_database.url, "SELECT current_user") == "dialler"
    assert redis_url.startswith("redis://127.0.0.1:")


def test_mariadb_writes_the_binlog_change_capture_needs(mariadb: MariaDB) -> None:
    names = ("binlog_format", "binlog_row_image", "binlog_row_metadata", "log_bin", "server_id")
    with mariadb.connect("dialler_relay") as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'@@global.{name}' for name in names)}")
        assert cursor.fetchone() == ("ROW", "FULL", "FULL", 1, 1)
        cursor.execute("SELECT @@global.collation_server, @@global.bind_address")
        assert cursor.fetchone() == ("utf8mb4_unicode_ci", "127.0.0.1")
        cursor.execute("SELECT @@global.tmpdir")
        assert cursor.fetchone() == (str(mariadb.folder / "tmp"),)
        cursor.execute("SHOW MASTER STATUS")
        assert cursor.fetchone() is not None


def test_killed_mariadb_comes_back_on_its_port_with_its_rows(own_mariadb: MariaDB) -> None:
    database = MainAppDatabase.create(own_mariadb)
    database.execute("INSERT INTO users (email_address) VALUES ('a@example.com')")
    port = own_mariadb.port
    own_mariadb.kill()
    own_mariadb.start()
    assert own_mariadb.port == port
    assert database.rows("SELECT email_address FROM users") == [("a@example.com",)]


def test_killed_postgresql_comes_back_on_its_port_with_its_rows(own_postgres: PostgreSQL) -> None:
    own_postgres.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    port = own_postgres.port
    own_postgres.kill()
    assert (own_postgres.data / "postmaster.pid").exists()
    own_postgres.start()
    assert own_postgres.port == port
    assert own_postgres.execute("SELECT n FROM kept") == "7"


def test_pid_file_that_names_a_living_process_of_others_does_not_stop_postgresql(
    own_postgres: PostgreSQL, postgres: PostgreSQL
) -> None:
    own_postgres.kill()
    pid_file = own_postgres.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(postgres.pid), *lines[1:]]) + "\n")
    own_postgres.start()
    assert own_postgres.execute("SELECT 1") == "1"


def test_restarted_redis_is_empty_and_on_its_port(own_redis: Redis) -> None:
    port = own_redis.port
    own_redis.ask("SET", "key", "value")
    own_redis.restart()
    assert own_redis.port == port
    assert own_redis.ask("EXISTS", "key") == ":0\r\n"


def test_redis_evicts_as_it_is_told(servers_folder: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    with Redis(folder, maxmemory_bytes=64 << 20, maxmemory_policy="allkeys-lfu") as server:
        assert "allkeys-lfu" in server.ask("CONFIG", "GET", "maxmemory-policy")
        assert str(64 << 20) in server.ask("CONFIG", "GET", "maxmemory")


@pytest.mark.parametrize("kind", [MariaDB, PostgreSQL, Redis])
def test_folder_with_spaces_and_a_long_path_serves(
    kind: type[MariaDB] | type[PostgreSQL] | type[Redis], servers_folder: Path
) -> None:
    server = kind(servers_folder / "with a space" / ("long" * 30) / kind.title)
    with server:
        assert server.is_running
    assert not server.is_running
    server.start()
    server.discard()
    assert not server.folder.exists()


def test_second_owner_of_a_folder_is_refused(own_redis: Redis) -> None:
    second = Redis(own_redis.folder)
    second.lock_wait_seconds = 0.1
    with pytest.raises(ServerError, match="another process to leave"):
        second.start()
    assert own_redis.ask("PING") == "+PONG\r\n"


def test_server_that_cannot_start_says_what_it_printed(servers_folder: Path) -> None:
    server = Redis(Path(tempfile.mkdtemp(dir=servers_folder)), maxmemory_policy="no-such-policy")
    with pytest.raises(ServerError, match="no-such-policy"):
        server.start()
    assert not server.is_running


def test_servers_end_when_their_owner_is_killed(servers_folder: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        # Not ended with the thread that started them.
        assert len(pids) == 3
        assert all(_is_alive(pid) for pid in pids)
        owner.send_signal(signal.SIGKILL)
        wait_until(
            lambda: not any(_is_alive(pid) for pid in pids), seconds=20, what="servers to end"
        )


def test_folder_left_by_a_killed_owner_is_taken_over(servers_folder: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=servers_folder))
    folder.chmod(0o711)
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip()
        owner.send_signal(signal.SIGKILL)
    # Started while the old ones may still be shutting down.
    servers: list[Server] = [MariaDB(folder / "m"), PostgreSQL(folder / "p"), Redis(folder / "r")]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.start(), servers))
    assert all(server.is_running for server in servers)
    for server in servers:
        server.discard()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another account")
def test_postgresql_serves_a_checkout_its_account_may_not_enter(servers_folder: Path) -> None:
    closed = servers_folder / "closed"
    closed.mkdir(mode=0o700)
    server = PostgreSQL(closed / "stack" / "postgres", durable=False)
    with server:
        server.execute("CREATE TABLE kept (n int)")
    again = PostgreSQL(closed / "stack" / "postgres", durable=False)
    with again:
        assert again.execute("SELECT count(*) FROM kept") == "0"
    assert not again.data.is_relative_to(servers_folder)
    again.discard()
    assert not again.data.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_postgresql_refuses_data_another_account_put_there(servers_folder: Path) -> None:
    closed = servers_folder / "foreign"
    closed.mkdir(mode=0o700)
    server = PostgreSQL(closed)
    server.data.mkdir()
    os.chown(server.data, 65_534, -1)
    try:
        with pytest.raises(ServerError, match="does not belong to"):
            server.start()
    finally:
        server.discard()
