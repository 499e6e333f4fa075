"""The services the reconciler calls, as real gRPC servers that count calls and fail on demand."""

import asyncio
import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zlib import crc32

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit.errors import InvalidArgument, ServiceError
from servicekit.server import GrpcServer
from servicekit.settings import ServiceSettings
from services.reconciler.domain.fingerprints import PersonRows, Table, unpack

Context = grpc.aio.ServicerContext[Any, Any]

_ROWS_PER_CHUNK = 50


def packed(rows: PersonRows, *, edition: int = 1) -> bytes:
    """Return the records that `unpack` takes apart."""
    head = struct.pack("<IIII", rows.users, rows.claims, rows.user_addresses, edition)
    claims = (struct.pack("<QII", it, *rows.hanging[it]) for it in sorted(rows.hanging))
    return head + b"".join(claims)


def person_rows(user_id: int, *, seed: int = 0) -> PersonRows:
    """Return rows of a person with two claims; another seed makes other rows."""
    mark = user_id * 31 + seed
    claim_ids = (user_id * 2, user_id * 2 + 1)
    hanging = {it: (crc32(b"r%d" % (it + mark)), crc32(b"p%d" % (it + mark))) for it in claim_ids}
    users, claims, addresses = (crc32(b"%d %d" % (lane, mark)) for lane in range(3))
    return PersonRows(users, claims, addresses, hanging)


def context_of(rows: bytes) -> int:
    """Return the fingerprint of the context that these rows make."""
    return crc32(rows) + 1


