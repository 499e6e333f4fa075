"""Private MariaDB, PostgreSQL and Redis servers in a folder of ours, on free loopback ports."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pymysql

from devstack.accounts import PASSWORDS, mysql_account_statements
from devstack.mysql_connection import Connection
from devstack.packages import require_program
from devstack.processes import HOST, DidNotStart, wait_until
from devstack.server import Server, ServerError, server_environment

__all__ = ["MariaDB", "PostgreSQL", "PostgreSQLStandby", "Redis", "Server", "ServerError"]

_START_SECONDS = 60.0


class MariaDB(Server):
    """MariaDB with the row binlog that change capture needs, and the main app's accounts."""

    title = "MariaDB"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        buffer_pool_bytes: int | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """The buffer pool is a quarter of the memory if not given, at most 1 GiB or 128 MiB.

        `options` take the place of ours, by their names in hyphens.
        """
        super().__init__(folder, port=port, durable=durable)
        self._options = dict(options or {})
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = 1 << 30 if durable else 128 << 20
        self._buffer_pool_bytes = buffer_pool_bytes or min(most, memory_bytes // 4)

    @property
    def admin_url(self) -> str:
        return self.url("mysql", user="admin", driver="mysql+pymysql")

    def url(self, database: str, user: str = "dialler", *, driver: str = "mysql+asyncmy") -> str:
        """Address of a database for one of the accounts of `devstack.accounts`."""
        return f"{driver}://{user}:{PASSWORDS[user]}@{HOST}:{self.port}/{database}"

    def connect(self, user: str = "admin", database: str | None = None) -> Connection:
        """A connection of its own, in autocommit; raises `pymysql.err.OperationalError`."""
        return pymysql.connect(
            host=HOST,
            port=self.port,
            user=user,
            password=PASSWORDS[user],
            database=database,
            autocommit=True,
            local_infile=True,
            charset="utf8mb4",
            connect_timeout=5,
        )

    def _initialise(self) -> None:
        done = self.folder / "initialised"
        if not done.exists():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data.mkdir()
            self._install()
            done.touch()
        statements = ["SET sql_log_bin = 0", *_mariadb_admin(), *mysql_account_statements()]
        (self.folder / "accounts.sql").write_text("".join(f"{line};\n" for line in statements))

    def _install(self) -> None:
        with tempfile.TemporaryDirectory(prefix="dialler-") as short:
            # mariadb-install-db is a shell script that a space in the path breaks.
            link = Path(short) / "data"
            link.symlink_to(self.data)
            root = ["--user=root"] if os.geteuid() == 0 else []
            options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
            self._run(
                [
                    require_program("mariadb-install-db"),
                    "--no-defaults",
                    f"--datadir={link}",
                    "--skip-name-resolve",
                    *options,
                    *root,
                ],
                TMPDIR=short,
            )

    def _command(self) -> list[str]:
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        settings = {
            "datadir": self.data,
            # A starting MariaDB deletes other servers' temporary tables from a shared folder.
            "tmpdir": temporary,
            "bind-address": self.listens_on,
            "port": self.port,
            # Relative to the data, whose path may exceed the 107 bytes a socket's may have.
            "socket": "mariadb.sock",
            "pid-file": self.folder / "mariadb.pid",
            "init-file": self.folder / "accounts.sql",
            "skip-name-resolve": "ON",
            "server-id": 1,
            "log-bin": "binlog",
            "binlog-format": "ROW",
            "binlog-row-image": "FULL",
            "binlog-row-metadata": "FULL",
            "binlog-expire-logs-seconds": 86_400,
            "sync-binlog": int(self._durable),
            "gtid-strict-mode": "ON",
            "log-slave-updates": "ON",
            "character-set-server": "utf8mb4",
            "collation-server": "utf8mb4_unicode_ci",
            "default-time-zone": "+00:00",
            "max-connections": 300,
            "max-allowed-packet": 64 << 20,
            "local-infile": "ON",
            "innodb-buffer-pool-size": self._buffer_pool_bytes,
            "innodb-log-file-size": (256 if self._durable else 64) << 20,
            "innodb-flush-log-at-trx-commit": 1 if self._durable else 2,
        }
        root = ["--user=root"] if os.geteuid() == 0 else []
        options = [f"--{name}={value}" for name, value in (settings | self._options).items()]
        return [require_program("mariadbd"), "--no-defaults", *root, *options]

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True


class PostgreSQL(Server):
    """PostgreSQL, which refuses to run as root: then it runs as the account `postgres`."""

    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # its "fast" shutdown; SIGTERM would wait for every client

    def url(
        self, database: str, user: str = "dialler", *, driver: str = "postgresql+asyncpg"
    ) -> str:
        return f"{driver}://{user}:{PASSWORDS[user]}@{HOST}:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres", user: str = "postgres") -> str:
        """Runs one statement; what it returns is unaligned text. Raises `ServerError`."""
        done = subprocess.run(
            [
                require_program("psql"),
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                HOST,
                "-p",
                str(self.port),
                "-U",
                user,
                "-d",
                database,
                "-c",
                statement,
            ],
            env=server_environment(PGPASSWORD=PASSWORDS[user], PGCONNECT_TIMEOUT="5"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"PostgreSQL: {done.stderr.strip()}")
        return done.stdout.strip()

    def create_database(self, name: str) -> None:
        """Makes an empty database that the account `dialler` owns, unless it is there."""
        found = self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
        if not found:
            self.execute(f'CREATE DATABASE "{name}" OWNER dialler')

    def demote(self, *, serves_new_sessions: bool) -> None:
        """Takes writes away from all sessions that are open, and ends none of them.

        So does a fail-over that leaves connections to the old primary open. With
        `serves_new_sessions` the account dialler's new sessions can write, as behind a name that
        leads to the new primary by now.
        """
        if serves_new_sessions:
            self.execute("ALTER ROLE dialler SET default_transaction_read_only = off")
        self.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        self._reload(read_only="on")

    def reinstate(self) -> None:
        """Takes `demote` back, and ends the sessions that a later one would not reach."""
        self.execute("ALTER SYSTEM RESET default_transaction_read_only")
        self._reload(read_only="off")
        own = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'dialler'::regrole"
        if self.execute(own):
            self.execute("ALTER ROLE dialler RESET default_transaction_read_only")
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dialler'"
            )

    def encrypt(self, certificate: Path, key: Path, clients_ca: Path) -> None:
        """Takes TLS connections only, from clients whose certificate `clients_ca` has signed."""
        for name, source in (
            ("server.crt", certificate),
            ("server.key", key),
            ("ca.crt", clients_ca),
        ):
            target = self.data / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if self._user is not None:
                account = pwd.getpwnam(self._user)
                os.chown(target, account.pw_uid, account.pw_gid)
        access = self.data / "pg_hba.conf"
        access.write_text(
            "host all postgres 127.0.0.1/32 scram-sha-256\n"
            "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
        )
        self.execute("ALTER SYSTEM SET ssl_ca_file = 'ca.crt'")
        self.execute("ALTER SYSTEM SET ssl = on")
        self.execute("SELECT pg_reload_conf()")
        wait_until(lambda: self.execute("SHOW ssl") == "on", seconds=_START_SECONDS, what="TLS")

    def _reload(self, *, read_only: str) -> None:
        self.execute("SELECT pg_reload_conf()")
        show = "SHOW default_transaction_read_only"
        wait_until(lambda: self.execute(show) == read_only, seconds=_START_SECONDS, what=show)

    @property
    def data(self) -> Path:
        if self._user is None or _can_enter(self._user, self.folder):
            return self.folder / "data"
        # A checkout below /root, say, which the account postgres may not enter.
        digest = sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path("/var/tmp") / f"dialler-postgresql-{digest}"  # noqa: S108 - ours alone, 0700

    @property
    def _user(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def _initialise(self) -> None:
        data = self.data
        self._check_owner(data)
        if (data / "PG_VERSION").exists() and (data / "initialised").exists():
            (data / "postmaster.pid").unlink(missing_ok=True)
            return
        shutil.rmtree(data, ignore_errors=True)
        self._make_private(data)
        with tempfile.NamedTemporaryFile("w", prefix="dialler-") as password:
            password.write(PASSWORDS["postgres"])
            password.flush()
            if self._user is not None:
                os.chown(password.name, pwd.getpwnam(self._user).pw_uid, -1)
            self._run(
                [
                    postgresql_program("initdb"),
                    "-D",
                    str(data),
                    "-U",
                    "postgres",
                    f"--pwfile={password.name}",
                    "--auth=scram-sha-256",
                    "--no-locale",
                    "--encoding=UTF8",
                    "--no-sync",
                ]
            )
        if self.listens_on != HOST:
            with (data / "pg_hba.conf").open("a", encoding="utf-8") as access:
                access.write("host all all all scram-sha-256\n")
        (data / "initialised").touch()

    def _check_owner(self, data: Path) -> None:
        """Refuse a folder of another account: any account may create one there."""
        if self._user is None or not data.exists():
            return
        if data.is_symlink() or data.stat().st_uid != pwd.getpwnam(self._user).pw_uid:
            raise DidNotStart(f"{data} does not belong to the account {self._user}; remove it")

    def _make_private(self, data: Path) -> None:
        data.mkdir(mode=0o700)
        self._own(data)

    def _own(self, folder: Path) -> None:
        """Give a folder, and all that is in it, to the server's account."""
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            for each in (folder, *folder.rglob("*")):
                os.chown(each, account.pw_uid, account.pw_gid, follow_symlinks=False)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": self.listens_on,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "256MB" if self._durable else "64MB",
            "max_wal_size": "2GB",
            "random_page_cost": 1.1,
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [postgresql_program("postgres"), "-D", str(self.data), *options]

    def _answers(self) -> bool:
        try:
            self.execute(_MAKE_DIALLER)
        except ServerError:
            return False
        return True


class PostgreSQLStandby(PostgreSQL):
    """A hot standby of another server of ours, which follows it until it is promoted."""

    title = "PostgreSQL standby"

    def __init__(self, folder: Path, primary: PostgreSQL) -> None:
        super().__init__(folder, durable=False)
        self._primary = primary

    def url_with_primary(self, database: str, user: str = "dialler") -> str:
        """Address that names both hosts, the standby first."""
        hosts = f"{HOST}:{self.port},{HOST}:{self._primary.port}"
        return f"postgresql://{user}:{PASSWORDS[user]}@{hosts}/{database}"

    def promote(self) -> None:
        """Makes it a primary that has everything the other one had committed before."""
        written = self._primary.execute("SELECT pg_current_wal_lsn()")
        behind = f"SELECT pg_last_wal_replay_lsn() < '{written}'::pg_lsn"
        wait_until(lambda: self.execute(behind) == "f", seconds=_START_SECONDS, what="the standby")
        self.execute("SELECT pg_promote()")

    def _initialise(self) -> None:
        data = self.data
        if (data / "PG_VERSION").exists():
            return
        self._make_private(data)
        source = ["-h", HOST, "-p", str(self._primary.port), "-U", "postgres"]
        self._run(
            [
                postgresql_program("pg_basebackup"),
                "-D",
                str(data),
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
                *source,
            ],
            PGPASSWORD=PASSWORDS["postgres"],
        )


class Redis(Server):
    """Redis as a cache: nothing is saved, so a restarted one is empty."""

    title = "Redis"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        maxmemory_bytes: int = 512 << 20,
        maxmemory_policy: str = "volatile-lru",
        options: Mapping[str, object] | None = None,
    ) -> None:
        """`options` are settings by their names, besides ours or in their place."""
        super().__init__(folder, port=port)
        self._options = dict(options or {})
        self._maxmemory_bytes = maxmemory_bytes
        self._maxmemory_policy = maxmemory_policy

    def url(self, db: int = 0) -> str:
        return f"redis://{HOST}:{self.port}/{db}"

    def flush(self) -> None:
        """Empties it."""
        self.ask("FLUSHALL")

    def ask(self, *words: str) -> str:
        """Sends one command and returns the start of its answer as sent; raises `OSError`."""
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65_536).decode(errors="replace")

    def _initialise(self) -> None:
        self.data.mkdir(exist_ok=True)

    def _command(self) -> list[str]:
        settings = {
            "bind": self.listens_on,
            "protected-mode": "yes" if self.listens_on == HOST else "no",
            "port": str(self.port),
            "save": "",
            "appendonly": "no",
            "maxmemory": str(self._maxmemory_bytes),
            "maxmemory-policy": self._maxmemory_policy,
            "dir": str(self.data),
        }
        chosen = settings | {name: str(value) for name, value in self._options.items()}
        options = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        return [require_program("redis-server"), *options]

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith("+PONG")
        except OSError:
            return False


_MAKE_DIALLER = (
    "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dialler') THEN"
    f" CREATE ROLE dialler LOGIN CREATEDB PASSWORD '{PASSWORDS['dialler']}'; END IF; END $$"
)


def _mariadb_admin() -> list[str]:
    password = PASSWORDS["admin"]
    return [
        f"CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY '{password}'",
        "GRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION",
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}'",
        "DROP USER IF EXISTS ''@'localhost'",
    ]


def postgresql_program(name: str) -> str:
    """The newest installed version's; Debian keeps them out of the search path."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4])
    )
    return str(found[-1]) if found else require_program(name)


def _can_enter(user: str, folder: Path) -> bool:
    identity = [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    check = [require_program("setpriv"), *identity, "--", "test", "-x", str(folder)]
    return subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode == 0
