"""Who is asking, and whether they may."""

import math
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import jwt
from fastapi import Request, Response
from fastapi.routing import APIRoute

from gateway.keys import JwksKeys, KeySource, StaticKey, public_key
from gateway.problems import HttpError
from gateway.rate_limit import RateLimiter
from gateway.settings import TokenSettings
from servicekit.clock import Clock
from servicekit.errors import PermissionDenied, Unauthenticated

LONGEST_TOKEN_CHARACTERS = 8192
# How long a token once found good is not looked at again; its own expiry comes first.
REMEMBERED_SECONDS = 60.0
REMEMBERED_TOKENS = 10_000

# An address is personal data and subjects stand in logs, hence no "@".
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:|-]{0,63}")
_QUEUE = re.compile(r"[a-z][a-z_]{0,63}")
_JSON = re.compile(r"application/(?:[a-z0-9.-]+\+)?json")
_TYPES = (None, "JWT", "at+jwt", "application/at+jwt")
# Headers that bring or point to a key of the sender's choice, or change what is signed.
_REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"})


class Role(StrEnum):
    """What a token's bearer is."""

    AGENT = "agent"
    SUPERVISOR = "supervisor"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a valid token.

    `queues` is None when all are allowed; `expires_at` is in Unix seconds.
    """

    subject: str
    role: Role
    queues: frozenset[str] | None
    expires_at: float


class TokenVerifier:
    """Turns a bearer token into its caller.

    Only the configured algorithm is accepted, and only keys of the configured source; issuer,
    audience, times, type and every claim are checked.
    """

    def __init__(self, settings: TokenSettings, keys: KeySource, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._remembered: dict[str, tuple[Caller, float]] = {}

    async def verify(self, token: str) -> Caller:
        """Return the caller; raises Unauthenticated (TOKEN_INVALID or TOKEN_EXPIRED)."""
        known = self._remembered.get(token)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        caller = await self._verified(token)
        self._remember(token, caller)
        return caller

    async def close(self) -> None:
        """Release the key source."""
        await self._keys.close()

    async def _verified(self, token: str) -> Caller:
        if len(token) > LONGEST_TOKEN_CHARACTERS:
            raise _invalid("the token is too long")
        try:
            key_id = self._checked_header(jwt.get_unverified_header(token))
            return _caller(self._claims(token, await self._keys.key(key_id)))
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("TOKEN_EXPIRED", "the token has expired") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # The library's words may quote the token.
            raise _invalid("the token is not valid") from error

    def _checked_header(self, header: dict[str, Any]) -> str | None:
        if header.get("alg") != self._settings.jwt_algorithm:
            raise _invalid("the token's algorithm is not accepted")
        if not _REFUSED_HEADERS.isdisjoint(header):
            raise _invalid("the token's header is not accepted")
        if header.get("typ") not in _TYPES:
            raise _invalid("the token's type is not accepted")
        key_id = header.get("kid")
        return key_id if isinstance(key_id, str) else None

    def _claims(self, token: str, key: Any) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[self._settings.jwt_algorithm],
            audience=self._settings.jwt_audience,
            issuer=self._settings.jwt_issuer,
            leeway=self._settings.jwt_leeway_seconds,
            options={"require": ["exp", "iss", "aud", "sub", "role"]},
        )
        return claims

    def _remember(self, token: str, caller: Caller) -> None:
        if len(self._remembered) >= REMEMBERED_TOKENS:
            self._remembered.clear()
        left = caller.expires_at - self._clock.now().timestamp()
        until = self._clock.monotonic() + min(REMEMBERED_SECONDS, left)
        self._remembered[token] = (caller, until)


class Guard:
    """Lets a request in when its token is good, its role allowed and its rate within limits."""

    def __init__(
        self, verifier: TokenVerifier, limiter: RateLimiter, *, trusted_proxies: int = 0
    ) -> None:
        self._verifier = verifier
        self._limiter = limiter
        self._trusted_proxies = trusted_proxies

    async def admit(self, request: Request, roles: frozenset[Role]) -> Caller:
        """Return the caller, and leave it where `caller_of` finds it."""
        await self.meet(request)
        caller = await self._verifier.verify(_bearer(request))
        await self.allow(request, caller, roles)
        return caller

    async def meet(self, request: Request) -> None:
        """Count a request of its address: before it says who it is, so that guessing is limited."""
        address = client_address(request, self._trusted_proxies)
        await self._limiter.take_address(_counted_as(address))

    async def allow(self, request: Request, caller: Caller, roles: frozenset[Role]) -> None:
        """Do the part of `admit` that follows once the caller is known."""
        request.scope["caller"] = caller
        if caller.role not in roles:
            raise PermissionDenied(
                "ROLE_NOT_ALLOWED", f"not allowed to role {caller.role}", role=caller.role
            )
        await self._limiter.take(caller.subject, is_service=caller.role is Role.SERVICE)


def verifier_of(settings: TokenSettings, clock: Clock) -> TokenVerifier:
    """Return the verifier that `settings` describe."""
    return TokenVerifier(settings, _key_source(settings, clock), clock)


def guarded(guard: Guard, *roles: Role) -> type[APIRoute]:
    """Return a route class that asks `guard` before it looks at anything else of a request."""
    allowed = frozenset(roles)

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                await guard.admit(request, allowed)
                if self.body_field is not None:
                    await _require_json(request)
                return await inner(request)

            return handle

    return GuardedRoute


async def _require_json(request: Request) -> None:
    """Raise HttpError 415 (NOT_JSON) for a body of another type; browsers say text/plain."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _JSON.fullmatch(media_type) and await request.body():
        raise HttpError(415, "NOT_JSON", "the body must be application/json")


