"""Changes that keep coming in the main app while something breaks, and ways to break it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from random import Random
from types import TracebackType
from typing import Self

import httpx
import pymysql
from dialler.cdc_ingest.v1 import cdc_ingest_pb2 as pb
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub

from devstack.changes import MainApp
from devstack.processes import ChildProcess
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
        self._may_rage = threading.Event()
        self._may_rage.set()
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

    @contextlib.contextmanager
    def calm(self) -> Iterator[None]:
        """Make no changes within the block, but for one that is under way."""
        self._may_rage.clear()
        try:
            yield
        finally:
            self._may_rage.set()

    def _run(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            self._may_rage.wait()
            try:
                self._main_app.random_change(self._rng)
                self.made += 1
            except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
                # Deadlocks and an unavailable server: the main app would retry.
                self._stop.wait(0.1)


def fail_requests(stack: Stack, action: str, requests: int) -> None:
    """Have SQS answer 500 to so many of the next requests of an action."""
    order = {"action": action, "requests": requests}
    httpx.post(f"{stack.addresses.sqs_endpoint}/_faults", json=order).raise_for_status()


def status(ingest: CdcIngestServiceStub) -> pb.GetStatusResponse:
    """The status of the ingest."""
    return ingest.GetStatus(pb.GetStatusRequest(), timeout=10)


@contextlib.contextmanager
def halted(process: ChildProcess) -> Iterator[None]:
    """Suspend a process: its connections stay open and it does not answer."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        # The test may have killed it meanwhile.
        if process.is_running:
            os.kill(process.pid, signal.SIGCONT)
