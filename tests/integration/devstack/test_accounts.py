"""Each account of the main app's database can do its own work and no more."""

import pymysql
import pytest

from devstack.mainapp_database import MainAppDatabase

pytestmark = pytest.mark.integration

WRITES = (
    "INSERT INTO users (email_address) VALUES ('b@example.com')",
    "UPDATE users SET status = 'inactive'",
    "DELETE FROM users",
    "LOCK TABLES users WRITE",
    "CREATE TABLE ours (id int)",
    "ALTER TABLE users ADD INDEX (updated_at)",
    "DROP TABLE claims",
    "TRUNCATE users",
    "SET GLOBAL read_only = 1",
)


@pytest.mark.parametrize("user", ["dialler", "dialler_relay"])
@pytest.mark.parametrize("statement", WRITES)
def test_readers_cannot_write_or_lock(
    mainapp_database: MainAppDatabase, user: str, statement: str
) -> None:
    mainapp_database.execute("INSERT INTO users (email_address) VALUES ('a@example.com')")
    with mainapp_database.connect(user) as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT id FROM users") == 1
        with pytest.raises(pymysql.err.OperationalError) as refused:
            cursor.execute(statement)
        assert refused.value.args[0] in (1044, 1142, 1227)
    assert mainapp_database.rows("SELECT status FROM users") == [(None,)]


def test_only_the_relay_reads_the_binlog(mainapp_database: MainAppDatabase) -> None:
    with mainapp_database.connect("dialler_relay") as connection, connection.cursor() as cursor:
        assert cursor.execute("SHOW BINLOG EVENTS LIMIT 1") == 1
    with (
        mainapp_database.connect("dialler") as connection,
        connection.cursor() as cursor,
        pytest.raises(pymysql.err.OperationalError),
    ):
        cursor.execute("SHOW BINLOG EVENTS LIMIT 1")


def test_schema_has_no_index_on_updated_at_and_cascades_claims(
    mainapp_database: MainAppDatabase,
) -> None:
    indexed = mainapp_database.rows(
        "SELECT table_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE() AND column_name = 'updated_at'"
    )
    cascades = mainapp_database.rows(
        "SELECT table_name, referenced_table_name FROM information_schema.referential_constraints"
        " WHERE constraint_schema = DATABASE() AND delete_rule = 'CASCADE'"
    )
    assert indexed == []
    assert set(cascades) == {
        ("claims", "users"),
        ("claim_requirements", "claims"),
        ("claim_vehicle_packages", "claims"),
    }