def client_address(request: Request, trusted_proxies: int) -> str:
    """Return whom a request comes from, as far as the proxies in front are believed."""
    client = request.scope.get("client")
    peer = str(client[0]) if client else ""
    if not trusted_proxies:
        return peer
    told = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    # Each proxy adds at the end whom it got the request from.
    hops = [each.strip() for each in told][-trusted_proxies:]
    return hops[0][:64] if len(hops) == trusted_proxies and hops[0] else peer


@lru_cache(maxsize=8192)
def _counted_as(address: str) -> str:
    """Return what all addresses that one client may choose from have in common: an IPv6 /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed.packed[:8] + bytes(8), 64)))


def caller_of(request: Request) -> Caller:
    """Return whom the guard has let in."""
    caller = request.scope["caller"]
    if not isinstance(caller, Caller):
        raise TypeError("the route is not guarded")
    return caller


def _key_source(settings: TokenSettings, clock: Clock) -> KeySource:
    if settings.jwt_jwks_url is not None and settings.jwt_algorithm == "RS256":
        return JwksKeys(
            settings.jwt_jwks_url,
            clock,
            timeout_seconds=settings.jwks_timeout_seconds,
            cache_seconds=settings.jwks_cache_seconds,
            cooldown_seconds=settings.jwks_cooldown_seconds,
        )
    if settings.jwt_public_key is not None and settings.jwt_algorithm == "RS256":
        return StaticKey(public_key(settings.jwt_public_key))
    if settings.jwt_secret is None:
        raise ValueError("no key to check tokens with")
    return StaticKey(settings.jwt_secret.get_secret_value())


def _bearer(request: Request) -> str:
    found = request.headers.getlist("authorization")
    if not found:
        raise Unauthenticated("TOKEN_MISSING", "a bearer token is required")
    scheme, _, token = found[0].partition(" ")
    if len(found) > 1 or scheme.lower() != "bearer" or not token:
        raise _invalid("exactly one bearer token is required")
    return token


def _caller(claims: dict[str, Any]) -> Caller:
    subject, expires_at = claims["sub"], float(claims["exp"])
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise _invalid("the token's subject is not accepted")
    if not math.isfinite(expires_at):
        raise _invalid("the token's expiry is not accepted")
    return Caller(subject, Role(claims["role"]), _queues(claims.get("queues")), expires_at)


def _queues(claim: object) -> frozenset[str] | None:
    if claim is None:
        return None
    if not isinstance(claim, list) or len(claim) > 100:
        raise _invalid("the token's queues are not accepted")
    if not all(isinstance(each, str) and _QUEUE.fullmatch(each) for each in claim):
        raise _invalid("the token's queues are not accepted")
    return frozenset(claim)


def _invalid(message: str) -> Unauthenticated:
    return Unauthenticated("TOKEN_INVALID", message)
