"""Statements as servers write them into the binlog: each that loses rows requests a full run."""

import asyncio
from pathlib import Path

import pytest

from devstack.servers import MariaDB
from tests.integration.binlog_relay.bench import Received, RelayBench
from tests.integration.binlog_relay.test_following import as_admin, including

_STATEMENT = "SET SESSION binlog_format = 'STATEMENT'"
_FUNCTION = (
    "SET GLOBAL log_bin_trust_function_creators = 1",
    "CREATE FUNCTION renamed() RETURNS INT MODIFIES SQL DATA"
    " BEGIN UPDATE users SET first_name = 'y'; RETURN 1; END",
)
_WITH = "WITH o AS (SELECT 1 AS one) UPDATE users SET first_name = 'Ann'"
_ARCHIVE = (
    "CREATE TABLE archive LIKE user_addresses",
    "ALTER TABLE archive PARTITION BY KEY (id) PARTITIONS 1",
    "ALTER TABLE archive EXCHANGE PARTITION p0 WITH TABLE user_addresses",
)


@pytest.mark.parametrize(
    "statements",
    [
        ["SET SESSION sql_mode = 'ANSI_QUOTES'", 'TRUNCATE TABLE "user_addresses"'],
        ["TRUNCATE TABLE`user_addresses`"],
        ["/*!50000 TRUNCATE TABLE user_addresses */"],
        ["TRUNCATE /* user_logs */ user_addresses"],
        list(_ARCHIVE),
        [*_FUNCTION, _STATEMENT, "DO renamed()"],
        [*_FUNCTION, _STATEMENT, "SELECT renamed()"],
        [_STATEMENT, _WITH],
        [_STATEMENT, "UPDATE users SET first_name = 'Ann'"],
        [_STATEMENT, "LOAD DATA LOCAL INFILE '{file}' INTO TABLE users (id, email_address)"],
        pytest.param(
            ["SET STATEMENT lock_wait_timeout=5 FOR TRUNCATE TABLE user_addresses"],
            marks=pytest.mark.mariadb,
        ),
        pytest.param(
            [_STATEMENT, "SET STATEMENT lock_wait_timeout=5 FOR DELETE FROM users"],
            marks=pytest.mark.mariadb,
        ),
        pytest.param(
            ["CREATE OR REPLACE TABLE user_addresses LIKE user_logs"], marks=pytest.mark.mariadb
        ),
    ],
    ids=lambda statements: statements[-1][:40],
)
async def test_a_statement_that_loses_rows_requests_a_full_run(
    bench: RelayBench, tmp_path: Path, statements: list[str]
) -> None:
    if bench.main_app.server.title == "MariaDB" and _WITH in statements[-1]:
        pytest.skip("MariaDB does not know it")
    file = tmp_path / "users.csv"
    file.write_text("10\ta@example.test\n")
    filled = [each.replace("{file}", str(file)) for each in statements]
    assert await asks(bench, *filled)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE USER IF NOT EXISTS zz@'%' IDENTIFIED BY 'zz'", "GRANT SELECT ON *.* TO zz@'%'",
         "DROP USER zz@'%'"],
        ["CREATE TABLE plain (id INT PRIMARY KEY)", "ALTER TABLE plain ADD x INT", "TRUNCATE plain",
         "DROP TABLE plain"],
        ["CREATE TEMPORARY TABLE users (id INT)", "DROP TEMPORARY TABLE users"],
        ["CREATE PROCEDURE p() BEGIN TRUNCATE TABLE users; END", "DROP PROCEDURE p"],
        ["CREATE VIEW v AS SELECT id FROM users", "DROP VIEW v"],
        ["CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW SET @a = 1", "DROP TRIGGER t"],
        ["CREATE INDEX i ON users (first_name)", "DROP INDEX i ON users"],
        ["ANALYZE TABLE users"],
        ["BEGIN", "SAVEPOINT a", "INSERT INTO users (id, email_address) VALUES (7, 'x')",
         "ROLLBACK TO a", "COMMIT"],
    ],
    ids=lambda statements: statements[0][:40],
)  # fmt: skip
async def test_a_harmless_statement_requests_nothing(
    bench: RelayBench, statements: list[str]
) -> None:
    assert not await asks(bench, *statements)


async def test_dropping_the_database_requests_a_full_run(bench: RelayBench) -> None:
    other = RelayBench(
        bench.main_app.create(bench.main_app.server),
        bench.postgres,
        bench.queue,
        bench.reconciler,
        bench.reconciler_target,
    )
    async with other.relay():
        await asyncio.to_thread(other.main_app.drop)
        received = await other.receive(is_control)
    assert {record["metadata"]["operation"] for record in received.records} == {"drop-table"}


def is_control(received: Received) -> bool:
    return any(record["metadata"]["record-type"] == "control" for record in received.records)


async def asks(bench: RelayBench, *statements: str) -> bool:
    """Run the statements; return whether they lead to a full run, here or at the consumer."""
    await bench.add_users([1])
    async with bench.relay() as parts:
        server: MariaDB = bench.main_app.server
        await asyncio.to_thread(as_admin, server, f"USE `{bench.main_app.name}`", *statements)
        await bench.add_users([99])
        received = await bench.receive(including({99}))
        return is_control(received) or (await bench.position(parts)).gaps > 0
