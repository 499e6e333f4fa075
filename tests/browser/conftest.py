"""A real Chromium before a gateway in this process, with fakes behind it and a real Redis."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.reconciler.v1 import reconciler_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from playwright.async_api import Browser, Page, async_playwright

from tests.fakes.running_gateway import RunningGateway, running_gateway
from tests.fakes.upstreams import GatewayUpstreams

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Open = Callable[..., Awaitable[Page]]

_CLOSING_SECONDS = 15.0


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway whose figures move quickly, before a centre at work."""
    changes = {"events_figures_seconds": 0.1, "events_history_seconds": 0.2}
    async with running_gateway(redis_url, changes) as made:
        fill(made.services)
        yield made


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, with a profile of its own that is thrown away."""
    program = shutil.which("chromium")
    assert program, "Chromium is missing; `make browser` installs it"
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield made
        # One that does not go by itself goes with the driver.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                await made.close()


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[Open]:
    """Opens pages; at the end each must have been silent on the console."""
    async with AsyncExitStack() as stack:
        problems: list[str] = []

        async def opened(url: str, *, may_complain: bool = False, **options: Any) -> Page:
            context = await browser.new_context(locale="en-GB", **options)
            stack.push_async_callback(context.close)
            page = await context.new_page()
            if not may_complain:
                page.on("pageerror", lambda error: problems.append(str(error)))
                page.on(
                    "console",
                    lambda it: (
                        problems.append(it.text) if it.type in ("error", "warning") else None
                    ),
                )
            page.set_default_timeout(10_000)
            await page.goto(url)
            return page

        yield opened
        assert problems == []


def fill(services: GatewayUpstreams) -> None:
    """Make the fakes tell of an ordinary afternoon."""
    now = Timestamp()
    now.GetCurrentTime()
    stats = services.queue.stats = queue_pb2.GetQueueStatsResponse(
        agents_on_assignment=31,
        calls_today=1284,
        conversions_today=217,
        wrong_calls_prevented_today=14,
        callbacks_missed=2,
    )
    for queue, ready, waiting, assigned, ago in (
        (call_state_pb2.QUEUE_CALLBACKS, 6, 48, 4, 190),
        (call_state_pb2.QUEUE_UNSIGNED_USERS, 1842, 9613, 19, 5400),
        (call_state_pb2.QUEUE_OUTSTANDING_REQUESTS, 327, 2204, 8, 7900),
    ):
        made = stats.queues.add(queue=queue, ready=ready, waiting=waiting, assigned=assigned)
        made.oldest_ready_since.seconds = now.seconds - ago
    for outcome, calls in (
        (call_state_pb2.OUTCOME_NO_ANSWER, 611),
        (call_state_pb2.OUTCOME_COMPLETED_FORM, 217),
        (call_state_pb2.OUTCOME_CALL_BACK, 183),
        (call_state_pb2.OUTCOME_GOING_TO_COMPLETE, 141),
        (call_state_pb2.OUTCOME_HUNG_UP, 74),
        (call_state_pb2.OUTCOME_BAD_NUMBER, 58),
    ):
        stats.outcomes_today.add(outcome=outcome, calls=calls)
    for number in range(38):
        presence = (
            queue_pb2.PRESENCE_BREAK
            if number % 9 == 8
            else queue_pb2.PRESENCE_AVAILABLE
            if number % 9 == 7
            else queue_pb2.PRESENCE_ON_CALL
        )
        agent = queue_pb2.Agent(agent_id=f"agent-{number + 1}", presence=presence)
        agent.presence_since.seconds = now.seconds - 20 - 37 * number
        services.queue.agents[agent.agent_id] = agent
    run = reconciler_pb2.Run(
        run_id="8d5f6ac5-7a0e-4f28-9a6c-1b2f3c4d5e6f",
        kind=reconciler_pb2.RUN_KIND_FULL,
        state=reconciler_pb2.RUN_STATE_SUCCEEDED,
        users_checked=50_000,
    )
    run.ended_at.CopyFrom(now)
    services.reconciler.runs.append(run)
    services.reconciler.freshness = reconciler_pb2.GetFreshnessResponse(
        mode=reconciler_pb2.FRESHNESS_MODE_CHANGE_CAPTURE
    )
