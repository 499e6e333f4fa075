"""Writes ``clients/typescript/openapi.json``: what a gateway answers at ``/openapi.json``.

The TypeScript client's types are generated from it, so it is committed and checked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sys
from pathlib import Path

import httpx

from devstack.processes import free_port
from gateway.app import build
from gateway.settings import GatewaySettings

FILE = Path(__file__).parent.parent / "clients" / "typescript" / "openapi.json"


async def document() -> str:
    """Return the file's text, from a gateway without any services."""
    unused_address = f"127.0.0.1:{free_port()}"
    settings = GatewaySettings(
        http_host="127.0.0.1",
        http_port=0,
        jwt_secret=secrets.token_hex(32),
        redis_url=f"redis://{unused_address}/0",
        user_context_target=unused_address,
        queue_target=unused_address,
        access_log=False,
    )
    gateway = build(settings)
    await gateway.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{gateway.address}") as client:
            answer = (await client.get("/openapi.json")).raise_for_status().json()
    finally:
        await gateway.stop()
    return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file, or with ``--check`` say (1) that it is not current."""
    # That Redis does not answer is no news here.
    logging.disable()
    current = asyncio.run(document())
    if "--check" not in sys.argv:
        FILE.write_text(current, encoding="utf-8")
        return 0
    if not FILE.exists() or FILE.read_text(encoding="utf-8") != current:
        sys.stderr.write("clients/typescript/openapi.json is not what we serve; run: make ts\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
