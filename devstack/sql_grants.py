"""Writes ``deploy/sql`` from the main app's description: what each database account may do.

`make grants` writes the files, `make grants-check` says whether they are current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mainapp.description import Description, load

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "sql"
READER = "'dialler'@'%'"
RELAY = "'dialler_relay'@'%'"
DMS = "'dialler_dms'@'%'"

_HEAD = """\
-- Written by `make grants` from mainapp/description.yaml; not to be edited.
-- {purpose}
-- Make the account first, with a password that only the secret store has:
--   CREATE USER {account} IDENTIFIED BY '...' REQUIRE SSL;
-- then run this file in the main app's database, as an administrator:
--   mysql --database=THE_MAIN_APP < deploy/sql/{file}
-- It is valid on MySQL 8 and on MariaDB. Run it again after each release that changes it; to take
-- back what it no longer names, REVOKE ALL PRIVILEGES, GRANT OPTION FROM {account} before.
"""
_POSTGRES_HEAD = """\
-- Written by `make grants` from the services that have migrations; not to be edited.
-- What each service may do in PostgreSQL: own its schema, and see no other's.
-- Make the roles first, with passwords that only the secret store has:
--   CREATE ROLE dialler_queue LOGIN PASSWORD '...';
-- then run this file in the suite's database, as its owner or an administrator:
--   psql --set=ON_ERROR_STOP=1 --dbname=THE_SUITE --file=deploy/sql/postgres-grants.sql
-- Migrations run as the service whose schema they change. Running it again changes nothing.
"""


def _head(file: str, account: str, purpose: str) -> str:
    return _HEAD.format(file=file, account=account, purpose=purpose)


def _columns(description: Description, account: str) -> str:
    return "".join(
        f"GRANT SELECT ({', '.join(f'`{column}`' for column in table.columns)})\n"
        f"  ON `{name}` TO {account};\n"
        for name, table in description.tables.items()
    )


def reader(description: Description) -> str:
    """Return the grants of `user_context`: the columns that are read, and how replication stands.

    The second is for `USER_CONTEXT_MYSQL_REPLICA_LAG_SECONDS`.
    """
    return (
        _head("mysql-grants.sql", READER, "What user_context may do in the main app's MySQL.")
        + _columns(description, READER)
        + "GRANT /*M!100502 REPLICA MONITOR */ /*!80000 REPLICATION CLIENT */"
        + f" ON *.* TO {READER};\n"
    )


def relay(description: Description) -> str:
    """Return the grants of `binlog_relay`: the binlog, and that the tables are there.

    Every row of the server is in the binlog. No privilege narrows that: the relay drops what the
    description does not name.
    """
    keys = "".join(
        f"GRANT SELECT (`{table.key}`) ON `{name}` TO {RELAY};\n"
        for name, table in description.tables.items()
    )
    return (
        _head("mysql-grants-relay.sql", RELAY, "What binlog_relay may do in the main app's MySQL.")
        + keys
        + "GRANT REPLICATION SLAVE, REPLICATION CLIENT /*M!100502 , REPLICA MONITOR */"
        + f"\n  ON *.* TO {RELAY};\n"
    )


def dms(description: Description) -> str:
    """Return the grants of AWS DMS, where it captures in the relay's place.

    Its documentation asks for whole tables; `deploy/aws/task.yaml` drops the secret columns.
    """
    tables = "".join(f"GRANT SELECT ON `{name}` TO {DMS};\n" for name in description.tables)
    return (
        _head("mysql-grants-dms.sql", DMS, "What AWS DMS may do, where it replaces binlog_relay.")
        + tables
        + f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {DMS};\n"
    )


def postgres_schemas() -> list[str]:
    """Return the schemas of the suite: one for each service with migrations."""
    return sorted(path.parent.name for path in (ROOT / "services").glob("*/migrations"))


def postgres() -> str:
    """Return the grants of the services in PostgreSQL."""
    statements = "DO $$ BEGIN\n"
    statements += "  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());\n"
    for name in postgres_schemas():
        statements += (
            f"  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO dialler_{name}',"
            " current_database());\n"
        )
    statements += "END $$;\n"
    for name in postgres_schemas():
        # Only a member of a role may make it the owner of a schema; RDS has no superuser.
        statements += f"GRANT dialler_{name} TO CURRENT_USER;\n"
        statements += f"CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION dialler_{name};\n"
        statements += f"REVOKE dialler_{name} FROM CURRENT_USER;\n"
    return _POSTGRES_HEAD + statements


def files() -> dict[Path, str]:
    """Return every file of deploy/sql with its text."""
    description = load()
    return {
        FOLDER / "mysql-grants.sql": reader(description),
        FOLDER / "mysql-grants-relay.sql": relay(description),
        FOLDER / "mysql-grants-dms.sql": dms(description),
        FOLDER / "postgres-grants.sql": postgres(),
    }


def main() -> int:
    """Write the files, or with ``--check`` say (1) which are not current."""
    stale = {
        path: text
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if "--check" not in sys.argv:
        for path, text in stale.items():
            path.write_text(text, encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path.relative_to(ROOT)} is not current; run: make grants\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
