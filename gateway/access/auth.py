"""Authentication and authorisation: tokens, roles, and the guard in front of every route."""

import logging
import math
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from fastapi import Request, Response
from fastapi.routing import APIRoute

from gateway.access import break_glass
from gateway.access.audit import NO_PERSON, AccessTrail, ViewAction
from gateway.access.keys import JwksKeys, KeySource, StaticKey
from gateway.access.rate_limit import RateLimiter
from gateway.http.problems import HttpError
from gateway.settings import TokenSettings, public_key
from servicekit.clock import Clock
from servicekit.errors import PermissionDenied, Unauthenticated, Unavailable

LONGEST_TOKEN_CHARACTERS = 8192
# For how long a valid token is not verified again; its own expiry comes first.
REMEMBERED_SECONDS = 60.0
REMEMBERED_TOKENS = 10_000

# E-mail addresses are personal data and subjects are logged, hence no "@".
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:|-]{0,63}")
_QUEUE = re.compile(r"[a-z][a-z_]{0,63}")
_JSON = re.compile(r"application/(?:[a-z0-9.-]+\+)?json")
_TYPES = (None, "JWT", "at+jwt", "application/at+jwt")
# Headers that carry or point to a key of the sender's choice, or change what is signed.
_REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"})
_log = logging.getLogger(__name__)


class Role(StrEnum):
    """The role of a token's bearer."""

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

    @classmethod
    def of(cls, claims: dict[str, Any]) -> Self:
        """Return the caller of a token's claims; raises Unauthenticated or ValueError."""
        subject, expires_at = claims["sub"], float(claims["exp"])
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise _invalid("the token's subject is not accepted")
        if not math.isfinite(expires_at):
            raise _invalid("the token's expiry is not accepted")
        role, queues = Role(claims["role"]), claims.get("queues")
        if queues is None:
            return cls(subject, role, None, expires_at)
        if not isinstance(queues, list) or len(queues) > 100:
            raise _invalid("the token's queues are not accepted")
        if not all(isinstance(each, str) and _QUEUE.fullmatch(each) for each in queues):
            raise _invalid("the token's queues are not accepted")
        return cls(subject, role, frozenset(queues), expires_at)

    @property
    def is_break_glass(self) -> bool:
        """Whether it is a token for emergencies."""
        return self.subject.startswith(break_glass.PREFIX)

    def may_work(self, queue: str) -> bool:
        """Return whether the token allows the queue."""
        return self.queues is None or queue in self.queues


class TokenVerifier:
    """Verifies bearer tokens.

    Only the configured algorithm is accepted, and only keys of the configured source; issuer,
    audience, times, type and every claim are checked. Tokens for emergencies have a key, an issuer
    and limits of their own.
    """

    def __init__(self, settings: TokenSettings, keys: KeySource, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        pem = settings.break_glass_public_key
        self._break_glass_key = None if pem is None else public_key(pem)
        self._remembered: dict[str, tuple[Caller, float]] = {}

    async def verify(self, token: str) -> Caller:
        """Return the caller; raises Unauthenticated (TOKEN_INVALID or TOKEN_EXPIRED)."""
        known = self._remembered.get(token)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        caller = await self._verified(token)
        if len(self._remembered) >= REMEMBERED_TOKENS:
            self._remembered.clear()
        left = caller.expires_at - self._clock.now().timestamp()
        until = self._clock.monotonic() + min(REMEMBERED_SECONDS, left)
        self._remembered[token] = (caller, until)
        return caller

    async def close(self) -> None:
        """Close the key source."""
        await self._keys.close()

    async def _verified(self, token: str) -> Caller:
        if len(token) > LONGEST_TOKEN_CHARACTERS:
            raise _invalid("the token is too long")
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            if not _REFUSED_HEADERS.isdisjoint(header):
                raise _invalid("the token's header is not accepted")
            if header.get("typ") not in _TYPES:
                raise _invalid("the token's type is not accepted")
            if self._break_glass_key is not None and header.get("kid") == break_glass.KEY_ID:
                return self._of_an_emergency(token, self._break_glass_key)
            if header.get("alg") != settings.jwt_algorithm:
                raise _invalid("the token's algorithm is not accepted")
            key_id = header.get("kid")
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._keys.key(key_id if isinstance(key_id, str) else None),
                algorithms=[settings.jwt_algorithm],
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=settings.jwt_leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub", "role"]},
            )
            caller = Caller.of(claims)
            if caller.is_break_glass:
                raise _invalid("the token's subject is not accepted")
            # An issuer that counts in milliseconds makes tokens that are valid for 50,000 years.
            now, issued_at = self._clock.now().timestamp(), claims.get("iat")
            begins_at = now if issued_at is None else min(now, float(issued_at))
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("TOKEN_EXPIRED", "the token has expired") from error
        # OverflowError: 1e999, and an integer of hundreds of digits, are no times.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # The library's message may quote the token.
            raise _invalid("the token is not valid") from error
        longest = longest_seconds(settings, caller.role)
        if caller.expires_at - begins_at > longest + settings.jwt_leeway_seconds:
            raise Unauthenticated(
                "TOKEN_INVALID",
                f"the token is valid for longer than a token of role {caller.role} may be; "
                "its exp must be in seconds since 1970",
                longest_seconds=f"{longest:.0f}",
            )
        return caller

    def _of_an_emergency(self, token: str, key: RSAPublicKey) -> Caller:
        settings = self._settings
        claims = break_glass.decoded(token, key, settings.jwt_audience, settings.jwt_leeway_seconds)
        # Written whatever is unavailable; the audit trail has it when the queue accepts it.
        _log.warning(
            "break_glass_used", extra={"caller": claims["sub"], "token_id": str(claims["jti"])}
        )
        return Caller.of(claims)


