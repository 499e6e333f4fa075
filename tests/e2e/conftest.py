"""The whole suite running on private servers, once for all end-to-end tests of a worker."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.desk import Desk
from devstack.stack import Stack

USERS = 400


@contextmanager
def running_suite(environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Every service, with every user in the queues; `environment` goes to all of them."""
    folder = Path(tempfile.mkdtemp(prefix="dialler-e2e-"))
    folder.chmod(0o711)
    with Stack(
        folder,
        users=USERS,
        durable=False,
        extra_environment=environment or {},
        report=lambda _: None,
    ) as running:
        with Desk(running.addresses, "supervisor", "supervisor-setup") as desk:
            desk.await_reconciled()
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The suite that the tests share, but for those of traces."""
    with running_suite() as running:
        yield running


@pytest.fixture
def supervisor(stack: Stack) -> Iterator[Desk]:
    with Desk(stack.addresses, "supervisor", "supervisor-1") as desk:
        yield desk


@pytest.fixture
def agent(stack: Stack) -> Iterator[Desk]:
    """An agent of this test alone; a live assignment is released at the end."""
    with Desk(stack.addresses, "agent") as desk:
        yield desk
        desk.release()
