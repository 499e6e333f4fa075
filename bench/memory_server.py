"""The floor of `context_read`: a bare grpc.aio server that answers given bytes from memory."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import uvloop


async def serve(port: int, answer: bytes) -> None:
    """Answer GetUserContext on ``port`` with ``answer`` until killed."""

    async def get(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    server = grpc.aio.server()
    handlers = {"GetUserContext": grpc.unary_unary_rpc_method_handler(get)}
    service = "dialler.user_context.v1.UserContextService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
