"""Reproduces a fault that the simulation has found; remove the mark with the fault."""

from datetime import timedelta

import pytest
from dialler.queue.v1 import queue_pb2

from servicekit.testing.clock import FakeClock
from services.queue.testing import RunningQueue, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

_REQUEST_IDS = ("9f1b7a52-6f0e-4f62-8a53-0c6f3f5c1a01", "9f1b7a52-6f0e-4f62-8a53-0c6f3f5c1a02")


@pytest.mark.xfail(strict=True, reason="LiftSuppression forgets the cooling of a newcomer")
async def test_a_newcomer_cools_though_suppressed_and_lifted(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1, created_at=clock.now()))
    clock.advance(timedelta(minutes=1))
    await queue.stub.SuppressUser(
        queue_pb2.SuppressUserRequest(
            user_id=1, actor_id="sue", notes="by letter", request_id=_REQUEST_IDS[0]
        )
    )
    await queue.stub.LiftSuppression(
        queue_pb2.LiftSuppressionRequest(
            user_id=1, actor_id="sue", notes="a mistake", request_id=_REQUEST_IDS[1]
        )
    )
    assert not (await desk.claim("ann")).HasField("assignment")
