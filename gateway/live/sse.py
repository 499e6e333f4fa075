"""GET /v1/events and its tickets: opening, resuming and sending a stream."""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
from dialler.queue.v1 import queue_pb2
from fastapi import Request, Response
from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.types import Message, Receive, Scope, Send

from gateway.access.auth import Caller, Guard, Role, caller_of
from gateway.http.problems import InvalidRequest
from gateway.live.clients import EventClient
from gateway.live.events import EventView
from gateway.live.hub import EventHub
from gateway.live.topics import Topic, require
from gateway.live.wallboard import Boards
from gateway.resources.assignments import Assignment
from gateway.resources.fields import EventType, Moment, user_id_of
from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from servicekit.event_stream import StreamPosition
from servicekit.redis_client import RedisClient

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

PATH = "/v1/events"
ALL_ROLES = frozenset(Role)
MOST_FILTERS = 100
# After a gap every client needs a snapshot; this limits the simultaneous calls to the queue.
SNAPSHOTS_AT_ONCE = 16

_HEADERS = {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    "content-type": "text/event-stream; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """Time limits of a stream; seconds."""

    setup_seconds: float
    heartbeat_seconds: float
    send_seconds: float


class Ticket(BaseModel):
    """Opens one event stream, for clients that cannot send an Authorization header."""

    ticket: str
    expires_at: Moment


class Tickets:
    """Single-use tickets, stored in Redis under their hashes, which cannot be used as tickets."""

    def __init__(self, redis: RedisClient, clock: Clock, seconds: int) -> None:
        self._redis = redis
        self._clock = clock
        self._seconds = seconds

    async def issue(self, caller: Caller) -> Ticket:
        """Return a new ticket for the caller; raises Unavailable without Redis."""
        ticket = secrets.token_urlsafe(32)
        queues = None if caller.queues is None else sorted(caller.queues)
        value = orjson.dumps([caller.subject, caller.role, queues, caller.expires_at])
        try:
            await self._redis.set(_ticket_key(ticket), value, ex=self._seconds)
        except (RedisError, OSError) as error:
            raise _no_tickets() from error
        until = self._clock.now().astimezone(UTC) + timedelta(seconds=self._seconds)
        return Ticket(ticket=ticket, expires_at=until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))

    async def redeem(self, ticket: str) -> Caller:
        """Return the ticket's caller and delete it; raises Unauthenticated (TICKET_INVALID)."""
        try:
            value = await self._redis.getdel(_ticket_key(ticket))
        except (RedisError, OSError) as error:
            raise _no_tickets() from error
        if value is None:
            raise Unauthenticated("TICKET_INVALID", "the ticket is unknown, used or expired")
        subject, role, queues, expires_at = orjson.loads(value)
        allowed = None if queues is None else frozenset(queues)
        return Caller(subject, Role(role), allowed, expires_at)


class EventRoutes:
    """The endpoints of the event stream."""

    def __init__(
        self,
        guard: Guard,
        hub: EventHub,
        tickets: Tickets,
        queue: "QueueServiceAsyncStub",
        boards: Boards,
        timeouts: StreamTimeouts,
        clock: Clock,
    ) -> None:
        self._boards = boards
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self._clock = clock
        self._guard = guard
        self._hub = hub
        self._tickets = tickets
        self._queue = queue
        self._timeouts = timeouts

    async def issue_ticket(self, request: Request) -> Ticket:
        """Make a ticket that opens `GET /v1/events?ticket=...` once within a minute."""
        return await self._tickets.issue(caller_of(request))

    async def open(self, request: Request) -> Response:
        """Open the stream; a `Last-Event-ID` resumes it."""
        with deadline.limit(self._timeouts.setup_seconds):
            try:
                async with asyncio.timeout(self._timeouts.setup_seconds):
                    return await self._opened(request)
            except TimeoutError as error:
                raise DeadlineExceeded("DEADLINE_EXCEEDED", "the deadline passed") from error

    async def _opened(self, request: Request) -> Response:
        ticket = request.query_params.get("ticket")
        if ticket is None or "authorization" in request.headers:
            caller = await self._guard.admit(request, ALL_ROLES)
        else:
            await self._guard.meet(request)
            caller = await self._tickets.redeem(ticket)
            await self._guard.allow(request, caller, ALL_ROLES)
        view = _view(request, caller)
        require(caller, view.topics)
        after = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
        position: StreamPosition | None = None
        if after:
            try:
                position = StreamPosition.parse(after)
            except InvalidArgument:
                # An unknown position cannot be resumed from: the client gets a reset.
                position = StreamPosition("", "0-0")
        client = self._hub.join(view)
        try:
            await self._begin(client, caller, position)
        except BaseException:
            self._leave(client)
            raise
        left = caller.expires_at - self._clock.now().timestamp()

        async def begin_anew() -> None:
            await self._begin_anew(client, caller)

        def leave() -> None:
            self._leave(client)

        ends_at = self._clock.monotonic() + left
        return EventResponse(client, begin_anew, leave, self._timeouts, self._clock, ends_at)

    def _leave(self, client: EventClient) -> None:
        self._boards.leave(client)
        self._hub.leave(client)

    async def _begin(
        self, client: EventClient, caller: Caller, after: StreamPosition | None
    ) -> None:
        missed = [] if after is None else await self._hub.missed(after, client.joined_at)
        snapshot = b""
        if client.view.needs_assignment:
            request = queue_pb2.GetCurrentAssignmentRequest(agent_id=caller.subject)
            held: queue_pb2.Assignment | None
            try:
                held = (await self._queue.GetCurrentAssignment(request)).assignment
            except NotFound:
                held = None
            client.view.begin([*(missed or ()), *client.early], held and held.user_id)
            if Topic.ASSIGNMENT in client.view.topics:
                shown = None if held is None else Assignment.of(held).model_dump(mode="json")
                data = orjson.dumps({"assignment": shown})
                snapshot = b"event: assignment\ndata: %b\n\n" % data
        client.begin(missed, after, snapshot)
        self._boards.join(client, client.view.topics, client.view.queues)

    async def _begin_anew(self, client: EventClient, caller: Caller) -> None:
        """Begin again after a reset; a client whose snapshot cannot be read is ended."""
        try:
            async with self._snapshots, asyncio.timeout(self._timeouts.setup_seconds):
                with deadline.limit(self._timeouts.setup_seconds):
                    await self._begin(client, caller, None)
        except (ServiceError, TimeoutError):
            client.end("no snapshot")


class EventResponse(Response):
    """The response of an open stream: sends the client's buffer until either side ends it."""

    def __init__(
        self,
        client: EventClient,
        begin_anew: Callable[[], Awaitable[None]],
        leave: Callable[[], None],
        timeouts: StreamTimeouts,
        clock: Clock,
        ends_at: float,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._client = client
        self._begin_anew = begin_anew
        self._leave = leave
        self._timeouts = timeouts
        self._clock = clock
        self._ends_at = ends_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; raises TimeoutError for a client that does not receive in time."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._client.end("gone")

        watching = asyncio.create_task(watch(), name="event client")
        sending = _Sending(send, self._timeouts.send_seconds)
        try:
            head = {"status": HTTPStatus.OK, "headers": self.raw_headers}
            await sending.send({"type": "http.response.start", **head})
            while True:
                if self._client.needs_snapshot:
                    await self._begin_anew()
                left = self._ends_at - self._clock.monotonic()
                if left <= 0:
                    self._client.end("token expired")
                seconds = max(0.0, min(self._timeouts.heartbeat_seconds, left))
                if (block := await self._client.next(seconds)) is None:
                    break
                await sending.send({"type": "http.response.body", "body": block, "more_body": True})
            await sending.send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not sending.took_too_long:
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            self._client.end("stuck")
            raise TimeoutError from None
        finally:
            sending.close()
            self._leave()
            watching.cancel()
            await asyncio.wait((watching,))


class _Sending:
    """Sends within a time limit.

    One timer checks periodically, which costs less than a timer for each block; hence a send may
    take up to 1.5 times the limit. Then the task is cancelled, and `took_too_long` is set.
    """

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._began_at: float | None = None
        self._timer = self._loop.call_later(seconds / 2, self._check)
        self.took_too_long = False

    async def send(self, message: Message) -> None:
        """Send one message within the limit."""
        self._began_at = self._loop.time()
        await self._send(message)
        self._began_at = None

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _check(self) -> None:
        began = self._began_at
        if began is None or self._loop.time() - began < self._seconds or self._task is None:
            self._timer = self._loop.call_later(self._seconds / 2, self._check)
            return
        self.took_too_long = True
        self._task.cancel()


def _view(request: Request, caller: Caller) -> EventView:
    user_ids = [user_id_of(each) for each in request.query_params.getlist("user_id")]
    names = request.query_params.getlist("type")
    topics = request.query_params.getlist("topic")
    errors = []
    if None in user_ids or len(user_ids) > MOST_FILTERS:
        errors.append({"location": "query.user_id", "code": "user_id", "message": "is not an id"})
    if not set(names) <= set(EventType):
        errors.append({"location": "query.type", "code": "enum", "message": "is not an event type"})
    if not set(topics) <= set(Topic):
        errors.append({"location": "query.topic", "code": "enum", "message": "is not a topic"})
    if errors:
        raise InvalidRequest(errors)
    known = frozenset(each for each in user_ids if each is not None)
    kinds = frozenset(EventType(each) for each in names)
    return EventView(caller, known, kinds, frozenset(Topic(each) for each in topics))


def _ticket_key(ticket: str) -> str:
    return f"dialler:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"


def _no_tickets() -> Unavailable:
    return Unavailable(
        "TICKETS_UNAVAILABLE", "tickets cannot be checked now", retry_after_seconds=1.0
    )
