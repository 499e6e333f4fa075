"""The accounts of the local servers. They listen on loopback only and hold invented data."""

PASSWORDS = {
    "admin": "admin-local",  # MariaDB: everything
    "laravel": "laravel-local",  # MariaDB: the main app itself, the only writer
    "dialler": "dialler-local",  # MariaDB: reads the main app; PostgreSQL: owner of our schemas
    "dialler_relay": "relay-local",  # MariaDB: reads the binlog
    "postgres": "postgres-local",  # PostgreSQL: everything
}

# Databases whose names begin like this are main apps, so that each test can have its own.
MAINAPP_PREFIX = "mainapp"

# What the readers may do in each main app is that of production (`devstack.sql_grants`).
_GRANTS = (
    ("laravel", f"ALL ON `{MAINAPP_PREFIX}%`.*"),
    ("dialler_relay", "REPLICATION SLAVE, REPLICATION CLIENT ON *.*"),
)


def mysql_account_statements() -> list[str]:
    """Statements, valid on MySQL 8 and MariaDB alike, that make the main app's accounts."""
    creations = [
        f"CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{PASSWORDS[user]}'"
        for user in ("laravel", "dialler", "dialler_relay")
    ]
    return creations + [f"GRANT {what} TO '{user}'@'%'" for user, what in _GRANTS]
