"""Who is shown which event, whom an agent is taken to hold, and what a slow client gets."""

import asyncio
import json
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2

from gateway.access.auth import Caller, Role
from gateway.live.clients import EventClient
from gateway.live.events import EventView, Published
from gateway.live.topics import Topic
from gateway.resources.fields import EventType
from servicekit.event_stream import StreamPosition

STARTED = event_pb2.EVENT_TYPE_ASSIGNMENT_STARTED
ENDED = event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED
MOVED = event_pb2.EVENT_TYPE_ENTRY_MOVED
CHANGED = event_pb2.EVENT_TYPE_CONTEXT_CHANGED
RECORDED = event_pb2.EVENT_TYPE_OUTCOME_RECORDED
OBJECTION = event_pb2.EVENT_TYPE_OBJECTION_RECORDED


def agent(queues: frozenset[str] | None = None) -> Caller:
    return Caller("agent-1", Role.AGENT, queues, 0.0)


def supervisor() -> Caller:
    return Caller("boss", Role.SUPERVISOR, None, 0.0)


def place(number: int) -> StreamPosition:
    return StreamPosition("e", f"{number}-0")


def published(
    number: int, kind: event_pb2.EventType.ValueType, user_id: int, agent_id: str = ""
) -> Published:
    event = event_pb2.Event(
        type=kind,
        user_id=user_id,
        agent_id=agent_id,
        assignment_id="a" if agent_id else "",
        queue_after=call_state_pb2.QUEUE_CALLBACKS,
    )
    return Published(place(number), event)


def shown(block: bytes | None) -> dict[str, Any] | None:
    if block is None:
        return None
    (line,) = [each for each in block.splitlines() if each.startswith(b"data:")]
    return dict(json.loads(line.removeprefix(b"data:")))


def blocks_of(content: bytes | None) -> list[str]:
    return [] if content is None else content.decode().split("\n\n")[:-1]


def test_supervisor_sees_everything() -> None:
    view = EventView(supervisor())
    for kind in (STARTED, ENDED, MOVED, CHANGED, RECORDED, OBJECTION):
        body = shown(view.block(published(1, kind, 7, "agent-1")))
        assert body is not None
        assert body["agent_id"] == "agent-1"


def test_agent_sees_its_own_person_while_it_holds_it() -> None:
    view = EventView(agent())
    view.begin([], None)
    assert view.block(published(1, CHANGED, 7)) is None
    assert shown(view.block(published(2, STARTED, 7, "agent-1")))
    assert shown(view.block(published(3, CHANGED, 7)))
    assert view.block(published(4, CHANGED, 8)) is None
    assert shown(view.block(published(5, RECORDED, 7, "agent-1")))
    assert shown(view.block(published(6, ENDED, 7, "agent-1")))
    assert view.block(published(7, CHANGED, 7)) is None


def test_agent_sees_movements_of_others_without_who_holds_them() -> None:
    view = EventView(agent())
    body = shown(view.block(published(1, MOVED, 8, "agent-2")))
    assert body is not None
    assert body["user_id"] == "8"
    assert body["agent_id"] is None
    assert body["assignment_id"] is None
    for kind in (STARTED, ENDED, CHANGED, RECORDED):
        assert view.block(published(2, kind, 8, "agent-2")) is None


@pytest.mark.parametrize("topics", [frozenset(), frozenset({Topic.ASSIGNMENT})])
def test_an_objection_is_told_to_the_agent_who_holds_the_person(topics: frozenset[Topic]) -> None:
    view = EventView(agent(frozenset({"unsigned_users"})), topics=topics)
    view.begin([], 7)
    body = shown(view.block(published(1, OBJECTION, 7, "agent-1")))
    assert body is not None
    assert (body["type"], body["agent_id"]) == ("objection_recorded", "agent-1")
    # Told again it changes nothing, and the agent still holds the person.
    assert shown(view.block(published(2, OBJECTION, 7)))
    assert shown(view.block(published(3, CHANGED, 7)))
    for holder in ("agent-2", ""):
        assert view.block(published(4, OBJECTION, 8, holder)) is None


def test_agent_sees_movements_of_its_queues_only() -> None:
    assert EventView(agent(frozenset({"callbacks"}))).block(published(1, MOVED, 8))
    assert EventView(agent(frozenset({"unsigned_users"}))).block(published(1, MOVED, 8)) is None


def test_filters_do_not_hide_whom_the_agent_holds() -> None:
    view = EventView(agent(), types=frozenset({EventType.CONTEXT_CHANGED}))
    assert view.block(published(1, STARTED, 7, "agent-1")) is None
    assert view.block(published(2, CHANGED, 7))
    one = EventView(supervisor(), user_ids=frozenset({7}))
    assert one.block(published(1, CHANGED, 7))
    assert one.block(published(2, CHANGED, 8)) is None


