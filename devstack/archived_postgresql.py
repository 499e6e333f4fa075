"""A PostgreSQL whose WAL is archived, and which can be lost and restored as after a disaster."""

import shutil
from pathlib import Path

from devstack.accounts import PASSWORDS
from devstack.processes import wait_until
from devstack.servers import PostgreSQL, postgresql_program

_RESTORE_SECONDS = 600.0


class ArchivedPostgreSQL(PostgreSQL):
    """Keeps a base backup and the WAL since, each in a folder beside its data."""

    @property
    def archive(self) -> Path:
        """The folder of the archived WAL."""
        return self.data.with_name(f"{self.data.name}-archive")

    @property
    def backup(self) -> Path:
        """The folder of the base backup."""
        return self.data.with_name(f"{self.data.name}-backup")

    def back_up(self) -> None:
        """Take a base backup while the server works."""
        source = ["-h", self.host, "-p", str(self.port), "-U", "postgres"]
        self._make_private(self.backup)
        self._run(
            [
                postgresql_program("pg_basebackup"),
                *("-D", str(self.backup)),
                *("--checkpoint=fast", "--wal-method=stream"),
                *source,
            ],
            PGPASSWORD=PASSWORDS["postgres"],
        )

    def archive_now(self) -> None:
        """Have everything that is committed archived, as `archive_timeout` does by itself."""
        segment = self.execute("SELECT pg_walfile_name(pg_switch_wal())")
        wait_until(
            lambda: (self.archive / segment).exists(), seconds=_RESTORE_SECONDS, what="the archive"
        )

    def lose(self) -> None:
        """End as a machine does that is gone, disks and all; backup and archive remain."""
        self.kill()
        shutil.rmtree(self.data)

    def restore(self) -> None:
        """Come back from the base backup and all of the archive, and return when writable."""
        shutil.copytree(self.backup, self.data)
        (self.data / "recovery.signal").touch()
        self._own(self.data)
        self.start()
        wait_until(
            lambda: self.execute("SELECT pg_is_in_recovery()") == "f",
            seconds=_RESTORE_SECONDS,
            what="the end of the recovery",
        )

    def discard(self) -> None:
        """Kill the server and delete its data, backup and archive."""
        super().discard()
        for folder in (self.backup, self.archive):
            shutil.rmtree(folder, ignore_errors=True)

    def _initialise(self) -> None:
        super()._initialise()
        if not self.archive.exists():
            self._make_private(self.archive)

    def _command(self) -> list[str]:
        archive = self.archive
        settings = {
            "archive_mode": "on",
            "archive_command": f"cp %p {archive}/%f.part && mv {archive}/%f.part {archive}/%f",
            "archive_timeout": "60s",
            # Asked only where `recovery.signal` says so.
            "restore_command": f"cp {archive}/%f %p",
        }
        return [*super()._command(), *(f"--{name}={value}" for name, value in settings.items())]


def size_bytes(folder: Path) -> int:
    """Return how much is in a folder."""
    return sum(it.stat().st_size for it in folder.rglob("*") if it.is_file())
