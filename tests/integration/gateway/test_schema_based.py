"""The whole API against its own description, by schemathesis, with every check it has."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.running_gateway import RunningGateway
from tests.integration.gateway.conftest import Start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
# The stream of events never ends.
ENDLESS = "/v1/events"
OF_AGENTS = (
    r"^/v1/(assignments(/current|/.*/(heartbeat|release|outcome))?|agents/me|callbacks|people)"
)
PERSON = 4711
# Nothing in a context is ever left out.
CONTEXT = b'{"user": null, "claims": [], "call_state": null}'


async def run(gateway: RunningGateway, role: str, *arguments: str) -> tuple[int, str]:
    """Run schemathesis as a caller of this role; returns its exit code and what it found."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", f"{gateway.url}/openapi.json", "--no-color", "--warnings", "off"),
        *("--header", f"Authorization: Bearer {gateway.token(role, f'{role}-1')}"),
        *("--checks", "all", "--seed", "1", "--generation-database", "none"),
        *("--no-shrink", "--exclude-path", ENDLESS, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


class Forgetful(dict[Any, Any]):
    """Makes every request with a key a new one: schemathesis uses one key for many."""

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return default

    def __contains__(self, key: object) -> bool:
        return False


WHOLE = "--phases examples,coverage,fuzzing,stateful --max-examples 3 --max-time 30"
AGENTS = (
    f"--phases coverage,fuzzing --max-examples 3 --max-time 12 --include-path-regex {OF_AGENTS}"
)


@pytest.mark.parametrize(
    ("role", "arguments"), [("supervisor", WHOLE), ("agent", AGENTS)], ids=["supervisor", "agent"]
)
async def test_the_api_is_as_described(start: Start, role: str, arguments: str) -> None:
    gateway = await start(
        rate_limit_per_second=100_000, address_rate_limit_per_second=1_000_000, access_log=False
    )
    gateway.services.user_context.contexts[PERSON] = CONTEXT
    gateway.services.queue.answers = Forgetful()
    gateway.services.queue.ready = list(range(1, 100))
    gateway.services.queue.hold("agent-1", PERSON)
    code, output = await run(gateway, role, *arguments.split())
    assert code == 0, output
