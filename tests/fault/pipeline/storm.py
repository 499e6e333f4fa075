"""Changes that keep coming in the main app while something breaks, and ways to break it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from random import Random
from types import TracebackType
from typing import Self

import httpx
import pymysql
from dialler.cdc_ingest.v1 import cdc_ingest_pb2 as pb
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.changes import MainApp
from devstack.processes import ChildProcess
from devstack.stack import Stack, wait_until

# One for each copy.
Ingest = Sequence[CdcIngestServiceStub]


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


def status(ingest: Ingest) -> pb.GetStatusResponse:
    """The status of all copies: counts added up, the latest time, an alarm of any.

    `downstream_unavailable` once it is so for every copy.
    """
    copies = [each.GetStatus(pb.GetStatusRequest(), timeout=10) for each in ingest]
    return pb.GetStatusResponse(
        messages_retried=sum(it.messages_retried for it in copies),
        messages_dead=sum(it.messages_dead for it in copies),
        messages_held=sum(it.messages_held for it in copies),
        downstream_unavailable=all(it.downstream_unavailable for it in copies),
        dead_letter_alarm=any(it.dead_letter_alarm for it in copies),
        capture_ahead_seconds=max(it.capture_ahead_seconds for it in copies),
        capture_alive_at=max((it.capture_alive_at for it in copies), key=_nanoseconds),
        applied_through=max((it.applied_through for it in copies), key=_nanoseconds),
    )


def _nanoseconds(moment: Timestamp) -> int:
    return moment.ToNanoseconds()


def pause(ingest: Ingest) -> None:
    """Pause every copy at once; by itself the pause of one reaches the others within seconds."""
    for each in ingest:
        each.PauseIngest(pb.PauseIngestRequest(), timeout=5)


def resume(ingest: Ingest) -> None:
    """End the pause of every copy."""
    for each in ingest:
        each.ResumeIngest(pb.ResumeIngestRequest(), timeout=5, wait_for_ready=True)


@contextlib.contextmanager
def halted(processes: Sequence[ChildProcess]) -> Iterator[None]:
    """Suspend processes: their connections stay open and they do not answer."""
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            # The test may have killed it meanwhile.
            if process.is_running:
                os.kill(process.pid, signal.SIGCONT)