class FakeUserContext(user_context_pb2_grpc.UserContextServiceServicer):
    """A main app of `people`, and a cache; refuses any refresh that names one of `poison`."""

    def __init__(self) -> None:
        self.people: dict[int, bytes] = {}
        self.changed: set[int] = set()
        self.cached: dict[int, tuple[int, bool]] = {}
        self.poison: set[int] = set()
        self.failure: ServiceError | None = None
        self.cache_failure: ServiceError | None = None
        self.refreshed: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        self.chunks_sent = 0
        # Called with each chunk's number, before it is sent.
        self.on_chunk: Callable[[int], None] = lambda _: None
        # Raised once people who changed have been told of.
        self.changed_failure: ServiceError | None = None
        # How long MySQL says that it took to look at people, or at owners.
        self.mysql_seconds = 0.001
        # Answers about owners leave their fingerprints out, as no release of ours does.
        self.is_garbled = False
        # Called before people are looked at one by one.
        self.on_look: Callable[[], None] = lambda: None
        self._version = 1

    def _begin(self, method: str) -> None:
        self.calls[method] += 1
        if self.failure is not None:
            raise self.failure

    async def ListUserIds(
        self, request: user_context_pb2.ListUserIdsRequest, context: Context
    ) -> user_context_pb2.ListUserIdsResponse:
        """Return the next page."""
        self._begin("ListUserIds")
        user_ids = sorted(self.people)
        start = bisect_right(user_ids, request.after_user_id)
        return user_context_pb2.ListUserIdsResponse(
            user_ids=user_ids[start : start + request.page_size]
        )

    async def RefreshUsers(
        self, request: user_context_pb2.RefreshUsersRequest, context: Context
    ) -> user_context_pb2.RefreshUsersResponse:
        """Read people, and cache them."""
        self._begin("RefreshUsers")
        if self.poison & set(request.user_ids):
            raise InvalidArgument("USER_POISONOUS", "somebody cannot be read")
        self.refreshed.update(request.user_ids)
        self._version += 1
        return user_context_pb2.RefreshUsersResponse(facts=map(self._facts, request.user_ids))

    def _facts(self, user_id: int) -> UserFacts:
        rows = self.people.get(user_id)
        if rows is None:
            self.cached.pop(user_id, None)
            return UserFacts(user_id=user_id, version=self._version)
        self.cached[user_id] = context_of(rows), True
        return UserFacts(
            user_id=user_id,
            exists=True,
            version=self._version,
            fingerprint=context_of(rows),
            row_fingerprints=rows,
        )

    async def StreamRangeFingerprints(
        self, request: user_context_pb2.StreamRangeFingerprintsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamRangeFingerprintsResponse]:
        """Yield the table, a few owners in a chunk."""
        owners = _owners(self.people.values(), self.people, Table(request.table))
        rising = sorted(it for it in owners if it > int(request.after_key or -1))
        for start in range(0, max(len(rising), 1), _ROWS_PER_CHUNK):
            self._begin("StreamRangeFingerprints")
            self.chunks_sent += 1
            self.on_chunk(self.chunks_sent)
            some = rising[start : start + _ROWS_PER_CHUNK]
            sums: defaultdict[int, int] = defaultdict(int)
            counts = Counter(it // request.range_size for it in some)
            for it in some:
                sums[it // request.range_size] ^= owners[it]
            yield user_context_pb2.StreamRangeFingerprintsResponse(
                ranges=sums,
                fingerprints=sums.values(),
                row_counts=[counts[it] for it in sums],
                through_key=str(some[-1]) if some else "",
                last=start + _ROWS_PER_CHUNK >= len(rising),
                statements=2,
                mysql_seconds=0.001,
            )

    async def ReadOwnerFingerprints(
        self, request: user_context_pb2.ReadOwnerFingerprintsRequest, context: Context
    ) -> user_context_pb2.ReadOwnerFingerprintsResponse:
        """Return the owners in some ranges."""
        self._begin("ReadOwnerFingerprints")
        owners = _owners(self.people.values(), self.people, Table(request.table))
        wanted = set(request.ranges)
        found = {it: own for it, own in owners.items() if it // request.range_size in wanted}
        return user_context_pb2.ReadOwnerFingerprintsResponse(
            owner_ids=found,
            fingerprints=() if self.is_garbled else found.values(),
            statements=1,
            mysql_seconds=self.mysql_seconds,
        )

    async def ReadRowFingerprints(
        self, request: user_context_pb2.ReadRowFingerprintsRequest, context: Context
    ) -> user_context_pb2.ReadRowFingerprintsResponse:
        """Return people as they are now."""
        self._begin("ReadRowFingerprints")
        self.on_look()
        found = {it: self.people[it] for it in request.user_ids if it in self.people}
        return user_context_pb2.ReadRowFingerprintsResponse(
            user_ids=found,
            row_fingerprints=found.values(),
            statements=5,
            mysql_seconds=self.mysql_seconds,
        )

    async def StreamChangedUsers(
        self, request: user_context_pb2.StreamChangedUsersRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamChangedUsersResponse]:
        """Yield those of `changed`."""
        self._begin("StreamChangedUsers")
        yield user_context_pb2.StreamChangedUsersResponse(
            user_ids=self.changed, rows_read=len(self.people), statements=1, mysql_seconds=0.001
        )
        if self.changed_failure is not None:
            raise self.changed_failure

    async def InspectCachedContexts(
        self, request: user_context_pb2.InspectCachedContextsRequest, context: Context
    ) -> user_context_pb2.InspectCachedContextsResponse:
        """Return what is cached."""
        self._begin("InspectCachedContexts")
        if self.cache_failure is not None:
            raise self.cache_failure
        contexts = [
            user_context_pb2.CachedContext(
                user_id=it, fingerprint=self.cached[it][0], intact=self.cached[it][1]
            )
            for it in request.user_ids
            if it in self.cached
        ]
        return user_context_pb2.InspectCachedContextsResponse(contexts=contexts)

    async def StreamCachedContexts(
        self, request: user_context_pb2.StreamCachedContextsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamCachedContextsResponse]:
        """Yield everything cached."""
        self._begin("StreamCachedContexts")
        if self.cache_failure is not None:
            raise self.cache_failure
        yield user_context_pb2.StreamCachedContextsResponse(
            user_ids=self.cached,
            fingerprints=[fingerprint for fingerprint, _ in self.cached.values()],
            altered_user_ids=[it for it, (_, is_intact) in self.cached.items() if not is_intact],
        )

    async def ResolveUsers(
        self, request: user_context_pb2.ResolveUsersRequest, context: Context
    ) -> user_context_pb2.ResolveUsersResponse:
        """Return whose the claims are."""
        self._begin("ResolveUsers")
        wanted = {int(it.key) for it in request.rows}
        found = [it for it, rows in self.people.items() if wanted & unpack(rows).hanging.keys()]
        return user_context_pb2.ResolveUsersResponse(user_ids=found)

    async def BatchGetUserContexts(
        self, request: user_context_pb2.BatchGetUserContextsRequest, context: Context
    ) -> user_context_pb2.BatchGetUserContextsResponse:
        """Cache the people."""
        self._begin("BatchGetUserContexts")
        for user_id in request.user_ids:
            self.cached[user_id] = context_of(self.people[user_id]), True
        return user_context_pb2.BatchGetUserContextsResponse(
            contexts=[user_context_pb2.GetUserContextResponse() for _ in request.user_ids]
        )


class FakeEntry(NamedTuple):
    """What the queue has applied of somebody."""

    version: int
    context: int
    rows: bytes
    is_absent: bool = False
    is_altered: bool = False


class FakeQueue(queue_pb2_grpc.QueueServiceServicer):
    """Keeps what is applied; `gate` holds applications beyond `free_calls`."""

    def __init__(self) -> None:
        self.entries: dict[int, FakeEntry] = {}
        self.applied: Counter[int] = Counter()
        self.failure: ServiceError | None = None
        self.free_calls = 1_000_000
        self.gate = asyncio.Event()
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0
        self.rounds_of_housekeeping = 3
        self.misplaced: set[int] = set()

    async def ApplyUserFacts(
        self, request: queue_pb2.ApplyUserFactsRequest, context: Context
    ) -> queue_pb2.ApplyUserFactsResponse:
        """Keep the facts; whoever is new has been moved."""
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.calls > self.free_calls:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            moved = sum(facts.user_id not in self.entries for facts in request.facts)
            for facts in request.facts:
                self.applied[facts.user_id] += 1
                self.entries[facts.user_id] = FakeEntry(
                    facts.version, facts.fingerprint, facts.row_fingerprints, not facts.exists
                )
            return queue_pb2.ApplyUserFactsResponse(applied=len(request.facts), moved=moved)
        finally:
            self.at_once -= 1

    async def StreamAppliedFacts(
        self, request: queue_pb2.StreamAppliedFactsRequest, context: Context
    ) -> AsyncIterator[queue_pb2.StreamAppliedFactsResponse]:
        """Yield everybody in blocks."""
        user_ids = sorted(it for it in self.entries if it > request.after_user_id)
        for start in range(0, len(user_ids), _ROWS_PER_CHUNK):
            applied = self._facts(user_ids[start : start + _ROWS_PER_CHUNK])
            yield queue_pb2.StreamAppliedFactsResponse(applied=applied)

    async def ReadAppliedFacts(
        self, request: queue_pb2.ReadAppliedFactsRequest, context: Context
    ) -> queue_pb2.ReadAppliedFactsResponse:
        """Return some people."""
        known = sorted(it for it in set(request.user_ids) if it in self.entries)
        return queue_pb2.ReadAppliedFactsResponse(applied=self._facts(known))

    def _facts(self, user_ids: Iterable[int]) -> queue_pb2.AppliedFacts:
        found = {it: self.entries[it] for it in user_ids}
        return queue_pb2.AppliedFacts(
            user_ids=found,
            versions=[it.version for it in found.values()],
            fingerprints=[it.context for it in found.values()],
            row_fingerprint_bytes=[len(it.rows) for it in found.values()],
            row_fingerprints=b"".join(it.rows for it in found.values()),
            absent_user_ids=[it for it, entry in found.items() if entry.is_absent],
            altered_user_ids=[it for it, entry in found.items() if entry.is_altered],
        )

    async def ListEntries(
        self, request: queue_pb2.ListEntriesRequest, context: Context
    ) -> queue_pb2.ListEntriesResponse:
        """Return everybody, two pages of them."""
        user_ids = sorted(self.entries)
        middle = len(user_ids) // 2
        page = user_ids[middle:] if request.page_token else user_ids[:middle]
        return queue_pb2.ListEntriesResponse(
            entries=[queue_pb2.QueueEntry(user_id=it) for it in page],
            next_page_token="" if request.page_token else "more",
        )

    async def KeepHouse(
        self, request: queue_pb2.KeepHouseRequest, context: Context
    ) -> queue_pb2.KeepHouseResponse:
        """Do a round."""
        self.rounds_of_housekeeping -= 1
        return queue_pb2.KeepHouseResponse(
            done={"requests_deleted": 10}, more=self.rounds_of_housekeeping > 0
        )

    async def CheckEntries(
        self, request: queue_pb2.CheckEntriesRequest, context: Context
    ) -> queue_pb2.CheckEntriesResponse:
        """Put right those of `misplaced`."""
        page = sorted(it for it in self.entries if it > request.after_user_id)[:_ROWS_PER_CHUNK]
        corrected = [it for it in page if it in self.misplaced]
        self.misplaced.difference_update(corrected)
        return queue_pb2.CheckEntriesResponse(
            checked=len(page),
            corrected_user_ids=corrected,
            through_user_id=page[-1] if page else 0,
        )


class FakeIngest(cdc_ingest_pb2_grpc.CdcIngestServiceServicer):
    """Says of change capture what it is told to."""

    def __init__(self) -> None:
        self.alive_at: datetime | None = None
        self.applied_through: datetime | None = None
        self.paused = False
        self.failure: ServiceError | None = None

    async def GetStatus(
        self, request: cdc_ingest_pb2.GetStatusRequest, context: Context
    ) -> cdc_ingest_pb2.GetStatusResponse:
        """Return the status."""
        if self.failure is not None:
            raise self.failure
        answer = cdc_ingest_pb2.GetStatusResponse(paused=self.paused)
        if self.alive_at is not None:
            answer.capture_alive_at.FromDatetime(self.alive_at)
        if self.applied_through is not None:
            answer.applied_through.FromDatetime(self.applied_through)
        return answer


@dataclass
class FakeServices:
    """All three, each on its own port."""

    # Methods the reconciler never calls answer UNIMPLEMENTED, as generated.
    user_context: FakeUserContext = field(
        default_factory=lambda: FakeUserContext()  # type: ignore[abstract]
    )
    queue: FakeQueue = field(default_factory=lambda: FakeQueue())  # type: ignore[abstract]
    ingest: FakeIngest = field(default_factory=lambda: FakeIngest())  # type: ignore[abstract]
    user_context_target: str = ""
    queue_target: str = ""
    ingest_target: str = ""

    def apply_everybody(self) -> None:
        """Have the queue know everybody as the main app has them."""
        for user_id, rows in self.user_context.people.items():
            self.queue.entries[user_id] = FakeEntry(1, context_of(rows), rows)


@asynccontextmanager
async def fake_services() -> AsyncIterator[FakeServices]:
    """Serve the fakes on free loopback ports."""
    fakes = FakeServices()
    adders: list[Callable[[grpc.aio.Server], None]] = [
        lambda server: user_context_pb2_grpc.add_UserContextServiceServicer_to_server(
            fakes.user_context, server
        ),
        lambda server: queue_pb2_grpc.add_QueueServiceServicer_to_server(fakes.queue, server),
        lambda server: cdc_ingest_pb2_grpc.add_CdcIngestServiceServicer_to_server(
            fakes.ingest, server
        ),
    ]
    settings = ServiceSettings(drain_seconds=0.0)
    servers = [GrpcServer(settings, "fake", add, []) for add in adders]
    for server in servers:
        await server.start()
    fakes.user_context_target, fakes.queue_target, fakes.ingest_target = (
        server.address for server in servers
    )
    try:
        yield fakes
    finally:
        for server in servers:
            await server.stop()


def _owners(every: Iterable[bytes], people: Mapping[int, bytes], table: Table) -> dict[int, int]:
    """Return what the table's rows come to by owner; owners without rows are missing."""
    if table.is_owned_by_claims:
        place = list(Table).index(table) - list(Table).index(Table.CLAIM_REQUIREMENTS)
        return {
            claim_id: both[place]
            for rows in every
            for claim_id, both in unpack(rows).hanging.items()
            if both[place]
        }
    return {user_id: lane for user_id, rows in people.items() if (lane := _lane(rows, table))}


def _lane(packed_rows: bytes, table: Table) -> int:
    rows = unpack(packed_rows)
    lanes = {
        Table.USERS: rows.users,
        Table.CLAIMS: rows.claims,
        Table.USER_ADDRESSES: rows.user_addresses,
    }
    return lanes[table]
