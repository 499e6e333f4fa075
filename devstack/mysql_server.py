"""A private MySQL of Oracle's, for the tests that must hold on both families of servers.

Debian's stable releases have MariaDB only. The unstable one has MySQL, which is taken with all the
libraries it needs into a folder of ours and started by its own loader: nothing of the system
changes.
"""

import fcntl
import os
import subprocess
from pathlib import Path

from devstack.accounts import PASSWORDS, mysql_account_statements
from devstack.packages import install, require_program
from devstack.processes import HOST
from devstack.servers import MariaDB, ServerError

ROOT = Path(__file__).parent.parent / ".stack" / "mysql-root"
_SUITE = "sid"
_PACKAGE = "mysql-server-core"


def provide(root: Path = ROOT) -> Path:
    """Return the folder that has MySQL in it, made if it is not there; needs root, once.

    Raises `ServerError` saying what is missing when it cannot be made.
    """
    program = root / "usr/sbin/mysqld"
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / "mysql-root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _make(root)
    return root


def _make(root: Path) -> None:
    if os.geteuid() != 0:
        raise ServerError("MySQL is taken from Debian's unstable release: run this once as root")
    install(["mmdebstrap"])
    command = [
        require_program("mmdebstrap"),
        "--quiet",
        "--mode=root",
        "--variant=extract",
        f"--include={_PACKAGE}",
        # A mirror that is not updated any more is good enough for tests.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        _SUITE,
        str(root),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        errors = done.stderr.strip()[-1_000:]
        raise ServerError(f"MySQL could not be had from Debian's unstable release:\n{errors}")


class MySQL(MariaDB):
    """MySQL with the binlog that change capture needs, and the accounts of the MariaDB here."""

    title = "MySQL"

    def _install(self) -> None:
        # Some, such as lower-case-table-names, are taken now or never.
        options = [f"--{name}={value}" for name, value in self._options.items()]
        self._run([*self._program(), "--initialize-insecure", f"--datadir={self.data}", *options])

    def _initialise(self) -> None:
        super()._initialise()
        admin = [
            f"CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY '{PASSWORDS['admin']}'",
            "GRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION",
        ]
        statements = ["SET sql_log_bin = 0", *admin, *mysql_account_statements()]
        (self.folder / "accounts.sql").write_text("".join(f"{line};\n" for line in statements))

    def _command(self) -> list[str]:
        settings = {
            "datadir": self.data,
            "bind-address": HOST,
            "port": self.port,
            "socket": "mysql.sock",
            "pid-file": self.folder / "mysql.pid",
            "init-file": self.folder / "accounts.sql",
            "secure-file-priv": "",
            "mysqlx": "OFF",
            "skip-name-resolve": "ON",
            "server-id": 1,
            "log-bin": "binlog",
            "binlog-row-image": "FULL",
            "binlog-row-metadata": "FULL",
            "gtid-mode": "ON",
            "enforce-gtid-consistency": "ON",
            "character-set-server": "utf8mb4",
            "collation-server": "utf8mb4_unicode_ci",
            "default-time-zone": "+00:00",
            "max-connections": 300,
            "max-allowed-packet": 64 << 20,
            "local-infile": "ON",
            "sync-binlog": int(self._durable),
            "innodb-buffer-pool-size": self._buffer_pool_bytes,
            "innodb-flush-log-at-trx-commit": 1 if self._durable else 2,
            # Without Unix accounts there is no way in but ours.
            "performance-schema": "OFF",
        }
        chosen = settings | self._options
        return [*self._program(), *(f"--{name}={value}" for name, value in chosen.items())]

    def _program(self) -> list[str]:
        root = provide()
        libraries = [root / "usr/lib/x86_64-linux-gnu", root / "usr/lib/mysql/private"]
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        return [
            str(root / "usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path",
            ":".join(map(str, libraries)),
            str(root / "usr/sbin/mysqld"),
            "--no-defaults",
            *as_root,
            f"--basedir={root / 'usr'}",
            f"--lc-messages-dir={root / 'usr/share/mysql'}",
            f"--plugin-dir={root / 'usr/lib/mysql/plugin'}",
        ]
