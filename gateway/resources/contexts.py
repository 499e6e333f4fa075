"""Contexts as user_context has rendered them, several in one call when several are wanted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialler.user_context.v1 import user_context_pb2
from fastapi import Request, Response

from gateway.access.audit import AccessTrail, ViewAction
from gateway.access.auth import Guard, Role
from gateway.access.person_access import PersonAccess
from gateway.http.problems import InvalidRequest
from gateway.resources.fields import user_id_of
from servicekit.call_state_json import moment
from servicekit.coalescing import Coalescer

if TYPE_CHECKING:
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub


# Two are in flight at once: user_context works on one while the other is on the wire.
CALLS_IN_FLIGHT = 2


# About 200 KB of answers; larger contexts are read by calls of their own.
PEOPLE_PER_CALL = 64


_Answer = user_context_pb2.GetUserContextResponse


class ContextReads:
    """Reads contexts as JSON, by a call that begins after the request for it.

    A call costs both sides several times what one more person in it does (decision 0020). A shared
    call reads only the cache, so that no request waits for the MySQL reads of another, and a
    context that cannot be read fails only its own request.
    """

    def __init__(self, user_context: "UserContextServiceAsyncStub") -> None:
        self._user_context = user_context
        self._cached: Coalescer[int, _Answer] = Coalescer(
            self._read_cached, max_keys=PEOPLE_PER_CALL, max_batches=CALLS_IN_FLIGHT
        )

    async def get(self, user_id: int) -> _Answer:
        """Return one person's context; raises the errors of GetUserContext."""
        found = (await self._cached.get((user_id,))).get(user_id)
        if found is not None:
            return found
        return await self._user_context.GetUserContext(
            user_context_pb2.GetUserContextRequest(
                user_id=user_id, view=user_context_pb2.CONTEXT_VIEW_JSON
            )
        )

    async def stop(self) -> None:
        """Cancel the calls in flight."""
        await self._cached.stop()

    async def _read_cached(self, user_ids: Sequence[int]) -> dict[int, _Answer]:
        answer = await self._user_context.BatchGetUserContexts(
            user_context_pb2.BatchGetUserContextsRequest(
                user_ids=user_ids, view=user_context_pb2.CONTEXT_VIEW_JSON, cached_only=True
            )
        )
        others = {
            *answer.missing_user_ids,
            *answer.uncached_user_ids,
            *answer.remaining_user_ids,
            # Asked for alone, they are refused with the reason.
            *answer.too_large_user_ids,
        }
        found = [user_id for user_id in user_ids if user_id not in others]
        return dict(zip(found, answer.contexts, strict=True))


ALL_ROLES = frozenset(Role)


class ContextRoutes:
    """The context of a person."""

    def __init__(
        self,
        guard: Guard,
        contexts: ContextReads,
        access: PersonAccess,
        trail: AccessTrail,
    ) -> None:
        self._guard = guard
        self._contexts = contexts
        self._access = access
        self._trail = trail

    async def context(self, request: Request) -> Response:
        """Return the person's context as user_context has rendered it, byte for byte.

        While the main app's database is unavailable it is the last known context, and
        `Dialler-Stale` is `true`.
        """
        caller = await self._guard.admit(request, ALL_ROLES)
        user_id = user_id_of(request.path_params["user_id"])
        if user_id is None:
            where = {"location": "path.user_id", "code": "user_id", "message": "is not an id"}
            raise InvalidRequest([where])
        if not self._access.is_granted(caller, user_id):
            await self._access.require(caller, user_id)
        answer = await self._contexts.get(user_id)
        self._trail.note(caller.subject, user_id, ViewAction.CONTEXT)
        freshness = answer.freshness
        etag = f'"{freshness.etag}"'
        headers = {
            "ETag": etag,
            "Dialler-Stale": "true" if freshness.stale else "false",
            "Dialler-Cached": "true" if freshness.cached else "false",
        }
        if freshness.HasField("read_at"):
            headers["Dialler-Read-At"] = moment(freshness.read_at)
        # RFC 9110, section 13.1.2.
        held = request.headers.get("if-none-match")
        if held and any(it.strip().removeprefix("W/") in (etag, "*") for it in held.split(",")):
            return Response(None, 304, headers)
        return _PassedThrough(answer.context_json, headers)


class _PassedThrough(Response):
    """JSON bytes passed on unchanged; builds its headers faster than Starlette does."""

    media_type = "application/json"

    def __init__(self, content: bytes, headers: dict[str, str]) -> None:
        self.status_code = 200
        self.body = content
        self.background = None
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        self.raw_headers += (
            (b"content-length", b"%d" % len(content)),
            (b"content-type", b"application/json"),
        )