class Guard:
    """Admits a request when its token is valid, its role allowed and its rate within limits."""

    def __init__(
        self,
        verifier: TokenVerifier,
        limiter: RateLimiter,
        trail: AccessTrail,
        *,
        trusted_proxies: int = 0,
    ) -> None:
        self._verifier = verifier
        self._limiter = limiter
        self._trail = trail
        self._trusted_proxies = trusted_proxies

    async def admit(self, request: Request, roles: frozenset[Role]) -> Caller:
        """Return the caller, which `caller_of` returns from then on."""
        await self.meet(request)
        found = request.headers.getlist("authorization")
        if not found:
            raise Unauthenticated("TOKEN_MISSING", "a bearer token is required")
        scheme, _, token = found[0].partition(" ")
        if len(found) > 1 or scheme.lower() != "bearer" or not token:
            raise _invalid("exactly one bearer token is required")
        caller = await self._verifier.verify(token)
        await self.allow(request, caller, roles)
        return caller

    async def meet(self, request: Request) -> None:
        """Count the request for its address, before authentication: it limits token guessing."""
        address = client_address(request, self._trusted_proxies)
        await self._limiter.take_address(_counted_as(address))

    async def allow(self, request: Request, caller: Caller, roles: frozenset[Role]) -> None:
        """Do the part of `admit` that follows once the caller is known."""
        request.scope["caller"] = caller
        if caller.is_break_glass:
            # The log has its use already, and an emergency is when the trail may be full.
            with suppress(Unavailable):
                self._trail.note(caller.subject, NO_PERSON, ViewAction.BREAK_GLASS)
        if caller.role not in roles:
            raise PermissionDenied(
                "ROLE_NOT_ALLOWED", f"not allowed to role {caller.role}", role=caller.role
            )
        await self._limiter.take(caller.subject, is_service=caller.role is Role.SERVICE)


def longest_seconds(settings: TokenSettings, role: Role) -> float:
    """Return how long a token of the role may be valid."""
    if role is Role.AGENT:
        return settings.jwt_agent_longest_seconds
    return settings.jwt_longest_seconds


def verifier_of(settings: TokenSettings, clock: Clock) -> TokenVerifier:
    """Return the verifier that `settings` describe."""
    keys: KeySource
    if settings.jwt_jwks_url is not None and settings.jwt_algorithm == "RS256":
        keys = JwksKeys(
            settings.jwt_jwks_url,
            clock,
            timeout_seconds=settings.jwks_timeout_seconds,
            cache_seconds=settings.jwks_cache_seconds,
            cooldown_seconds=settings.jwks_cooldown_seconds,
        )
    elif settings.jwt_public_key is not None and settings.jwt_algorithm == "RS256":
        keys = StaticKey(public_key(settings.jwt_public_key))
    elif settings.jwt_secret is not None:
        keys = StaticKey(settings.jwt_secret.get_secret_value())
    else:
        raise ValueError("no key to check tokens with")
    return TokenVerifier(settings, keys, clock)


def guarded(guard: Guard, *roles: Role) -> type[APIRoute]:
    """Return a route class that calls `guard` before it reads anything else of a request."""
    allowed = frozenset(roles)

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                await guard.admit(request, allowed)
                if self.body_field is not None:
                    # Pages of other origins may send text/plain without a preflight request.
                    media_type = request.headers.get("content-type", "").partition(";")[0]
                    is_json = _JSON.fullmatch(media_type.strip().lower())
                    if not is_json and await request.body():
                        raise HttpError(415, "NOT_JSON", "the body must be application/json")
                return await inner(request)

            return handle

    return GuardedRoute


def client_address(request: Request, trusted_proxies: int) -> str:
    """Return the address of the client, as the trusted proxies report it."""
    client = request.scope.get("client")
    peer = str(client[0]) if client else ""
    if not trusted_proxies:
        return peer
    reported = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
    # Each proxy appends the address that it received the request from.
    hops = [each.strip() for each in reported][-trusted_proxies:]
    return hops[0][:64] if len(hops) == trusted_proxies and hops[0] else peer


@lru_cache(maxsize=8192)
def _counted_as(address: str) -> str:
    """Return the part of an address that one client cannot change: of IPv6 the /64 network."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ip_network((parsed.packed[:8] + bytes(8), 64)))


def caller_of(request: Request) -> Caller:
    """Return the caller that the guard has admitted."""
    caller = request.scope["caller"]
    if not isinstance(caller, Caller):
        raise TypeError("the route is not guarded")
    return caller


def _invalid(message: str) -> Unauthenticated:
    return Unauthenticated("TOKEN_INVALID", message)
