"""The service's methods: requests to our terms, and answers back."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime
from typing import Any

import grpc
import grpc.aio
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.coalescing import Coalescer
from servicekit.errors import InvalidArgument, Unavailable
from services.user_context import domain
from services.user_context.cache import ContextCache
from services.user_context.changed_users import ChangedUsers
from services.user_context.contexts import Contexts
from services.user_context.domain import Part, UserId, distinct_users
from services.user_context.facts_stream import FactsStreams
from services.user_context.fingerprint_readings import FingerprintReadings
from services.user_context.fragments import batched
from services.user_context.invalidations import Invalidations
from services.user_context.metrics import CacheStats, Result
from services.user_context.readings import Refreshed
from services.user_context.redis_link import RedisAway
from services.user_context.search import PeopleSearch
from services.user_context.store import MainAppStore

SERVICE_NAME = "dialler.user_context.v1.UserContextService"

_Context = grpc.aio.ServicerContext[Any, Any]


class UserContextServicer:
    """Each method answers as its contract promises.

    Those that return contexts or blocks return encoded messages: a context in the cache is passed
    through without being parsed.
    """

    def __init__(
        self,
        *,
        contexts: Contexts,
        search: PeopleSearch,
        facts: Coalescer[UserId, UserFacts],
        refreshes: Coalescer[UserId, Refreshed],
        invalidations: Invalidations,
        main_app: MainAppStore,
        streams: FactsStreams,
        fingerprints: FingerprintReadings,
        changed: ChangedUsers,
        cache: ContextCache,
        stats: CacheStats,
    ) -> None:
        self._contexts = contexts
        self._search = search
        self._facts = facts
        self._refreshes = refreshes
        self._invalidations = invalidations
        self._main_app = main_app
        self._streams = streams
        self._fingerprints = fingerprints
        self._changed = changed
        self._cache = cache
        self._stats = stats

    async def GetUserContext(self, request: pb.GetUserContextRequest, context: _Context) -> bytes:
        """One person's context."""
        if not request.user_id:
            distinct_users((0,), 1)
        as_json = request.view == pb.CONTEXT_VIEW_JSON
        return await self._contexts.get(UserId(request.user_id), as_json=as_json)

    async def BatchGetUserContexts(
        self, request: pb.BatchGetUserContextsRequest, context: _Context
    ) -> bytes:
        """The contexts of many people."""
        user_ids = distinct_users(request.user_ids, domain.BATCH_GET_LIMIT)
        as_json = request.view == pb.CONTEXT_VIEW_JSON
        read = self._contexts.get_cached if request.cached_only else self._contexts.get_many
        answers = await read(user_ids, as_json=as_json)
        others = [
            user_id for user_id, answer in zip(user_ids, answers, strict=True) if answer is None
        ]
        found = b"".join(batched(answer) for answer in answers if answer is not None)
        if not others:
            return found
        rest = (
            pb.BatchGetUserContextsResponse(uncached_user_ids=others)
            if request.cached_only
            else pb.BatchGetUserContextsResponse(missing_user_ids=others)
        )
        return found + rest.SerializeToString()

    async def SearchUsers(
        self, request: pb.SearchUsersRequest, context: _Context
    ) -> pb.SearchUsersResponse:
        """People by number, address or name."""
        return await self._search.find(request)

    async def RefreshUsers(
        self, request: pb.RefreshUsersRequest, context: _Context
    ) -> pb.RefreshUsersResponse:
        """Read anew, cache, return facts."""
        user_ids = distinct_users(request.user_ids, domain.REFRESH_LIMIT)
        found = await self._refreshes.get(user_ids)
        response = pb.RefreshUsersResponse(facts=[found[user_id].facts for user_id in user_ids])
        if user_ids:
            response.refreshed_at.CopyFrom(_timestamp(found[user_ids[0]]))
        return response

    async def ReadUserFacts(
        self, request: pb.ReadUserFactsRequest, context: _Context
    ) -> pb.ReadUserFactsResponse:
        """Facts as of now."""
        user_ids = distinct_users(request.user_ids, domain.REFRESH_LIMIT)
        found = await self._facts.get(user_ids)
        return pb.ReadUserFactsResponse(facts=[found[user_id] for user_id in user_ids])

    async def StreamUserFacts(
        self, request: pb.StreamUserFactsRequest, context: _Context
    ) -> AsyncGenerator[bytes, None]:
        """Everybody's facts."""
        people = domain.block_size(request.block_size)
        async with aclosing(self._streams.blocks(request.after_user_id, people)) as blocks:
            async for block in blocks:
                yield block

    async def ResolveUsers(
        self, request: pb.ResolveUsersRequest, context: _Context
    ) -> pb.ResolveUsersResponse:
        """The people rows belong to."""
        if len(request.rows) > domain.RESOLVE_LIMIT:
            raise InvalidArgument(
                "TOO_MANY_ROWS",
                f"at most {domain.RESOLVE_LIMIT} rows may be asked for at once",
                limit=str(domain.RESOLVE_LIMIT),
                asked=str(len(request.rows)),
            )
        keys: dict[str, dict[str, None]] = {}
        for row in request.rows:
            keys.setdefault(row.table, {})[row.key] = None
        people: set[UserId] = set()
        for table, of_table in keys.items():
            people |= await self._main_app.users_of(table, list(of_table))
        return pb.ResolveUsersResponse(user_ids=sorted(people))

    async def ListUserIds(
        self, request: pb.ListUserIdsRequest, context: _Context
    ) -> pb.ListUserIdsResponse:
        """A page of ids."""
        limit = domain.page_size(request.page_size)
        ids, highest = await self._main_app.list_ids(request.after_user_id, limit)
        return pb.ListUserIdsResponse(user_ids=ids, max_user_id=highest)

    async def InvalidateCallStates(
        self, request: pb.InvalidateCallStatesRequest, context: _Context
    ) -> pb.InvalidateCallStatesResponse:
        """Distrust cached call states."""
        versions: dict[UserId, int] = {}
        for one in request.versions:
            user_id = UserId(one.user_id)
            versions[user_id] = max(one.version, versions.get(user_id, 0))
        await self._invalidations.invalidate_call_states(versions)
        return pb.InvalidateCallStatesResponse()

    async def StreamRangeFingerprints(
        self, request: pb.StreamRangeFingerprintsRequest, context: _Context
    ) -> AsyncGenerator[pb.StreamRangeFingerprintsResponse, None]:
        """What ranges come to, chunk by chunk."""
        chunks = self._fingerprints.ranges(
            domain.fingerprinted_table(request.table),
            domain.range_size(request.range_size),
            after_key=request.after_key,
            load_share=domain.load_share(request.load_share),
        )
        async with aclosing(chunks):
            async for found in chunks:
                yield pb.StreamRangeFingerprintsResponse(
                    ranges=found.ranges,
                    fingerprints=found.fingerprints,
                    row_counts=found.row_counts,
                    through_key=found.chunk.through_key,
                    last=found.chunk.is_last,
                    statements=found.chunk.statements,
                    mysql_seconds=found.chunk.mysql_seconds,
                )

    async def ReadOwnerFingerprints(
        self, request: pb.ReadOwnerFingerprintsRequest, context: _Context
    ) -> pb.ReadOwnerFingerprintsResponse:
        """What owners come to."""
        table = domain.fingerprinted_table(request.table)
        ranges = domain.owner_ranges(request.range_size, request.ranges)
        found = await self._fingerprints.owners(table, request.range_size, ranges)
        return pb.ReadOwnerFingerprintsResponse(
            owner_ids=found.owner_ids,
            fingerprints=found.fingerprints,
            statements=found.statements,
            mysql_seconds=found.mysql_seconds,
        )

    async def ReadRowFingerprints(
        self, request: pb.ReadRowFingerprintsRequest, context: _Context
    ) -> pb.ReadRowFingerprintsResponse:
        """What people come to."""
        user_ids = distinct_users(request.user_ids, domain.REFRESH_LIMIT)
        if not user_ids:
            return pb.ReadRowFingerprintsResponse()
        found = await self._fingerprints.people(user_ids)
        return pb.ReadRowFingerprintsResponse(
            user_ids=found.packed.keys(),
            row_fingerprints=found.packed.values(),
            statements=found.statements,
            mysql_seconds=found.mysql_seconds,
        )

    async def StreamChangedUsers(
        self, request: pb.StreamChangedUsersRequest, context: _Context
    ) -> AsyncGenerator[pb.StreamChangedUsersResponse, None]:
        """Who has rows changed since a moment."""
        share = domain.load_share(request.load_share)
        if not request.HasField("since"):
            raise InvalidArgument("SINCE_MISSING", "a moment to begin from is needed")
        chunks = self._changed.since(_moment(request.since), load_share=share)
        async with aclosing(chunks):
            async for found in chunks:
                yield pb.StreamChangedUsersResponse(
                    user_ids=found.user_ids,
                    rows_read=found.rows_read,
                    statements=found.statements,
                    mysql_seconds=found.mysql_seconds,
                )

    async def InspectCachedContexts(
        self, request: pb.InspectCachedContextsRequest, context: _Context
    ) -> pb.InspectCachedContextsResponse:
        """What the cache would serve as fresh."""
        user_ids = distinct_users(request.user_ids, domain.REFRESH_LIMIT)
        with _cache_errors():
            found = await self._cache.inspect(Part.MAIN, user_ids)
        return pb.InspectCachedContextsResponse(
            contexts=[
                pb.CachedContext(
                    user_id=one.user_id, fingerprint=one.fingerprint, intact=one.is_intact
                )
                for one in found
            ]
        )

    async def StreamCachedContexts(
        self, request: pb.StreamCachedContextsRequest, context: _Context
    ) -> AsyncGenerator[pb.StreamCachedContextsResponse, None]:
        """The same of everybody."""
        with _cache_errors():
            async with aclosing(self._cache.inspect_all(Part.MAIN)) as pages:
                async for page in pages:
                    yield pb.StreamCachedContextsResponse(
                        user_ids=[one.user_id for one in page],
                        fingerprints=[one.fingerprint for one in page],
                        altered_user_ids=[one.user_id for one in page if not one.is_intact],
                    )

    async def GetCacheStats(
        self, request: pb.GetCacheStatsRequest, context: _Context
    ) -> pb.GetCacheStatsResponse:
        """Counts since the start."""
        reads = self._stats.reads
        return pb.GetCacheStatsResponse(
            hits=reads[Result.HIT],
            misses=reads[Result.MISS],
            stale_serves=reads[Result.STALE],
            errors=reads[Result.ERROR],
            fenced_fills=self._stats.fenced_fills,
        )


_ENCODED_ALREADY = frozenset({"GetUserContext", "BatchGetUserContexts", "StreamUserFacts"})

_HANDLERS: dict[bool, Callable[..., Any]] = {
    False: grpc.unary_unary_rpc_method_handler,
    True: grpc.unary_stream_rpc_method_handler,
}


def registering(servicer: UserContextServicer) -> Callable[[grpc.aio.Server], None]:
    """Return what adds the servicer to a server, its encoded answers passed through."""
    service = pb.DESCRIPTOR.services_by_name["UserContextService"]
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method.name: _HANDLERS[method.server_streaming](
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=None
            if method.name in _ENCODED_ALREADY
            else GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
    }

    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),)
        )

    return register


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except RedisAway as error:
        raise Unavailable(
            "CACHE_UNAVAILABLE", "the cache cannot be asked now", retry_after_seconds=1.0
        ) from error


def _moment(since: Timestamp) -> datetime:
    """The moment as the main app's rows have theirs: naive, in UTC, of whole seconds."""
    try:
        return since.ToDatetime().replace(microsecond=0)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("SINCE_INVALID", "that is no moment") from error


def _timestamp(refreshed: Refreshed) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(refreshed.read_at)
    return made
