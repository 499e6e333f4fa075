"""gzip for answers that are worth it."""

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

# Below it the head alone costs more than is saved.
SMALLEST_BYTES = 1_400
# Nearly as small as the best and several times as fast.
LEVEL = 4


class Compression:
    """Compresses larger answers for clients that take gzip; `streaming` paths never."""

    def __init__(self, app: ASGIApp, streaming: frozenset[str]) -> None:
        self._app = app
        self._streaming = streaming
        self._compressing = GZipMiddleware(app, minimum_size=SMALLEST_BYTES, compresslevel=LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        passes = scope["type"] != "http" or scope["path"] in self._streaming
        await (self._app if passes else self._compressing)(scope, receive, send)
