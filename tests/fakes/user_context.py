"""A double of user_context: the facts and contexts of users."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from dialler.model.v1 import facts_pb2
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit.errors import (
    FailedPrecondition,
    Internal,
    NotFound,
    Unavailable,
)
from tests.fakes.recorded_calls import MOMENT_SECONDS, DoubleFaults, RecordingDouble

Context = grpc.aio.ServicerContext[Any, Any]
Before = Callable[[Sequence[int]], Awaitable[None]]


@dataclass
class FakeUserContext(RecordingDouble, user_context_pb2_grpc.UserContextServiceServicer):
    """The facts and contexts of users that a test has set.

    `people` is what a reading of the main app finds, `owners` holds the users of other rows.
    """

    people: dict[int, facts_pb2.UserFacts] = field(default_factory=dict)
    # Users that `people` lacks exist all the same.
    has_every_user: bool = False
    # Reads and refreshes fail as when MySQL is unavailable.
    is_unavailable: bool = False
    # Reading any of these fails, and reading other users does not.
    faulty: set[int] = field(default_factory=set)
    faults: DoubleFaults = field(default_factory=DoubleFaults)
    # Awaited before a reading takes place, and after it, before the answer.
    before_read: Before | None = None
    after_read: Before | None = None
    # Awaited after each block of a stream of all users.
    after_block: Before | None = None
    reads: list[list[int]] = field(default_factory=list)
    refreshes: list[list[int]] = field(default_factory=list)
    # What refreshes say of the transactions that MySQL had executed.
    executed_gtids: str = ""
    owners: dict[tuple[str, str], int] = field(default_factory=dict)
    resolves: list[list[tuple[str, str]]] = field(default_factory=list)
    probes: int = 0
    invalidated: dict[int, int] = field(default_factory=dict)
    was_invalidated: asyncio.Event = field(default_factory=asyncio.Event)
    version: int = 0
    # Rendered contexts by user id; `stale` marks all of them.
    contexts: dict[int, bytes] = field(default_factory=dict)
    cached: set[int] = field(default_factory=set)
    users: dict[int, user_context_pb2.User] = field(default_factory=dict)
    contexts_per_answer: int = 500
    # Among the cached contexts.
    too_large: set[int] = field(default_factory=set)
    etag: str = "e1"
    read_at_seconds: int = MOMENT_SECONDS
    stale: bool = False
    found_people: list[user_context_pb2.FoundUser] = field(default_factory=list)

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
        """Return facts of rising versions."""
        await self.faults.strike(request.user_ids)
        self._require(request.user_ids)
        self.refreshes.append(list(request.user_ids))
        response = user_context_pb2.RefreshUsersResponse(facts=self.drawn(request.user_ids))
        response.refreshed_at.FromDatetime(datetime.now(UTC))
        response.executed_gtids = self.executed_gtids
        return response

    async def InvalidateCallStates(
        self, request: user_context_pb2.InvalidateCallStatesRequest, context: Context
    ) -> user_context_pb2.InvalidateCallStatesResponse:
        """Note the versions of the notification."""
        if self.is_unavailable:
            raise Unavailable("USER_CONTEXT_UNAVAILABLE", "unavailable on purpose")
        for it in request.versions:
            self.invalidated[it.user_id] = max(it.version, self.invalidated.get(it.user_id, 0))
        self.was_invalidated.set()
        return user_context_pb2.InvalidateCallStatesResponse()

    async def StreamUserFacts(
        self, request: user_context_pb2.StreamUserFactsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamUserFactsResponse]:
        """Stream all users above an id, two at a time."""
        self._require([])
        ids = sorted(it for it in self.people if it > request.after_user_id)
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

    async def ResolveUsers(
        self, request: user_context_pb2.ResolveUsersRequest, context: Context
    ) -> user_context_pb2.ResolveUsersResponse:
        """Return the owners of the rows."""
        await self.faults.strike(())
        rows = [(row.table, row.key) for row in request.rows]
        self.resolves.append(rows)
        found = {self.owners[row] for row in rows if row in self.owners}
        return user_context_pb2.ResolveUsersResponse(user_ids=sorted(found))

    async def ListUserIds(
        self, request: user_context_pb2.ListUserIdsRequest, context: Context
    ) -> user_context_pb2.ListUserIdsResponse:
        """Return one user: the ingest only checks whether the call succeeds."""
        self.probes += 1
        if self.faults.failure is not None:
            raise self.faults.failure
        return user_context_pb2.ListUserIdsResponse(user_ids=[1], max_user_id=1)

    async def SearchUsers(self, request: Any, context: Any) -> Any:
        """Return `found_people`, up to the limit."""
        await self.received("SearchUsers", request)
        shown = self.found_people[: request.limit]
        is_complete = len(shown) == len(self.found_people)
        return user_context_pb2.SearchUsersResponse(users=shown, is_complete=is_complete)

    async def GetUserContext(self, request: Any, context: Any) -> Any:
        """Return the bytes of the user's context."""
        await self.received("GetUserContext", request)
        found = self.contexts.get(request.user_id)
        if request.user_id in self.too_large:
            raise FailedPrecondition("CONTEXT_TOO_LARGE", "the context is larger than a message")
        if found is None:
            raise NotFound("USER_NOT_FOUND", "no such user", user_id=str(request.user_id))
        return self._context_response(found)

    async def BatchGetUserContexts(self, request: Any, context: Any) -> Any:
        """Return the bytes of the contexts that are cached, or messages of the `users`."""
        await self.received("BatchGetUserContexts", request)
        most = self.contexts_per_answer
        if request.view != user_context_pb2.CONTEXT_VIEW_JSON:
            known = [it for it in request.user_ids if it in self.users]
            answer = user_context_pb2.BatchGetUserContextsResponse(remaining_user_ids=known[most:])
            for user_id in known[:most]:
                answer.contexts.add().context.user.CopyFrom(self.users[user_id])
            return answer
        cached = [it for it in request.user_ids if it in self.cached - self.too_large]
        return user_context_pb2.BatchGetUserContextsResponse(
            contexts=[self._context_response(self.contexts[it]) for it in cached[:most]],
            uncached_user_ids=[it for it in request.user_ids if it not in self.cached],
            remaining_user_ids=cached[most:],
            too_large_user_ids=[it for it in request.user_ids if it in self.too_large],
        )

    def _context_response(self, found: bytes) -> user_context_pb2.GetUserContextResponse:
        response = user_context_pb2.GetUserContextResponse(context_json=found)
        response.freshness.stale = self.stale
        response.freshness.cached = True
        response.freshness.etag = self.etag
        response.freshness.read_at.seconds = self.read_at_seconds
        return response

    async def GetCacheStats(self, request: Any, context: Any) -> Any:
        """Return made-up counts."""
        await self.received("GetCacheStats", request)
        return user_context_pb2.GetCacheStatsResponse(hits=9, misses=1)

    def _require(self, user_ids: Sequence[int]) -> None:
        if self.is_unavailable:
            raise Unavailable("MAIN_APP_UNAVAILABLE", "unavailable on purpose")
        if not self.faulty.isdisjoint(user_ids):
            raise Internal("DATABASE_ERROR", "a row that cannot be read")

    def _read(self, user_id: int, version: int) -> facts_pb2.UserFacts:
        facts = facts_pb2.UserFacts(exists=self.has_every_user)
        if user_id in self.people:
            facts.CopyFrom(self.people[user_id])
        facts.user_id = user_id
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
    """Return a block in which each person has shared facts of its own; new lenders are numbered."""
    block = user_context_pb2.StreamUserFactsResponse(
        version=version, through_user_id=through_user_id, last_user_id=last_user_id
    )
    for place, facts in enumerate(people):
        block.user_ids.append(facts.user_id)
        block.shared_facts.append(numbered_from + place)
        shared = block.new_shared_facts.add(
            is_enabled=facts.is_enabled, has_signature=facts.has_signature
        )
        if facts.HasField("status"):
            shared.status = facts.status
        phones = list(facts.phones.e164)
        block.phone_e164.append(phones[0] if phones else "")
        if phones[1:]:
            block.other_phones.add(position=place, e164=phones[1:])
        block.date_of_birth.append(facts.date_of_birth)
        created = facts.created_at.seconds if facts.HasField("created_at") else _NULL
        block.created_at.append(created)
        for claim in facts.claims:
            shared.claims.add(requirements=claim.requirements)
            if claim.HasField("status"):
                shared.claims[-1].status = claim.status
            created = claim.created_at.seconds if claim.HasField("created_at") else _NULL
            block.claim_created_at.append(created)
            if claim.HasField("lender") and claim.lender not in lenders:
                lenders[claim.lender] = len(lenders) + 1
                block.new_lenders.append(claim.lender)
            block.claim_lenders.append(lenders[claim.lender] if claim.HasField("lender") else 0)
    return block


_NULL = -(2**63)
