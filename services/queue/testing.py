"""For tests: a main app that says what it is told to, and a queue beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from dialler.model.v1 import facts_pb2
from dialler.queue.v1 import queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr

from servicekit.client import connect
from servicekit.clock import Clock
from servicekit.errors import Internal, Unavailable
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings
from services.queue.app import build
from services.queue.settings import QueueSettings

LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)

Context = grpc.aio.ServicerContext[Any, Any]
Before = Callable[[Sequence[int]], Awaitable[None]]


def unsigned(user_id: int, *, created_at: datetime | None = LONG_AGO) -> facts_pb2.UserFacts:
    """Return somebody who owes a signature."""
    return person(user_id, has_signature=False, created_at=created_at)


def outstanding(user_id: int, *, created_at: datetime | None = LONG_AGO) -> facts_pb2.UserFacts:
    """Return somebody who has signed and owes a document."""
    return person(user_id, has_signature=True, created_at=created_at)


def done(user_id: int) -> facts_pb2.UserFacts:
    """Return somebody who has signed and owes nothing."""
    return person(user_id, has_signature=True, requirement_status="APPROVED")


def person(
    user_id: int,
    *,
    has_signature: bool,
    requirement_status: str = "PENDING",
    created_at: datetime | None = LONG_AGO,
) -> facts_pb2.UserFacts:
    """Return somebody with one open claim that needs one document."""
    requirement = facts_pb2.RequirementFacts(
        requirement_id=f"r-{user_id}", type="proof_of_address", status=requirement_status
    )
    claim = facts_pb2.ClaimFacts(
        claim_id=user_id, lender="Blue Motor Finance", requirements=[requirement]
    )
    facts = facts_pb2.UserFacts(
        user_id=user_id,
        exists=True,
        is_enabled=True,
        has_signature=has_signature,
        claims=[claim],
        phone_e164=f"+447700900{user_id % 1000:03d}",
    )
    if created_at is not None:
        moment = Timestamp()
        moment.FromDatetime(created_at)
        facts.created_at.CopyFrom(moment)
        facts.claims[0].created_at.CopyFrom(moment)
    return facts


@dataclass
class FakeUserContext(user_context_pb2_grpc.UserContextServiceServicer):
    """The main app as `user_context` tells of it: `people` is what a reading finds."""

    people: dict[int, facts_pb2.UserFacts] = field(default_factory=dict)
    # Reads and refreshes fail as when MySQL is away.
    is_away: bool = False
    # Reading any of these fails, and nobody else's does.
    faulty: set[int] = field(default_factory=set)
    # Awaited before a reading takes place, and after it, before the answer.
    before_read: Before | None = None
    after_read: Before | None = None
    # Awaited after each block of a stream of everybody.
    after_block: Before | None = None
    reads: list[list[int]] = field(default_factory=list)
    invalidated: dict[int, int] = field(default_factory=dict)
    was_invalidated: asyncio.Event = field(default_factory=asyncio.Event)
    version: int = 0

    def put(self, *people: facts_pb2.UserFacts) -> None:
        """Change the main app; a person's fingerprint changes with every content."""
        for facts in people:
            self.people[facts.user_id] = facts

    def drawn(self, user_ids: Sequence[int]) -> list[facts_pb2.UserFacts]:
        """Return a reading as of now, with a version of its own."""
        self.version += 1
        return [self._read(user_id, self.version) for user_id in user_ids]

    async def ReadUserFacts(
        self, request: user_context_pb2.ReadUserFactsRequest, context: Context
    ) -> user_context_pb2.ReadUserFactsResponse:
        """Answer a live check."""
        self.reads.append(list(request.user_ids))
        if self.before_read is not None:
            await self.before_read(request.user_ids)
        self._require(request.user_ids)
        facts = [self._read(user_id, 0) for user_id in request.user_ids]
        if self.after_read is not None:
            await self.after_read(request.user_ids)
        return user_context_pb2.ReadUserFactsResponse(facts=facts)

    async def RefreshUsers(
        self, request: user_context_pb2.RefreshUsersRequest, context: Context
    ) -> user_context_pb2.RefreshUsersResponse:
        """Answer a refresh."""
        self._require(request.user_ids)
        return user_context_pb2.RefreshUsersResponse(facts=self.drawn(request.user_ids))

    async def InvalidateCallStates(
        self, request: user_context_pb2.InvalidateCallStatesRequest, context: Context
    ) -> user_context_pb2.InvalidateCallStatesResponse:
        """Note the versions told of."""
        if self.is_away:
            raise Unavailable("USER_CONTEXT_AWAY", "away on purpose")
        for it in request.versions:
            self.invalidated[it.user_id] = max(it.version, self.invalidated.get(it.user_id, 0))
        self.was_invalidated.set()
        return user_context_pb2.InvalidateCallStatesResponse()

    async def _unserved(self, request: Any, context: Context) -> Any:
        """Fail: the queue asks for nothing else."""
        raise Internal("NOT_FAKED", "the fake does not answer this")

    async def StreamUserFacts(
        self, request: user_context_pb2.StreamUserFactsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamUserFactsResponse]:
        """Tell of everybody, two people at a time."""
        self._require([])
        ids = sorted(self.people)
        lenders: dict[str, int] = {}
        for start in range(0, max(len(ids), 1), 2):
            self.version += 1
            part = ids[start : start + 2]
            is_last = start + 2 >= len(ids)
            yield _block(
                [self.people[user_id] for user_id in part],
                version=self.version,
                through_user_id=2**64 - 1 if is_last else part[-1],
                last_user_id=max(ids, default=0),
                numbered_from=start,
                lenders=lenders,
            )
            if self.after_block is not None:
                await self.after_block(part)

    GetUserContext = _unserved
    BatchGetUserContexts = _unserved
    ResolveUsers = _unserved
    ListUserIds = _unserved
    GetCacheStats = _unserved

    def _require(self, user_ids: Sequence[int]) -> None:
        if self.is_away:
            raise Unavailable("MAIN_APP_UNAVAILABLE", "away on purpose")
        if not self.faulty.isdisjoint(user_ids):
            raise Internal("DATABASE_ERROR", "a row that cannot be read")

    def _read(self, user_id: int, version: int) -> facts_pb2.UserFacts:
        facts = facts_pb2.UserFacts(user_id=user_id, exists=False)
        if user_id in self.people:
            facts.CopyFrom(self.people[user_id])
        if version:
            content = facts.SerializeToString(deterministic=True)
            facts.fingerprint = hash(content) % 2**64
        facts.version = version
        return facts


