"""Both SQS endpoints the contract suites ask: ours and moto's."""

import asyncio
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from devstack.sqs.server import SqsServer
from tests.contract.sqs_cases import DIFFERENCE, Queues

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_REGION: Final = "eu-west-2"


@pytest.fixture(scope="session")
def devstack_url() -> Iterator[str]:
    """Serve our endpoint from a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = SqsServer("127.0.0.1", 0, _REGION)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server.endpoint_url
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Serve moto."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["devstack", "moto"])
def sqs(request: pytest.FixtureRequest) -> Iterator["SQSClient"]:
    """Return an unmodified boto3 client of either endpoint."""
    difference = getattr(request.function, DIFFERENCE, None)
    if request.param == "moto" and difference is not None:
        pytest.skip(f"moto differs from AWS: {difference}")
    client = boto3.client(
        "sqs",
        endpoint_url=request.getfixturevalue(f"{request.param}_url"),
        region_name=_REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}, max_pool_connections=20),
    )
    yield client
    client.close()


@pytest.fixture
def queues(sqs: "SQSClient") -> Queues:
    return Queues(sqs)
