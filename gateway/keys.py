"""Where the keys that tokens are signed with come from."""

import asyncio
import logging
from typing import Any, Protocol

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import Unauthenticated, Unavailable
from servicekit.spans import Kind

SHORTEST_RSA_BITS = 2048
LARGEST_KEY_SET_BYTES = 1_000_000
# Past this age keys that cannot be fetched anew are no longer trusted.
OLDEST_KEY_SET_SECONDS = 86_400.0

_log = logging.getLogger(__name__)

Key = str | RSAPublicKey


class KeySource(Protocol):
    """Knows the key a token must be signed with."""

    async def key(self, key_id: str | None) -> Key:
        """Return it; raises Unauthenticated if there is none, Unavailable if nobody can tell."""
        ...

    async def close(self) -> None:
        """Release what is held."""
        ...


class StaticKey:
    """One key for all tokens, whatever key id they name."""

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
    key id; never twice within `cooldown_seconds`, however many tokens ask.
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
            # Whoever waited here may find that the one before has done the work.
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
        return _usable_keys(bytes(content))


def public_key(pem: str) -> RSAPublicKey:
    """Return the RSA key that `pem` holds; raises ValueError for another kind or a short one."""
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the public key is not an RSA key")
    if key.key_size < SHORTEST_RSA_BITS:
        raise ValueError(f"the RSA key has fewer than {SHORTEST_RSA_BITS} bits")
    return key


def _usable_keys(content: bytes) -> dict[str, RSAPublicKey]:
    try:
        published = jwt.PyJWKSet.from_dict(_object(content)).keys
    except jwt.PyJWTError as error:
        raise ValueError("no key set") from error
    found: dict[str, RSAPublicKey] = {}
    for each in published:
        if each.key_id and _verifies_rs256(each):
            found[each.key_id] = each.key
    return found


def _object(content: bytes) -> dict[str, Any]:
    value = orjson.loads(content)
    if not isinstance(value, dict):
        raise ValueError("no key set")
    return value


def _verifies_rs256(published: jwt.PyJWK) -> bool:
    key: Any = published.key
    return (
        published.algorithm_name == "RS256"
        and published.public_key_use in (None, "sig")
        and isinstance(key, RSAPublicKey)
        and key.key_size >= SHORTEST_RSA_BITS
    )
