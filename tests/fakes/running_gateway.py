"""A gateway in the test's process, in front of doubles."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.app import build
from gateway.settings import GatewaySettings
from gateway.token import development_token
from tests.fakes.upstreams import GatewayUpstreams


@dataclass(frozen=True)
class RunningGateway:
    """A gateway in this process, the doubles that it calls, and the secret of its tokens."""

    url: str
    services: GatewayUpstreams
    settings: GatewaySettings
    secret: str

    def token(self, role: str, subject: str, **options: Any) -> str:
        """Return a token it accepts."""
        return development_token(self.secret, role, subject, **options)

    def headers(self, role: str, subject: str, **options: Any) -> dict[str, str]:
        """Return the header that carries such a token."""
        return {"Authorization": f"Bearer {self.token(role, subject, **options)}"}


@asynccontextmanager
async def running_gateway(
    redis_url: str, changes: Mapping[str, Any] | None = None
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway on a free loopback port in front of doubles."""
    services = GatewayUpstreams()
    await services.start()
    secret = secrets.token_hex(32)
    values: dict[str, Any] = {
        "jwt_secret": secret,
        "redis_url": redis_url,
        "drain_seconds": 1.0,
        "redis_timeout_seconds": 3.0,
        # A test sees only the calls that its own requests make.
        "events_history_seconds": 3600.0,
        **services.targets(),
    }
    settings = GatewaySettings(**(values | dict(changes or {})))
    gateway = build(settings)
    await gateway.start()
    try:
        yield RunningGateway(f"http://{gateway.address}", services, settings, secret)
    finally:
        await gateway.stop()
        await services.stop()
