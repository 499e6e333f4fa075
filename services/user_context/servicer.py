"""The RPCs of the service: translates requests to calls and results to responses."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf.message_factory import GetMessageClass

from servicekit.coalescing import Coalescer
from servicekit.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.user_context import domain
from services.user_context.batch.facts_stream import FactsStreams
from services.user_context.cache.context_cache import ContextCache
from services.user_context.cache.fragments import batched
from services.user_context.cache.links import RedisUnavailable
from services.user_context.contexts.contexts import Contexts
from services.user_context.contexts.invalidations import Invalidations
from services.user_context.contexts.readings import Refreshes
from services.user_context.domain import Part, UserId, distinct_users
from services.user_context.metrics import CacheStats, Result
from services.user_context.mysql.changed_users import ChangedUsers
from services.user_context.mysql.fingerprint_readings import FingerprintReadings
from services.user_context.mysql.reader import MainAppStore
from services.user_context.search.people_search import PeopleSearch

SERVICE_NAME = "dialler.user_context.v1.UserContextService"

_Context = grpc.aio.ServicerContext[Any, Any]


class UserContextServicer:
    """Answers as the contract in `protos/` describes.

    Methods that return contexts or blocks return encoded messages: a cached context is passed on
    without being parsed.
    """

    def __init__(
        self,
        *,
        contexts: Contexts,
        search: PeopleSearch,
        facts: Coalescer[UserId, UserFacts],
        refreshes: Refreshes,
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
        """Return one person's context."""
        if not request.user_id:
            distinct_users((0,), 1)
        as_json = request.view == pb.CONTEXT_VIEW_JSON
        user_id = UserId(request.user_id)
        answer = await self._contexts.get(user_id, as_json=as_json)
        if len(answer) > domain.CONTEXT_BYTES:
            raise FailedPrecondition(
                "CONTEXT_TOO_LARGE",
                "the context is larger than a message may be",
                user_id=str(user_id),
                size_bytes=str(len(answer)),
                limit_bytes=str(domain.CONTEXT_BYTES),
            )
        return answer

    async def BatchGetUserContexts(
        self, request: pb.BatchGetUserContextsRequest, context: _Context
    ) -> bytes:
        """Return the contexts of many people."""
        user_ids = distinct_users(request.user_ids, domain.BATCH_GET_LIMIT)
        as_json = request.view == pb.CONTEXT_VIEW_JSON
        batch = await self._contexts.get_many(
            user_ids, as_json=as_json, cached_only=request.cached_only
        )
        rest = pb.BatchGetUserContextsResponse(
            missing_user_ids=() if request.cached_only else batch.others,
            uncached_user_ids=batch.others if request.cached_only else (),
            remaining_user_ids=batch.remaining,
            too_large_user_ids=batch.too_large,
        )
        return batched(batch.found, rest.SerializeToString())

    async def SearchUsers(
        self, request: pb.SearchUsersRequest, context: _Context
    ) -> pb.SearchUsersResponse:
        """Find people by number, address or name."""
        return await self._search.find(request)

    async def RefreshUsers(
        self, request: pb.RefreshUsersRequest, context: _Context
    ) -> pb.RefreshUsersResponse:
        """Read people anew, cache them and return their facts."""
        user_ids = distinct_users(request.user_ids, domain.REFRESH_LIMIT)
        found = await self._refreshes.get(user_ids)
        response = pb.RefreshUsersResponse(facts=[found[user_id].facts for user_id in user_ids])
        if user_ids:
            # One reading answers the whole request.
            response.refreshed_at.FromDatetime(found[user_ids[0]].read_at)
            response.executed_gtids = found[user_ids[0]].executed_gtids
        return response

    async def ReadUserFacts(
        self, request: pb.ReadUserFactsRequest, context: _Context
    ) -> pb.ReadUserFactsResponse:
        """Return facts as of now."""
        user_ids = distinct_users(request.user_ids, domain.REFRESH_LIMIT)
        found = await self._facts.get(user_ids)
        return pb.ReadUserFactsResponse(facts=[found[user_id] for user_id in user_ids])

    async def StreamUserFacts(
        self, request: pb.StreamUserFactsRequest, context: _Context
    ) -> AsyncGenerator[bytes, None]:
        """Stream the facts of all people."""
        people = domain.block_size(request.block_size)
        async with aclosing(self._streams.blocks(request.after_user_id, people)) as blocks:
            async for block in blocks:
                yield block

    async def ResolveUsers(
        self, request: pb.ResolveUsersRequest, context: _Context
    ) -> pb.ResolveUsersResponse:
        """Return the people to whom rows belong."""
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
        """Return a page of ids."""
        limit = domain.page_size(request.page_size)
        ids, highest = await self._main_app.list_ids(request.after_user_id, limit)
        return pb.ListUserIdsResponse(user_ids=ids, max_user_id=highest)

    async def InvalidateCallStates(
        self, request: pb.InvalidateCallStatesRequest, context: _Context
    ) -> pb.InvalidateCallStatesResponse:
        """Invalidate cached call states."""
        versions: dict[UserId, int] = {}
        for one in request.versions:
            user_id = UserId(one.user_id)
            versions[user_id] = max(one.version, versions.get(user_id, 0))
        await self._invalidations.invalidate_call_states(versions)
        return pb.InvalidateCallStatesResponse()

    async def StreamRangeFingerprints(
        self, request: pb.StreamRangeFingerprintsRequest, context: _Context
    ) -> AsyncGenerator[pb.StreamRangeFingerprintsResponse, None]:
        """Stream the fingerprints of ranges, chunk by chunk."""
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
        """Return the fingerprints of owners' rows."""
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
        """Return the fingerprints of people's rows."""
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
        """Stream the people whose rows changed since a moment."""
        share = domain.load_share(request.load_share)
        if not request.HasField("since"):
            raise InvalidArgument("SINCE_MISSING", "a moment to begin from is needed")
        try:
            # Like the moments of the main app's rows: naive, in UTC, of whole seconds.
            since = request.since.ToDatetime().replace(microsecond=0)
        except (ValueError, OverflowError) as error:
            raise InvalidArgument("SINCE_INVALID", "that is no moment") from error
        chunks = self._changed.since(since, load_share=share)
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
        """Return what the cache would serve as fresh."""
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
        """Stream the same of every cached user."""
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
        """Return the counts since the start."""
        reads = self._stats.reads
        return pb.GetCacheStatsResponse(
            hits=reads[Result.HIT],
            misses=reads[Result.MISS],
            stale_serves=reads[Result.STALE],
            errors=reads[Result.ERROR],
            fenced_fills=self._stats.fenced_fills,
            distrust_reason=self._stats.distrust_reason,
        )


_ENCODED_ALREADY = frozenset({"GetUserContext", "BatchGetUserContexts", "StreamUserFacts"})

_HANDLERS: dict[bool, Callable[..., Any]] = {
    False: grpc.unary_unary_rpc_method_handler,
    True: grpc.unary_stream_rpc_method_handler,
}


def registering(servicer: UserContextServicer) -> Callable[[grpc.aio.Server], None]:
    """Return a function that adds the servicer to a server, its encoded answers unchanged."""
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
    except RedisUnavailable as error:
        raise Unavailable(
            "CACHE_UNAVAILABLE", "the cache cannot be asked now", retry_after_seconds=1.0
        ) from error