@pytest.mark.parametrize(
    ("events", "holds_now", "held_before"),
    [
        ([], None, None),
        ([], 7, 7),
        ([(CHANGED, 7, ""), (STARTED, 8, "agent-2")], 7, 7),
        # It took 7 meanwhile: what happened to 7 before that is not its business.
        ([(CHANGED, 7, ""), (STARTED, 7, "agent-1")], 7, None),
        # It gave 6 back meanwhile and then took 7.
        ([(CHANGED, 6, ""), (ENDED, 6, "agent-1"), (STARTED, 7, "agent-1")], 7, 6),
        ([(CHANGED, 6, ""), (ENDED, 6, "agent-1")], None, 6),
    ],
)
def test_whom_an_agent_held_before_what_it_missed(
    events: list[tuple[Any, int, str]], holds_now: int | None, held_before: int | None
) -> None:
    missed = [published(n, *each) for n, each in enumerate(events)]
    view = EventView(agent())
    view.begin(missed, holds_now)
    for user_id in (6, 7):
        is_shown = view.block(published(99, CHANGED, user_id)) is not None
        assert is_shown == (user_id == held_before)


async def test_client_gets_what_came_before_it_began_once_and_in_order() -> None:
    client = EventClient(EventView(supervisor()), 10, place(5))
    client.offer(published(6, CHANGED, 7))
    client.begin([published(4, CHANGED, 7), published(5, CHANGED, 7)], place(3))
    client.offer(published(7, CHANGED, 7))
    blocks = blocks_of(await client.next(0))
    assert [each.splitlines()[0] for each in blocks] == [
        "id: e:4-0",
        "id: e:5-0",
        "id: e:6-0",
        "retry: " + blocks[3].splitlines()[0].removeprefix("retry: "),
        "id: e:7-0",
    ]


async def test_client_ahead_of_us_gets_nothing_twice() -> None:
    """It was served by a copy that had read further."""
    client = EventClient(EventView(supervisor()), 10, place(5))
    client.begin([], place(100))
    client.offer(published(6, CHANGED, 7))
    client.offer(published(100, CHANGED, 7))
    client.offer(published(101, CHANGED, 7))
    content = await client.next(0)
    assert content is not None
    assert b"id: e:101-0\nevent" in content
    assert content.count(b"event:") == 1


async def test_client_that_cannot_resume_is_reset_first() -> None:
    client = EventClient(EventView(supervisor()), 10, place(5))
    client.offer(published(6, CHANGED, 7))
    client.begin(None, StreamPosition("other", "99-0"))
    blocks = blocks_of(await client.next(0))
    assert blocks[0].startswith("id: e:5-0\nevent: reset")
    assert blocks[1].startswith("id: e:6-0\nevent: context_changed")


async def test_gap_while_a_client_begins_resets_it_once() -> None:
    client = EventClient(EventView(supervisor()), 10, place(5))
    client.offer(published(6, CHANGED, 7))
    client.reset(StreamPosition("new", "1-0"))
    client.offer(Published(StreamPosition("new", "2-0"), event_pb2.Event(type=CHANGED)))
    client.begin([published(4, CHANGED, 7)], place(100))
    content = (await client.next(0) or b"").decode()
    assert content.count("event: reset") == 1
    assert "id: e:" not in content
    assert "id: new:2-0\nevent: context_changed" in content


@pytest.mark.parametrize("has_begun", [True, False])
async def test_slow_client_is_told_to_come_back(has_begun: bool) -> None:
    client = EventClient(EventView(supervisor()), 3, place(0))
    if has_begun:
        client.begin()
    for number in range(1, 10):
        client.offer(published(number, CHANGED, 7))
    assert client.ended == "slow"
    content = await client.next(0)
    assert content is not None
    assert content.startswith(b"retry: ")
    assert content.count(b"event:") == 1
    assert b'event: reconnect\ndata: {"type":"reconnect","reason":"slow"' in content
    assert await client.next(0) is None


async def test_waiting_client_is_woken() -> None:
    client = EventClient(EventView(supervisor()), 3, place(0))
    client.begin()
    await client.next(0)
    waiting = asyncio.create_task(client.next(60))
    await asyncio.sleep(0)
    client.offer(published(1, CHANGED, 7))
    assert b"event: context_changed" in (await waiting or b"")


async def test_heartbeat_moves_the_place_past_what_is_not_shown() -> None:
    client = EventClient(EventView(agent()), 3, place(0))
    client.begin()
    await client.next(0)
    client.offer(published(8, CHANGED, 7))
    assert await client.next(0.01) == b":\nid: e:8-0\n\n"


def test_unknown_values_of_later_releases_are_shown_as_unknown() -> None:
    event = event_pb2.Event(user_id=7)
    event.MergeFromString(b"\x10\x63\x28\x63")
    body = shown(EventView(supervisor()).block(Published(place(1), event)))
    assert body is not None
    assert body["type"] == "unknown"
    assert body["queue_before"] is None
