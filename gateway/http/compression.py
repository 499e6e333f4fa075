"""gzip: of larger answers as they are sent, of static content once."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import Request, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

# For smaller answers the added headers cost more than compression saves.
SMALLEST_BYTES = 1_400
# Nearly the best compression, several times as fast.
LEVEL = 4


class Compression:
    """Compresses larger answers for clients that accept gzip; never those of `streaming` paths."""

    def __init__(self, app: ASGIApp, streaming: frozenset[str]) -> None:
        self._app = app
        self._streaming = streaming
        self._compressing = GZipMiddleware(app, minimum_size=SMALLEST_BYTES, compresslevel=LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        passes = scope["type"] != "http" or scope["path"] in self._streaming
        await (self._app if passes else self._compressing)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class FixedContent:
    """Bytes, their gzip form, and the ETag of both."""

    plain: bytes
    gzipped: bytes
    etag: str

    def answer(self, request: Request, media_type: str, headers: Mapping[str, str]) -> Response:
        """Return the content, or 304 to a client that has it."""
        sent = {"etag": self.etag, **headers}
        known = request.headers.get("if-none-match", "").split(",")
        if self.etag in (each.strip() for each in known):
            return Response(status_code=304, headers=sent)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.plain, headers=sent, media_type=media_type)
        # `Compression` adds Vary to answers that it does not compress.
        sent |= {"content-encoding": "gzip", "vary": "Accept-Encoding"}
        return Response(self.gzipped, headers=sent, media_type=media_type)


def fixed(plain: bytes) -> FixedContent:
    """Return the content with the bytes `plain`."""
    name = hashlib.sha256(plain).hexdigest()[:32]
    # Weak: the same content compressed or not.
    return FixedContent(plain, gzip.compress(plain, mtime=0), f'W/"{name}"')


@cache
def fixed_file(package: str, *path: str) -> FixedContent:
    """Return the content of a file of a package, which is read once."""
    return fixed(files(package).joinpath(*path).read_bytes())
