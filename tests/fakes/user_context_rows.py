"""A double of user_context for the reconciler: rows, their fingerprints and cached contexts."""

import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any
from zlib import crc32

import grpc.aio
from dialler.model.v1 import facts_pb2
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit.errors import InvalidArgument, ServiceError
from services.reconciler.domain.fingerprints import ComparedTable, UserRows, unpack_rows

Context = grpc.aio.ServicerContext[Any, Any]

_ROWS_PER_CHUNK = 50


def packed(rows: UserRows, *, edition: int = 1) -> bytes:
    """Return the records that `unpack_rows` takes apart."""
    head = struct.pack("<IIII", rows.users, rows.claims, rows.user_addresses, edition)
    claims = (struct.pack("<QII", it, *rows.hanging[it]) for it in sorted(rows.hanging))
    return head + b"".join(claims)


def person_rows(user_id: int, *, seed: int = 0) -> UserRows:
    """Return rows of a person with two claims; another seed makes other rows."""
    mark = user_id * 31 + seed
    claim_ids = (user_id * 2, user_id * 2 + 1)
    hanging = {it: (crc32(b"r%d" % (it + mark)), crc32(b"p%d" % (it + mark))) for it in claim_ids}
    users, claims, addresses = (crc32(b"%d %d" % (lane, mark)) for lane in range(3))
    return UserRows(users, claims, addresses, hanging)


def context_of(rows: bytes) -> int:
    """Return the fingerprint of the context that these rows make."""
    return crc32(rows) + 1


class FakeRowFingerprints(user_context_pb2_grpc.UserContextServiceServicer):
    """Rows of `people` and a cache of their contexts; refuses a refresh of one of `poison`."""

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
        # Before these chunks the stream ends without a failure, though more is to come.
        self.cut_before: set[int] = set()
        # Raised after the users who changed have been sent.
        self.changed_failure: ServiceError | None = None
        # How long MySQL took to look at users or at owners.
        self.mysql_seconds = 0.001
        # Answers about owners lack their fingerprints, which no release of ours does.
        self.is_garbled = False
        # The most contexts of one answer, as if they were large.
        self.contexts_per_answer = 500
        # People whose context no message can hold.
        self.too_large: set[int] = set()
        # Called before users are looked at one by one.
        self.on_read_rows: Callable[[], None] = lambda: None
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
            raise InvalidArgument("USER_POISONOUS", "the user cannot be read")
        self.refreshed.update(request.user_ids)
        self._version += 1
        return user_context_pb2.RefreshUsersResponse(facts=map(self._facts, request.user_ids))

    def _facts(self, user_id: int) -> facts_pb2.UserFacts:
        rows = self.people.get(user_id)
        if rows is None:
            self.cached.pop(user_id, None)
            return facts_pb2.UserFacts(user_id=user_id, version=self._version)
        self.cached[user_id] = context_of(rows), True
        return facts_pb2.UserFacts(
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
        owners = _owners(self.people.values(), self.people, ComparedTable(request.table))
        rising = sorted(it for it in owners if it > int(request.after_key or -1))
        for start in range(0, max(len(rising), 1), _ROWS_PER_CHUNK):
            self._begin("StreamRangeFingerprints")
            self.chunks_sent += 1
            self.on_chunk(self.chunks_sent)
            if self.chunks_sent in self.cut_before:
                return
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
        owners = _owners(self.people.values(), self.people, ComparedTable(request.table))
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
        self.on_read_rows()
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
        """Return the users of the claims."""
        self._begin("ResolveUsers")
        wanted = {int(it.key) for it in request.rows}
        found = [
            it for it, rows in self.people.items() if wanted & unpack_rows(rows).hanging.keys()
        ]
        return user_context_pb2.ResolveUsersResponse(user_ids=found)

    async def BatchGetUserContexts(
        self, request: user_context_pb2.BatchGetUserContextsRequest, context: Context
    ) -> user_context_pb2.BatchGetUserContextsResponse:
        """Cache the contexts that the answer holds."""
        self._begin("BatchGetUserContexts")
        possible = [it for it in request.user_ids if it not in self.too_large]
        answered = possible[: self.contexts_per_answer]
        for user_id in answered:
            self.cached[user_id] = context_of(self.people[user_id]), True
        return user_context_pb2.BatchGetUserContextsResponse(
            contexts=[user_context_pb2.GetUserContextResponse() for _ in answered],
            remaining_user_ids=possible[self.contexts_per_answer :],
            too_large_user_ids=[it for it in request.user_ids if it in self.too_large],
        )


def _owners(
    every: Iterable[bytes], people: Mapping[int, bytes], table: ComparedTable
) -> dict[int, int]:
    """Return the table's row checksums by owner, without owners that have no rows."""
    if table.is_owned_by_claims:
        place = list(ComparedTable).index(table) - list(ComparedTable).index(
            ComparedTable.CLAIM_REQUIREMENTS
        )
        return {
            claim_id: both[place]
            for rows in every
            for claim_id, both in unpack_rows(rows).hanging.items()
            if both[place]
        }
    return {user_id: lane for user_id, rows in people.items() if (lane := _lane(rows, table))}


def _lane(packed_rows: bytes, table: ComparedTable) -> int:
    rows = unpack_rows(packed_rows)
    lanes = {
        ComparedTable.USERS: rows.users,
        ComparedTable.CLAIMS: rows.claims,
        ComparedTable.USER_ADDRESSES: rows.user_addresses,
    }
    return lanes[table]
