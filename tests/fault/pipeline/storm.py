"""Changes that keep coming in the main app while something breaks."""

from __future__ import annotations

import threading
from random import Random
from types import TracebackType
from typing import Self

import pymysql

from devstack.changes import MainApp
from devstack.stack import Stack, wait_until


class Storm:
    """Makes random changes, one transaction each, as fast as `pause_seconds` lets it.

    Use as a context manager; those that meet a MySQL which is away are left out.
    """

    def __init__(self, stack: Stack, seed: str, *, pause_seconds: float = 0.004) -> None:
        self.made = 0
        self._main_app = MainApp(stack.addresses.mysql_writer)
        self._rng = Random(seed)
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.rages()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._main_app.close()

    def rages(self, changes: int = 60) -> None:
        """Wait until it has made so many more changes."""
        enough = self.made + changes
        wait_until(lambda: self.made >= enough, 60, "changes")

    def _run(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            try:
                self._main_app.random_change(self._rng)
                self.made += 1
            except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
                # Deadlocks and a server that is away: the main app would try again.
                self._stop.wait(0.1)
