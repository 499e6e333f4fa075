"""The whole suite running on private servers, once for all end-to-end tests of a worker."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.desk import Desk
from devstack.otlp import OtlpReceiver
from devstack.stack import Stack

USERS = 400


@pytest.fixture(scope="session")
def receiver() -> Iterator[OtlpReceiver]:
    """What every service sends its spans and metrics to."""
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="session")
def stack(receiver: OtlpReceiver) -> Iterator[Stack]:
    """Every service, with everybody in the queues."""
    folder = Path(tempfile.mkdtemp(prefix="dialler-e2e-"))
    folder.chmod(0o711)
    environment = receiver.environment(ratio=1.0, metrics_seconds=2.0)
    with Stack(
        folder,
        users=USERS,
        durable=False,
        extra_environment=environment,
        report=lambda _: None,
    ) as running:
        with Desk(running.addresses, "supervisor", "supervisor-setup") as desk:
            desk.await_reconciled()
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def supervisor(stack: Stack) -> Iterator[Desk]:
    with Desk(stack.addresses, "supervisor", "supervisor-1") as desk:
        yield desk


@pytest.fixture
def agent(stack: Stack) -> Iterator[Desk]:
    """An agent nobody else is; whoever is still held at the end is given back."""
    with Desk(stack.addresses, "agent") as desk:
        yield desk
        desk.give_back()