def _block(
    people: Sequence[facts_pb2.UserFacts],
    *,
    version: int,
    through_user_id: int,
    last_user_id: int,
    numbered_from: int,
    lenders: dict[str, int],
) -> user_context_pb2.StreamUserFactsResponse:
    """Return a block in which each person has a matter of their own; new lenders are numbered."""
    block = user_context_pb2.StreamUserFactsResponse(
        version=version, through_user_id=through_user_id, last_user_id=last_user_id
    )
    for place, facts in enumerate(people):
        block.user_ids.append(facts.user_id)
        block.matters.append(numbered_from + place)
        matter = block.new_matters.add(
            is_enabled=facts.is_enabled, has_signature=facts.has_signature
        )
        if facts.HasField("status"):
            matter.status = facts.status
        block.phone_e164.append(facts.phone_e164)
        block.date_of_birth.append(facts.date_of_birth)
        created = facts.created_at.seconds if facts.HasField("created_at") else _NULL
        block.created_at.append(created)
        for claim in facts.claims:
            matter.claims.add(requirements=claim.requirements)
            if claim.HasField("status"):
                matter.claims[-1].status = claim.status
            created = claim.created_at.seconds if claim.HasField("created_at") else _NULL
            block.claim_created_at.append(created)
            if claim.HasField("lender") and claim.lender not in lenders:
                lenders[claim.lender] = len(lenders) + 1
                block.new_lenders.append(claim.lender)
            block.claim_lenders.append(lenders[claim.lender] if claim.HasField("lender") else 0)
    return block


_NULL = -(2**63)


@dataclass
class RunningQueue:
    """A queue service that serves, with the main app beside it."""

    stub: "queue_pb2_grpc.QueueServiceAsyncStub"
    main_app: FakeUserContext
    settings: QueueSettings


@asynccontextmanager
async def serving_user_context(fake: FakeUserContext) -> AsyncIterator[str]:
    """Serve the fake on a free port and yield its address."""

    def register(server: grpc.aio.Server) -> None:
        user_context_pb2_grpc.add_UserContextServiceServicer_to_server(fake, server)

    server = GrpcServer(ServiceSettings(drain_seconds=0.0), "user_context", register, [])
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()


@asynccontextmanager
async def running_queue(
    postgres_url: str,
    redis_url: str,
    *,
    clock: Clock | None = None,
    main_app: FakeUserContext | None = None,
    **settings: Any,
) -> AsyncIterator[RunningQueue]:
    """Run a queue on a migrated database beside a main app, and yield a client of it.

    The client does not retry, so that a test sees the first answer.
    """
    fake = main_app or FakeUserContext()  # type: ignore[abstract]
    async with serving_user_context(fake) as target:
        chosen = QueueSettings(
            postgres_url=SecretStr(postgres_url),
            redis_url=SecretStr(redis_url),
            user_context_target=target,
            **({"drain_seconds": 0.0, "default_deadline_seconds": 10.0} | settings),
        )
        service = build(chosen, clock)
        await service.start()
        channel = connect(
            service.address, name="queue", default_timeout_seconds=10.0, retry_codes=()
        )
        try:
            yield RunningQueue(queue_pb2_grpc.QueueServiceStub(channel), fake, chosen)
        finally:
            await channel.close(None)
            await service.stop()
