"""The wallboard in a real Chromium: what it shows, in which states, to whom, how legibly."""

import math
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from dialler.queue.v1 import queue_pb2
from dialler.reconciler.v1 import reconciler_pb2
from playwright.async_api import Page, expect
from redis.asyncio import Redis as RedisClient

from gateway.live.history import KEY
from gateway.token import development_token
from servicekit.errors import Unavailable
from tests.fakes.running_gateway import RunningGateway, running_gateway

pytestmark = pytest.mark.browser

Open = Callable[..., Awaitable[Page]]

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2.0}
WALL: dict[str, Any] = {"viewport": {"width": 1920, "height": 1080}}
CANARY = "<img src=x onerror=\"document.title='owned'\">"


def address(gateway: RunningGateway, role: str = "supervisor") -> str:
    """Return the page's address with a token handed over."""
    return f"{gateway.url}/wallboard#token={gateway.token(role, 'boss')}"


def ready(page: Page, queue: str = "unsigned_users") -> Any:
    return page.locator(f'[data-queue="{queue}"] .ready')


async def past_hour(redis_url: str) -> None:
    """Fill the last hour with samples."""
    now = int(time.time())
    samples = []
    for ago in range(3590, 15, -15):
        phase = (3600 - ago) / 3600
        samples.append(
            {
                "at": now - ago,
                "ready": {
                    "callbacks": round(9 + 7 * math.sin(phase * 9)),
                    "unsigned_users": round(2100 - 258 * phase + 40 * math.sin(phase * 40)),
                    "outstanding_requests": round(410 - 83 * phase + 12 * math.sin(phase * 31)),
                },
                "calls": round(1130 + 154 * phase + 3 * math.sin(phase * 12)),
                "conversions": round(190 + 27 * phase),
                "on_call": 30,
                "p50": 0.05 + 0.01 * math.sin(phase * 50),
                "p99": 0.3 + 0.2 * abs(math.sin(phase * 23)),
                "backlog": 3,
            }
        )
    async with RedisClient.from_url(redis_url) as redis:
        await redis.rpush(KEY, *(orjson.dumps(each) for each in samples))


async def serious(page: Page) -> list[str]:
    """Return what axe finds serious or worse."""
    await page.evaluate(AXE.read_text(encoding="utf-8") + "\n;0")
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


async def overflow(page: Page) -> int:
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(await page.evaluate(script))


async def photograph(page: Page, name: str) -> None:
    """Keep a picture in the folder that WALLBOARD_PICTURES names, if it does."""
    if folder := os.environ.get("WALLBOARD_PICTURES"):
        await page.wait_for_timeout(400)
        await page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


async def test_figures_follow(gateway: RunningGateway, open_page: Open) -> None:
    page = await open_page(address(gateway), **WALL)
    await expect(page.locator("#connection-text")).to_have_text("Live")
    await expect(ready(page)).to_have_text("1,842")
    await expect(page.locator("#today .figure", has_text="Calls").first).to_contain_text("1,284")
    await expect(page.locator("#freshness-text")).to_have_text("Fresh: change capture")
    assert gateway.services.queue.stats is not None
    gateway.services.queue.stats.queues[1].ready = 1843
    await expect(ready(page)).to_have_text("1,843")
    gateway.services.queue.stats.unreported_calls_today = 3
    gateway.services.queue.agent("gone").today.unreported_calls = 3
    await expect(page.locator("#unreported")).to_have_text("Calls without a report: gone 3")
    assert await page.locator(".banner").count() == 0


