"""Serve until SIGTERM or SIGINT; prints one JSON line with the address once ready."""

import argparse
import asyncio
import json
import signal

import uvloop

from devstack.sqs.server import SqsServer


async def _serve(host: str, port: int, region: str) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = SqsServer(host, port, region)
    await server.start()
    print(json.dumps({"endpoint_url": server.endpoint_url}), flush=True)
    await stopping.wait()
    await server.stop()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m devstack.sqs", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--region", default="eu-west-2")
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.host, arguments.port, arguments.region))


if __name__ == "__main__":
    main()
