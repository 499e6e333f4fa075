"""Messages as sources write them in the field; at the end the data equals MySQL's."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
from mypy_boto3_sqs.client import SQSClient

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until
from tests.fault.pipeline.comparison import await_agreement
from tests.fault.pipeline.storm import Ingest, Storm, pause, resume, status
from tests.fault.pipeline.test_delivery import drained
from tests.unit.cdc_ingest.wrappings import OF_DOCUMENTS, OF_TEXTS, kinesis_of

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

# SQS takes no control characters but tab and line breaks.
WRAPPINGS = [w for name, w in (OF_DOCUMENTS | OF_TEXTS).items() if "sequence" not in name]
FAR = "2099-01-01T00:00:00.000000Z"
Record = dict[str, Any]


def _records(bodies: list[str]) -> Iterator[Record]:
    """The records that the relay has packed, one by one."""
    for body in bodies:
        found = json.loads(body)
        yield from found if isinstance(found, list) else [found]


def _in_capitals(record: Record) -> Record:
    images = {
        name: {column.upper(): value for column, value in record[name].items()}
        for name in ("data", "before-image")
        if isinstance(record.get(name), dict)
    }
    metadata = record["metadata"]
    table = f"`mainapp`.`{metadata.get('table-name', '').upper()}`"
    return {**record, **images, "metadata": {**metadata, "table-name": table}}


def _with_underscores(record: Record) -> Record:
    metadata = {name.replace("-", "_"): value for name, value in record["metadata"].items()}
    return {**record, "metadata": metadata}


def _from_the_future(record: Record) -> Record:
    return {**record, "metadata": {**record["metadata"], "timestamp": FAR}}


SPELLINGS: list[Callable[[Record], Record]] = [
    _in_capitals,
    _with_underscores,
    _from_the_future,
    lambda record: record,
]


def test_changes_arrive_in_every_spelling_and_wrapping(
    stack: Stack, ingest: Ingest, sqs: SQSClient
) -> None:
    pause(ingest)
    with Storm(stack, "wrapped") as storm:
        storm.rages(250)
    records = [record for record in _records(drained(stack, sqs)) if "data" in record]
    assert len(records) > len(WRAPPINGS)
    dead = status(ingest).messages_dead
    ways = zip(records, cycle(WRAPPINGS), cycle(SPELLINGS), strict=False)
    for record, wrap, spelt in ways:
        sqs.send_message(
            QueueUrl=stack.addresses.sqs_queue, MessageBody=wrap(json.dumps(spelt(record)))
        )
    resume(ingest)
    await_agreement(stack)
    assert status(ingest).messages_dead == dead


def test_rows_of_no_owner_and_empty_records_never_stop_the_capture(
    stack: Stack, ingest: Ingest, sqs: SQSClient
) -> None:
    dead = status(ingest).messages_dead
    with Storm(stack, "ownerless") as storm:
        for number in range(130):
            stack.main_app.execute(
                "INSERT INTO user_addresses (id, user_id, type, is_linked_address)"
                " VALUES (%s, %s, 'x', 0)",
                [str(uuid.uuid4()), -(number % 3)],
            )
            sqs.send_message(QueueUrl=stack.addresses.sqs_queue, MessageBody=kinesis_of(b""))
            row = {"id": f"a{number}", "user_id": -1}
            source = {"db": "mainapp", "table": "user_addresses"}
            body = json.dumps({"op": "c", "before": None, "after": row, "source": source})
            sqs.send_message(QueueUrl=stack.addresses.sqs_queue, MessageBody=body)
        storm.rages()
    await_agreement(stack)
    found = status(ingest)
    assert (found.messages_dead, found.dead_letter_alarm) == (dead, False)


def _maxwell(kind: str, row: Record, xid: int, moment: int, **old: object) -> str:
    made = {"database": "mainapp", "table": "claims", "type": kind, "ts": moment}
    made |= {"xid": xid, "commit": True, "data": row}
    return json.dumps(made | ({"old": old} if old else {}))


def test_maxwell_tells_of_rows_that_come_and_go_within_its_second(
    stack: Stack, ingest: Ingest, sqs: SQSClient
) -> None:
    """150 pairs: dead-lettered as READING_STALE, they would have stopped the capture."""
    users = [
        int(row[0]) for row in stack.main_app.rows("SELECT id FROM users ORDER BY id LIMIT 75")
    ]
    claims = stack.main_app.rows("SELECT id, user_id, status FROM claims ORDER BY id LIMIT 75")
    moment = int(time.time())
    bodies: list[str] = []
    for number, user_id in enumerate(users):
        row = {"id": 9_000_000 + number, "user_id": user_id, "status": "open", "lender": "x"}
        bodies += [_maxwell(kind, row, 2 * number + n, moment) for n, kind in _PUT_AND_TAKEN]
    for number, (claim_id, user_id, is_status) in enumerate(claims):
        row = {"id": claim_id, "user_id": user_id, "status": is_status}
        there = {**row, "status": "checking"}
        xid = 10_000 + 2 * number
        bodies.append(_maxwell("update", there, xid, moment, status=is_status))
        bodies.append(_maxwell("update", row, xid + 1, moment, status="checking"))
    dead = status(ingest).messages_dead
    for body in bodies:
        sqs.send_message(QueueUrl=stack.addresses.sqs_queue, MessageBody=body)
    await_agreement(stack)
    found = status(ingest)
    assert (found.messages_dead, found.dead_letter_alarm) == (dead, False)


_PUT_AND_TAKEN = ((0, "insert"), (1, "delete"))


def test_a_record_of_2099_leaves_health_and_the_fallback_as_they_are(
    stack: Stack, ingest: Ingest, sqs: SQSClient
) -> None:
    (user_id,) = stack.main_app.rows("SELECT id FROM users ORDER BY id LIMIT 1")[0]
    record = {"data": {"id": user_id}, "metadata": {"operation": "update", "table-name": "users"}}
    sqs.send_message(
        QueueUrl=stack.addresses.sqs_queue, MessageBody=json.dumps(_from_the_future(record))
    )
    wait_until(lambda: status(ingest).capture_ahead_seconds > 86_400, 30, "the skew to show")
    bound = time.time() + 1
    found = status(ingest)
    assert found.capture_alive_at.seconds <= bound
    assert found.applied_through.seconds <= bound
    with Desk(stack.addresses, "supervisor") as desk:
        # Each copy knows of the messages that it has received.
        wait_until(lambda: _capture_ahead(desk) > 86_400, 30, "the gateway to show it")
    with MainApp(stack.addresses.mysql_writer) as main_app:
        main_app.set_status(int(user_id), "after 2099")
    await_agreement(stack)


def _capture_ahead(desk: Desk) -> float:
    return float(desk.get("/v1/pipeline")["ingest"]["capture_ahead_seconds"])