async def test_token_leaves_the_address_and_survives_a_reload(
    gateway: RunningGateway, open_page: Open
) -> None:
    page = await open_page(address(gateway))
    await expect(ready(page)).to_have_text("1,842")
    assert page.url == f"{gateway.url}/wallboard"
    await page.reload()
    await expect(ready(page)).to_have_text("1,842")
    assert await page.evaluate("Object.keys(localStorage)") == ["wallboard-theme"]
    assert await page.evaluate("document.cookie") == ""
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token", exact=True)).to_be_focused()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_no_request_leaves_the_gateway_or_holds_the_token(
    gateway: RunningGateway, open_page: Open
) -> None:
    page = await open_page("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    token = gateway.token("supervisor", "boss")
    await page.goto(f"{gateway.url}/wallboard#token={token}")
    await expect(ready(page)).to_have_text("1,842")
    assert len(asked) >= 8
    outside = [each for each in asked if not each.startswith((gateway.url, "data:"))]
    assert outside == []
    assert not any(token in each.partition("#")[0] for each in asked)


async def test_signing_in_by_hand_and_with_the_keyboard_alone(
    gateway: RunningGateway, open_page: Open
) -> None:
    page = await open_page(f"{gateway.url}/wallboard", may_complain=True)
    await expect(page.get_by_label("Token", exact=True)).to_be_focused()
    await page.keyboard.type(gateway.token("agent", "agent-1"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("for supervisors")
    await page.get_by_label("Token", exact=True).fill("nonsense")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("not valid")
    await page.get_by_label("Token", exact=True).fill(gateway.token("supervisor", "boss"))
    await page.keyboard.press("Enter")
    await expect(ready(page)).to_have_text("1,842")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Theme: auto")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_legible_to_every_viewer(
    gateway: RunningGateway, open_page: Open, redis_url: str, scheme: str
) -> None:
    await past_hour(redis_url)
    page = await open_page(address(gateway), color_scheme=scheme, **WALL)
    await expect(ready(page)).to_have_text("1,842")
    await expect(page.locator("#ready-chart canvas")).to_be_visible()
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(13, 19, 25)") == (scheme == "dark")
    size = await ready(page).evaluate("it => parseFloat(getComputedStyle(it).fontSize)")
    assert size >= 96
    label = await page.locator("#ready-chart").get_attribute("aria-label")
    assert label is not None
    assert "Unsigned: 1,842 now, between" in label
    assert await overflow(page) == 0
    await photograph(page, f"wall-{scheme}")
    height = await page.evaluate("document.documentElement.scrollHeight")
    assert height <= WALL["viewport"]["height"], "a wall screen cannot be scrolled"
    assert await serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_phone(gateway: RunningGateway, open_page: Open, redis_url: str, scheme: str) -> None:
    await past_hour(redis_url)
    page = await open_page(address(gateway), color_scheme=scheme, **PHONE)
    await expect(ready(page)).to_have_text("1,842")
    await expect(page.locator("#ready-chart canvas")).to_be_visible()
    await photograph(page, f"phone-{scheme}")
    assert await overflow(page) == 0
    assert await serious(page) == []


async def test_sign_in_page_is_accessible(gateway: RunningGateway, open_page: Open) -> None:
    page = await open_page(f"{gateway.url}/wallboard", **PHONE)
    await expect(page.get_by_label("Token", exact=True)).to_be_visible()
    await photograph(page, "sign-in")
    assert await overflow(page) == 0
    assert await serious(page) == []


async def test_hostile_text_is_shown_as_text(gateway: RunningGateway, open_page: Open) -> None:
    services = gateway.services
    services.queue.agents[CANARY] = queue_pb2.Agent(
        agent_id=CANARY, presence=queue_pb2.PRESENCE_ON_CALL
    )
    services.reconciler.freshness = reconciler_pb2.GetFreshnessResponse(
        mode=reconciler_pb2.FRESHNESS_MODE_BATCH, reason=CANARY
    )
    page = await open_page(address(gateway), **PHONE)
    await expect(page.locator("#agent-list .who").first).to_have_text(CANARY)
    await expect(page.locator(".banner", has_text="Change capture")).to_contain_text(CANARY)
    assert await page.locator("#board img").count() == 0
    assert await page.title() == "Wallboard"
    assert await overflow(page) == 0


async def test_what_cannot_be_asked_is_named(gateway: RunningGateway, open_page: Open) -> None:
    page = await open_page(address(gateway), **WALL)
    await expect(ready(page)).to_have_text("1,842")
    for method in ("GetQueueStats", "ListAgents"):
        gateway.services.queue.failures[method] = Unavailable("DATABASE_AWAY", "away")
    gateway.services.cdc_ingest.failures["GetStatus"] = Unavailable("QUEUE_AWAY", "away")
    await expect(page.get_by_text("Agents cannot be asked: DATABASE_AWAY")).to_have_count(2)
    await expect(ready(page)).to_have_text("\u2013")
    banner = page.locator(".banner", has_text="Change latency, backlog and dead letters")
    await expect(banner).to_contain_text("cannot be asked: QUEUE_AWAY")
    await photograph(page, "away")
    assert await serious(page) == []
    gateway.services.queue.failures.clear()
    gateway.services.cdc_ingest.failures.clear()
    await expect(ready(page)).to_have_text("1,842")
    await expect(page.locator(".banner")).to_have_count(0)


async def test_batch_freshness_is_said_once(gateway: RunningGateway, open_page: Open) -> None:
    page = await open_page(address(gateway), **WALL)
    await expect(page.locator("#freshness-text")).to_have_text("Fresh: change capture")
    since = reconciler_pb2.GetFreshnessResponse(
        mode=reconciler_pb2.FRESHNESS_MODE_BATCH, reason="CAPTURE_SILENT"
    )
    since.since.GetCurrentTime()
    gateway.services.reconciler.freshness = since
    await expect(page.locator(".banner")).to_contain_text("CAPTURE_SILENT")
    await expect(page.locator("#freshness-text")).to_have_text("Batch freshness")
    await expect(page.locator("#announcer")).to_have_text("Batch freshness")
    # Figures that move are not read out.
    assert gateway.services.queue.stats is not None
    gateway.services.queue.stats.queues[1].ready = 7
    await expect(ready(page)).to_have_text("7")
    await expect(page.locator("#announcer")).to_have_text("Batch freshness")
    assert await page.locator("[aria-live], [role=status]").count() == 1
    await photograph(page, "batch")


async def test_an_empty_centre(gateway: RunningGateway, open_page: Open) -> None:
    gateway.services.queue.stats = queue_pb2.GetQueueStatsResponse()
    gateway.services.queue.agents.clear()
    gateway.services.reconciler.runs.clear()
    page = await open_page(address(gateway), **WALL)
    await expect(ready(page)).to_have_text("0")
    await expect(page.get_by_text("No agent is present")).to_be_visible()
    await expect(page.get_by_text("No reconciliation yet")).to_be_visible()
    await photograph(page, "empty")
    assert await serious(page) == []


async def test_lost_connection_shows_since_when_and_comes_back(
    redis_url: str, open_page: Open
) -> None:
    changes: dict[str, Any] = {"events_figures_seconds": 0.1, "jwt_secret": "s" * 32}
    async with running_gateway(redis_url, changes) as first:
        token = development_token(changes["jwt_secret"], "supervisor", "boss")
        port = int(first.url.rpartition(":")[2])
        url = f"{first.url}/wallboard#token={token}"
        page = await open_page(url, may_complain=True, **WALL)
        await expect(page.locator("#connection-text")).to_have_text("Live")
    await expect(page.locator("#connection-text")).to_contain_text("Not live since")
    await expect(page.locator("#announcer")).to_contain_text("The connection is lost")
    await photograph(page, "lost")
    async with running_gateway(redis_url, {**changes, "http_port": port}):
        await expect(page.locator("#connection-text")).to_have_text("Live", timeout=20_000)
        await expect(page.locator("#announcer")).to_have_text("Connected again.")


async def test_expired_token_asks_for_another(gateway: RunningGateway, open_page: Open) -> None:
    token = gateway.token("supervisor", "boss", ttl_seconds=-120)
    page = await open_page(f"{gateway.url}/wallboard#token={token}", may_complain=True)
    await expect(page.get_by_role("alert")).to_contain_text("expired")


async def test_headers(gateway: RunningGateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        page = await client.get("/wallboard")
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert page.headers["x-frame-options"] == "DENY"
        again = await client.get("/wallboard", headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304
        for name in ("vendor.json", "..%2fapp.py", "index.html", "nothing"):
            assert (await client.get(f"/wallboard/{name}")).status_code == 404
