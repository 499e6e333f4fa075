"""The floor of `context_json`: a bare Starlette route that passes the same bytes through.

It makes the same gRPC call as the gateway and does nothing else: no token, no limit, no deadline,
no audit, no headers, no log.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import grpc.aio
import uvicorn
from dialler.user_context.v1 import user_context_pb2 as pb
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub


def application(target: str) -> Starlette:
    """Return the application; its channel opens with the first request."""
    stubs: list[UserContextServiceAsyncStub] = []

    async def context(request: Request) -> Response:
        if not stubs:
            channel = grpc.aio.insecure_channel(target)
            stubs.append(UserContextServiceStub(channel))
        answer = await stubs[0].GetUserContext(
            pb.GetUserContextRequest(
                user_id=int(request.path_params["user_id"]), view=pb.CONTEXT_VIEW_JSON
            )
        )
        return Response(answer.context_json, media_type="application/json")

    return Starlette(routes=[Route("/v1/people/{user_id}/context", context)])


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
