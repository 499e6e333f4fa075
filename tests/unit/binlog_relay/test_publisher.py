"""What the queue refuses alone goes behind the others, and is given up once it takes those."""

import asyncio
import json
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from services.binlog_relay.domain.packing import PackedMessage, RowChange
from services.binlog_relay.publish.publisher import Publisher
from tests.fakes import waiting

GOOD: Final = b'{"is":"good"}'
BAD: Final = b'{"is":"bad"}'


class Endpoint:
    """Stands for SQS: refuses a whole request that holds what it will not take."""

    def __init__(self, code: str, status: int, *, takes_nothing: bool = False) -> None:
        self.taken: list[str] = []
        self.takes_nothing = takes_nothing
        self._answer: Any = {
            "Error": {"Code": code},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }

    def send_message_batch(self, **request: Any) -> dict[str, Any]:
        bodies = [entry["MessageBody"] for entry in request["Entries"]]
        if self.takes_nothing or any("bad" in body for body in bodies):
            raise ClientError(self._answer, "SendMessageBatch")
        self.taken += bodies
        return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]]}


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    return Publisher(
        "http://queue.test/1/changes",
        endpoint_url="http://queue.test",
        region="eu-west-2",
        sends_in_flight=2,
        retry_longest_seconds=0.01,
    )


def messages(*bodies: bytes) -> list[PackedMessage]:
    return [PackedMessage([RowChange(body, 2, 1)], len(body)) for body in bodies]


async def test_entries_that_fail_by_the_queues_fault_alone_fail_the_health(
    publisher: Publisher,
) -> None:
    endpoint: Any = FailingEntries()
    publisher._client = endpoint
    sending = asyncio.create_task(publisher.publish(messages(GOOD, GOOD)))
    async with waiting.limit(10):
        while not publisher.is_failing:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
    endpoint.is_well = True
    async with waiting.limit(10):
        assert await sending == []
    assert not publisher.is_failing


class FailingEntries:
    """Answers, and takes no entry until it is well again."""

    is_well = False

    def send_message_batch(self, **request: Any) -> dict[str, Any]:
        fault = {"Code": "InternalError", "SenderFault": False}
        entries = [{"Id": entry["Id"], **fault} for entry in request["Entries"]]
        return {"Successful" if self.is_well else "Failed": entries}


REFUSALS = pytest.mark.parametrize(
    ("code", "status"),
    [("ValidationException", 400), ("403", 403), ("InvalidMessageContents", 400)],
)


@REFUSALS
@pytest.mark.parametrize("bodies", [(BAD, GOOD), (GOOD, BAD), (BAD, BAD, GOOD), (BAD,)])
async def test_a_refused_record_is_given_up_wherever_it_stands(
    publisher: Publisher, code: str, status: int, bodies: tuple[bytes, ...]
) -> None:
    endpoint: Any = Endpoint(code, status)
    publisher._client = endpoint
    async with waiting.limit(10):
        assert await publisher.publish(messages(*bodies)) == [code] * bodies.count(BAD)
    assert endpoint.taken.count(GOOD.decode()) == bodies.count(GOOD)
    assert not publisher.is_failing


@REFUSALS
async def test_a_queue_that_refuses_everything_fails_and_nothing_is_given_up(
    publisher: Publisher, code: str, status: int
) -> None:
    endpoint: Any = Endpoint(code, status, takes_nothing=True)
    publisher._client = endpoint
    sending = asyncio.create_task(publisher.publish(messages(GOOD, GOOD)))
    async with waiting.limit(10):
        while not publisher.is_failing:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert not sending.done()
    endpoint.takes_nothing = False
    async with waiting.limit(10):
        assert await sending == []
    kept = [json.loads(body) for body in endpoint.taken]
    assert kept.count({"is": "good"}) == 2
    assert not publisher.is_failing
