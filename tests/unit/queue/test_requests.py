"""The contract's requests to values; what is none is refused."""

import pytest
from dialler.model.v1 import facts_pb2
from dialler.queue.v1 import queue_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument
from services.queue.types import Queue
from services.queue.wire import requests


def test_absent_is_not_empty() -> None:
    claim = facts_pb2.ClaimFacts(requirements=[facts_pb2.RequirementFacts(status="")])
    facts = requests.facts_of(facts_pb2.UserFacts(user_id=1, status="", claims=[claim]))
    assert facts.status == ""
    assert facts.phones == ()
    assert facts.created_at is None
    assert facts.claims[0].status is None
    assert facts.claims[0].requirements[0].status == ""
    assert facts.claims[0].requirements[0].type is None


@pytest.mark.parametrize("fingerprint", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_fingerprints_fit_the_column_and_stay_apart(fingerprint: int) -> None:
    found = requests.facts_of(facts_pb2.UserFacts(fingerprint=fingerprint)).fingerprint
    assert -(2**63) <= found < 2**63
    assert found % 2**64 == fingerprint


def test_of_repeats_the_latest_reading_counts() -> None:
    facts = [facts_pb2.UserFacts(user_id=7, version=version) for version in (2, 3, 1)]
    updates = requests.updates_of(queue_pb2.ApplyUserFactsRequest(facts=facts))
    assert [it.facts.version for it in updates] == [3]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ([facts_pb2.UserFacts(user_id=0, version=1)], "USER_ID_MISSING"),
        ([facts_pb2.UserFacts(user_id=2**63, version=1)], "USER_ID_TOO_LARGE"),
        ([facts_pb2.UserFacts(user_id=1, version=0)], "FACTS_NOT_VERSIONED"),
        (
            [facts_pb2.UserFacts(user_id=it, version=1) for it in range(1, 1002)],
            "TOO_MANY_USERS",
        ),
        (
            [facts_pb2.UserFacts(user_id=1, version=1, created_at=Timestamp(seconds=2**60))],
            "TIMESTAMP_INVALID",
        ),
    ],
)
def test_facts_that_cannot_be_applied(facts: list[facts_pb2.UserFacts], reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        requests.updates_of(queue_pb2.ApplyUserFactsRequest(facts=facts))
    assert raised.value.reason == reason


def test_queues_asked_for_come_after_callbacks() -> None:
    first, second = Queue.UNSIGNED_USERS, Queue.OUTSTANDING_REQUESTS
    default = (first, second)
    assert requests.queues_of([], default) == (Queue.CALLBACKS, first, second)
    assert requests.queues_of([2, 1, 2], default) == (Queue.CALLBACKS, second, first)
    assert requests.queues_of([3, 1], default) == (Queue.CALLBACKS, first)
    assert requests.queues_of([3, 99], default) == (Queue.CALLBACKS,)
    with pytest.raises(InvalidArgument):
        requests.queues_of([1, 0], default)


@pytest.mark.parametrize("born", ["", "0000-00-00", "1980-02-30", "soon"])
def test_days_that_are_none(born: str) -> None:
    assert requests.facts_of(facts_pb2.UserFacts(date_of_birth=born)).date_of_birth is None


@pytest.mark.parametrize("agent", ["", "  ", "a" * 201, "a\nb", "a\0"])
def test_agents_that_are_none(agent: str) -> None:
    with pytest.raises(InvalidArgument):
        requests.agent_of(agent)


@pytest.mark.parametrize("number", [6, 7, -1])
def test_states_that_cannot_be_asked_for(number: int) -> None:
    with pytest.raises(InvalidArgument):
        requests.state_of(number)
