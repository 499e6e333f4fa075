"""Deliveries that SQS may repeat or delay, faulty messages, and copies that fail."""

from __future__ import annotations

import random
from collections.abc import Callable

import grpc
import pytest
from dialler.binlog_relay.v1 import binlog_relay_pb2
from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import BinlogRelayServiceStub
from mypy_boto3_sqs.client import SQSClient

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until
from tests.fault.pipeline.comparison import await_agreement
from tests.fault.pipeline.storm import Ingest, Storm, halted, pause, resume, status

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


def test_messages_come_twice_and_in_any_order(stack: Stack, ingest: Ingest, sqs: SQSClient) -> None:
    pause(ingest)
    with Storm(stack, "shuffled") as storm:
        storm.rages(200)
    bodies = drained(stack, sqs)
    assert len(bodies) > 5
    bodies *= 2
    random.Random("shuffled").shuffle(bodies)
    for body in bodies:
        sqs.send_message(QueueUrl=stack.addresses.sqs_queue, MessageBody=body)
    resume(ingest)
    await_agreement(stack)


def test_a_copy_has_not_seen_what_another_saw_set_back(
    stack: Stack, ingest: Ingest, sqs: SQSClient
) -> None:
    """No copy here receives the later changes, as when the one that did has been restarted."""
    rows = stack.main_app.rows("SELECT id, COALESCE(status, '') FROM claims LIMIT 400")
    claims = {int(claim_id): str(status) for claim_id, status in rows}
    pause(ingest)
    with MainApp(stack.addresses.mysql_writer) as main_app:
        main_app.update_claims(list(claims), "checking")
        earlier = drained(stack, sqs)
        for claim_id in list(claims)[::7]:
            main_app.update_claims([claim_id], claims[claim_id] or None)
    assert drained(stack, sqs), "the later changes"
    before = status(ingest)
    for body in earlier:
        sqs.send_message(QueueUrl=stack.addresses.sqs_queue, MessageBody=body)
    resume(ingest)
    await_agreement(stack)
    assert status(ingest).messages_dead == before.messages_dead


def drained(stack: Stack, sqs: SQSClient) -> list[str]:
    """Empty the queue, once the relay has sent everything."""
    bodies: list[str] = []
    while True:
        answer = sqs.receive_message(
            QueueUrl=stack.addresses.sqs_queue,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=3,
            VisibilityTimeout=60,
        )
        found = answer.get("Messages", [])
        if not found:
            return bodies
        for message in found:
            bodies.append(message["Body"])
            sqs.delete_message(
                QueueUrl=stack.addresses.sqs_queue, ReceiptHandle=message["ReceiptHandle"]
            )


def _at_rest(read: Callable[[], int]) -> int:
    """Return the figure once it has stayed the same for some seconds."""
    figures = [read()]

    def has_stayed() -> bool:
        figures.append(read())
        return len(figures) > 100 and len(set(figures[-100:])) == 1

    wait_until(has_stayed, 60, "the figure to come to rest")
    return figures[-1]


@pytest.mark.parametrize("name", ["user_context", "queue"])
def test_downstream_hangs(stack: Stack, ingest: Ingest, name: str) -> None:
    with Storm(stack, f"slow {name}") as storm:
        with halted(stack.copies_of(name)):
            wait_until(lambda: status(ingest).downstream_unavailable, 20, "the ingest to notice")
            noticed = status(ingest)
            storm.rages(150)
            # What was under way goes back once, on a busy machine some seconds later ...
            settled = _at_rest(lambda: status(ingest).messages_retried)
            assert settled - noticed.messages_retried <= noticed.messages_held
            storm.rages(150)
            # ... and nothing more is taken.
            assert status(ingest).messages_retried == settled, "receives were burnt"
        wait_until(lambda: not status(ingest).downstream_unavailable, 30, "the ingest to go on")
    await_agreement(stack)


def test_poison_among_good_ones_is_dead_lettered_alone_and_can_be_sent_again(
    stack: Stack, ingest: Ingest, sqs: SQSClient
) -> None:
    poison = ["no json", '{"metadata": 3}', "[" + '{"metadata": {"operation": "update"}}]']
    with Storm(stack, "poison") as storm:
        for body in poison:
            sqs.send_message(QueueUrl=stack.addresses.sqs_queue, MessageBody=body)
            storm.rages(20)
    await_agreement(stack, dead_letters=len(poison))
    with Desk(stack.addresses, "supervisor") as desk:
        path = "/v1/pipeline/dead-letters"
        reasons = {each["reason"] for each in desk.get(path)["dead_letters"]}
        assert {"BODY_NOT_JSON", "FORMAT_UNKNOWN", "DMS_TABLE_MISSING"} == reasons
        dry = desk.post(f"{path}/redrive", {"all": True, "dry_run": True}).json()
        assert (dry["matched"], dry["sent"]) == (3, 0)
        done = desk.post(f"{path}/redrive", {"reason": "BODY_NOT_JSON"}).json()
        assert done["sent"] == 1
    dead = status(ingest).messages_dead
    wait_until(
        lambda: status(ingest).messages_dead >= dead, 20, "the message to be dead-lettered again"
    )
    sqs.purge_queue(QueueUrl=stack.addresses.sqs_dlq)


def test_visibility_expires_during_the_work(stack: Stack, ingest: Ingest, sqs: SQSClient) -> None:
    with Storm(stack, "visibility") as storm:
        # Held messages cannot be extended by a process that does not run.
        with halted(stack.copies_of("queue")):
            storm.rages()
            wait_until(lambda: status(ingest).messages_held > 20, 20, "messages to be held")
            with halted(stack.copies_of("cdc_ingest")):
                wait_until(lambda: _in_flight(stack, sqs) == 0, 20, "visibility to expire")
        storm.rages()
    await_agreement(stack)


def _in_flight(stack: Stack, sqs: SQSClient) -> int:
    answer = sqs.get_queue_attributes(QueueUrl=stack.addresses.sqs_queue, AttributeNames=["All"])
    return int(answer["Attributes"]["ApproximateNumberOfMessagesNotVisible"])


def test_two_relays_at_once(stack: Stack) -> None:
    if stack.copies < 2:
        pytest.skip("one copy")
    first, second = _leader_first(stack)
    with Storm(stack, "relays") as storm:
        storm.rages()
        stack.services[first].kill()
        wait_until(lambda: _position(stack, second).active, 10, "the standby to take over")
        storm.rages()
        stack.restart("binlog_relay")
        assert not _position(stack, first).active
    await_agreement(stack)
    assert _position(stack, second).gaps == 0
    stack.services[second].kill()
    wait_until(lambda: _position(stack, first).active, 10, "the first to take over again")
    stack.restart("binlog_relay")


def _leader_first(stack: Stack) -> list[str]:
    """Return the names of both relays, the one that leads first."""
    names = [it.name for it in stack.copies_of("binlog_relay")]
    wait_until(lambda: any(_position(stack, it).active for it in names), 20, "a leader")
    return sorted(names, key=lambda it: not _position(stack, it).active)


def _position(stack: Stack, name: str) -> binlog_relay_pb2.GetPositionResponse:
    names = [it.name for it in stack.copies_of("binlog_relay")]
    address = stack.addresses.copies_of("binlog_relay")[names.index(name)]
    with grpc.insecure_channel(address) as channel:
        stub = BinlogRelayServiceStub(channel)
        return stub.GetPosition(binlog_relay_pb2.GetPositionRequest(), timeout=5)
