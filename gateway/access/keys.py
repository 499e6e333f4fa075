"""The keys that tokens are verified with: one static key, or the issuer's key set."""

import asyncio
import logging
from typing import Any, Protocol

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.settings import SHORTEST_RSA_BITS
from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import Unauthenticated, Unavailable
from servicekit.spans import Kind

LARGEST_KEY_SET_BYTES = 1_000_000
# Keys older than this are no longer trusted if they cannot be fetched again.
OLDEST_KEY_SET_SECONDS = 86_400.0

_log = logging.getLogger(__name__)

Key = str | RSAPublicKey


class KeySource(Protocol):
    """Returns the key that a token must be verified with."""

    async def key(self, key_id: str | None) -> Key:
        """Return it; raises Unauthenticated if there is none, Unavailable if that is unknown."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class StaticKey:
    """One key for all tokens, with any key id."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def key(self, key_id: str | None) -> Key:
        """Return the key."""
        return self._key

    async def close(self) -> None:
        """Do nothing."""


class JwksKeys:
    """The issuer's published RSA keys by key id.

    Fetched on first use, again when older than `cache_seconds`, and when a token names an unknown
    key id; never twice within `cooldown_seconds`, however many tokens name unknown ids.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        timeout_seconds: float,
        cache_seconds: float,
        cooldown_seconds: float,
    ) -> None:
        self._url = url
        self._host = httpx.URL(url).host
        self._clock = clock
        self._cache_seconds = cache_seconds
        self._cooldown_seconds = cooldown_seconds
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(timeout=timeout_seconds, follow_redirects=False)
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()

    async def key(self, key_id: str | None) -> Key:
        """Return the key with that id."""
        if key_id is None:
            raise Unauthenticated("TOKEN_INVALID", "the token names no key")
        if key_id not in self._keys or self._age_seconds() > self._cache_seconds:
            await self._refresh(key_id)
        if self._age_seconds() > max(OLDEST_KEY_SET_SECONDS, self._cache_seconds):
            raise Unavailable(
                "KEYS_UNAVAILABLE",
                "the issuer's keys cannot be fetched",
                retry_after_seconds=self._cooldown_seconds,
            )
        found = self._keys.get(key_id)
        if found is None:
            raise Unauthenticated("TOKEN_INVALID", "the token is signed with an unknown key")
        return found

    async def close(self) -> None:
        """Close the connections to the issuer."""
        await self._client.aclose()

    def _age_seconds(self) -> float:
        if self._fetched_at is None:
            return float("inf")
        return self._clock.monotonic() - self._fetched_at

    async def _refresh(self, key_id: str) -> None:
        async with self._fetching:
            # Another request may have fetched the keys while this one waited for the lock.
            if key_id in self._keys and self._age_seconds() <= self._cache_seconds:
                return
            now = self._clock.monotonic()
            if self._tried_at is not None and now - self._tried_at < self._cooldown_seconds:
                return
            self._tried_at = now
            try:
                with telemetry.span(
                    "GET",
                    kind=Kind.CLIENT,
                    attributes={"http.request.method": "GET", "server.address": self._host},
                ):
                    self._keys = await self._fetched()
                self._fetched_at = now
            except (httpx.HTTPError, TimeoutError, ValueError) as error:
                _log.warning("jwks_fetch_failed", extra={"error": type(error).__name__})

    async def _fetched(self) -> dict[str, RSAPublicKey]:
        content = bytearray()
        async with (
            asyncio.timeout(self._timeout_seconds),
            self._client.stream("GET", self._url) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ValueError("the issuer did not answer with a key set")
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > LARGEST_KEY_SET_BYTES:
                    raise ValueError("the key set is too large")
        value = orjson.loads(content)
        if not isinstance(value, dict):
            raise ValueError("no key set")
        try:
            published = jwt.PyJWKSet.from_dict(value).keys
        except jwt.PyJWTError as error:
            raise ValueError("no key set") from error
        found: dict[str, RSAPublicKey] = {}
        for each in published:
            key: Any = each.key
            is_rs256 = each.algorithm_name == "RS256" and each.public_key_use in (None, "sig")
            is_long = isinstance(key, RSAPublicKey) and key.key_size >= SHORTEST_RSA_BITS
            if each.key_id and is_rs256 and is_long:
                found[each.key_id] = key
        return found
