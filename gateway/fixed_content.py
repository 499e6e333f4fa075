"""Bytes that are the same for everybody: compressed once, not for each who asks without a token."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request, Response


@dataclass(frozen=True, slots=True)
class FixedContent:
    """Bytes, what gzip makes of them at its best, and what names this version of both."""

    plain: bytes
    gzipped: bytes
    etag: str

    def answer(self, request: Request, media_type: str, headers: Mapping[str, str]) -> Response:
        """Return them, or 304 to whoever has them."""
        told = {"etag": self.etag, **headers}
        known = request.headers.get("if-none-match", "").split(",")
        if self.etag in (each.strip() for each in known):
            return Response(status_code=304, headers=told)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.plain, headers=told, media_type=media_type)
        # What goes out as it is, is told so by `Compression`.
        told |= {"content-encoding": "gzip", "vary": "Accept-Encoding"}
        return Response(self.gzipped, headers=told, media_type=media_type)


def fixed(plain: bytes) -> FixedContent:
    """Return the content that `plain` is."""
    name = hashlib.sha256(plain).hexdigest()[:32]
    # Weak: compressed or not, it says the same.
    return FixedContent(plain, gzip.compress(plain, mtime=0), f'W/"{name}"')
