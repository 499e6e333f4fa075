"""One whole stack for the tests of this folder, with short times so that faults show soon."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub
from mypy_boto3_sqs.client import SQSClient

from devstack.desk import Desk
from devstack.queues import SqsEndpoint
from devstack.stack import Stack
from tests.fault.pipeline.comparison import await_agreement, runs
from tests.fault.pipeline.redis_name import NamedRedisStack, redis_name
from tests.fault.pipeline.storm import Ingest, resume

USERS = 300
COPIES = int(os.environ.get("DIALLER_TEST_COPIES", "1"))
VISIBILITY_SECONDS = 3
IMPATIENT = {
    "CDC_INGEST_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
    "CDC_INGEST_RECEIVE_WAIT_SECONDS": "1",
    "CDC_INGEST_REFRESH_TIMEOUT_SECONDS": "2",
    "CDC_INGEST_APPLY_TIMEOUT_SECONDS": "2",
    "CDC_INGEST_RETRY_FIRST_SECONDS": "0.2",
    "CDC_INGEST_RETRY_LONGEST_SECONDS": "2",
    # A tenth of it is how long a reading is doubted that another process has made sense of.
    "CDC_INGEST_STALE_PATIENCE_SECONDS": "100",
    "BINLOG_RELAY_RETRY_LONGEST_SECONDS": "0.5",
    "BINLOG_RELAY_HEARTBEAT_SECONDS": "0.5",
    # Nothing but the changes themselves may repair anything here.
    "RECONCILER_WATCH_SECONDS": "3600",
    # Many small messages rather than few packed ones: more to lose.
    "BINLOG_RELAY_MAX_RECORDS_PER_MESSAGE": "20",
}


@pytest.fixture(scope="session")
def running_stack() -> Iterator[NamedRedisStack]:
    """Every service, with every person in the queues and every context cached."""
    folder = Path(tempfile.mkdtemp(prefix="dialler-fault-"))
    folder.chmod(0o711)
    with (
        redis_name() as name,
        NamedRedisStack(
            folder,
            users=USERS,
            durable=False,
            copies=COPIES,
            extra_environment=IMPATIENT,
            report=lambda _: None,
            name=name,
        ) as running,
    ):
        with Desk(running.addresses, "supervisor", "supervisor-setup") as desk:
            desk.await_reconciled()
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack(running_stack: NamedRedisStack) -> Iterator[NamedRedisStack]:
    """The stack in agreement with MySQL; at the end all of it runs, and no full run has helped."""
    await_agreement(running_stack)
    before = runs(running_stack)
    yield running_stack
    assert runs(running_stack) == before, "repaired by a full run rather than by the changes"
    assert all(each.is_running for each in running_stack.services.values())


@pytest.fixture
def ingest(stack: Stack) -> Iterator[Ingest]:
    """The RPCs of an operator, to each copy; a pause that a test leaves is ended."""
    with contextlib.ExitStack() as channels:
        copies = [
            CdcIngestServiceStub(channels.enter_context(grpc.insecure_channel(address)))
            for address in stack.addresses.copies_of("cdc_ingest")
        ]
        yield copies
        resume(copies)


@pytest.fixture
def sqs(stack: Stack) -> Iterator[SQSClient]:
    with contextlib.closing(SqsEndpoint(stack.addresses.sqs_endpoint).client()) as client:
        yield client
