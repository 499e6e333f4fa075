"""Messages of every format, and other messages beside them, through a real queue."""

import base64
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench

pytestmark = pytest.mark.integration

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*.json"))


def _debezium(table: str, op: str, after: object, before: object = None) -> dict[str, Any]:
    return {
        "op": op,
        "before": before,
        "after": after,
        "source": {"db": "mainapp", "table": table, "ts_ms": 1_748_854_800_000},
    }


def _maxwell(table: str, kind: str, data: object, old: object = None) -> dict[str, Any]:
    return {"database": "mainapp", "table": table, "type": kind, "data": data, "old": old}


def _kinesis(inner: object) -> dict[str, Any]:
    data = base64.b64encode(json.dumps(inner).encode()).decode()
    return {"kinesisSchemaVersion": "1.0", "eventSource": "aws:kinesis", "data": data}


def _sns(inner: object) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn", "Message": json.dumps(inner)}


async def test_every_format_refreshes_its_people(bench: "Bench") -> None:
    claim = {"id": 9, "user_id": 2}
    for body in (
        bench.change("users", {"id": 1}),
        _debezium("claims", "u", claim, {"id": 9, "user_id": 3}),
        {"schema": {}, "payload": _debezium("users", "d", None, {"id": 4})},
        _maxwell("claims", "update", {"id": 9, "user_id": 5}, {"user_id": 6}),
        _kinesis(bench.change("users", {"id": 7})),
        [_kinesis(bench.change("users", {"id": n})) for n in (8, 9)],
        _sns(_kinesis(_debezium("users", "c", {"id": -1}))),
    ):
        await bench.send(body)
    async with bench.running():
        await bench.emptied()
    assert set(bench.fakes.queue.user_ids()) == {*range(1, 10), 2**64 - 1}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (_debezium("claims", "t", None), "truncate-table claims"),
        (_maxwell("users", "table-alter", None), "alter-table users"),
        (_kinesis(_maxwell("claims", "table-drop", None)), "drop-table claims"),
        (_debezium("claims", "d", None, {"id": 9}), "delete-of-key-alone claims"),
    ],
)
async def test_what_cannot_be_followed_asks_for_a_full_run(
    bench: "Bench", body: object, reason: str
) -> None:
    await bench.send(body)
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.reconciler.reasons == [f"cdc_ingest: {reason}"]


def _spoilt(text: str, luck: random.Random) -> str:
    """The text with some of its characters gone or doubled."""
    for _ in range(luck.randint(0, 4)):
        at = luck.randrange(len(text))
        text = text[:at] + luck.choice(["", "{", '"', "null", text[at] * 2]) + text[at + 1 :]
    return text


async def test_nothing_that_lies_in_the_queue_stops_the_rest(bench: "Bench") -> None:
    luck = random.Random(4)
    users = range(1, 31)
    for user_id in users:
        await bench.send(_spoilt(luck.choice(SAMPLES).read_text(), luck))
        await bench.send(_spoilt(luck.choice(SAMPLES).read_text(), luck))
        await bench.send(bench.change("users", {"id": user_id}))
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.emptied()
        status = await operator.status()
    assert set(users) <= set(bench.fakes.queue.user_ids())
    # SQS may deliver a message twice, as it does when the machine is busy.
    assert status.messages_received >= 90
    assert status.messages_done + status.messages_dead == status.messages_received
    assert status.messages_dead > 0
