"""RS256 with the issuer's published keys: rotation, outages, and made-up key ids."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.access.auth import TokenVerifier, verifier_of
from gateway.http.server import HttpServer
from gateway.settings import TokenSettings
from servicekit.errors import Unauthenticated, Unavailable
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.integration

FIRST = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SECOND = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused


class Issuer:
    """Publishes keys and counts who asks."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [published(FIRST, "first")]
        self.asked = 0
        self.status = 200
        self.content: bytes | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self.answering.wait()
        content = self.content
        if content is None:
            content = json.dumps({"keys": self.keys}).encode()
        await Response(content, self.status)(scope, receive, send)


def published(key: RSAPrivateKey, key_id: str, **changes: Any) -> dict[str, Any]:
    public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return public | {"kid": key_id, "use": "sig", "alg": "RS256"} | changes


def token(key: RSAPrivateKey, key_id: str | None) -> str:
    payload = {
        "iss": "dialler",
        "aud": "dialler",
        "sub": "agent-1",
        "role": "agent",
        "exp": int(time.time()) + 600,
    }
    headers = {"kid": key_id} if key_id else None
    return jwt.encode(payload, key, algorithm="RS256", headers=headers)


@pytest.fixture
async def issuer() -> AsyncIterator[tuple[Issuer, str]]:
    issuer = Issuer()
    server = HttpServer(issuer, "127.0.0.1", 0, 1.0, head_seconds=10.0, max_head_bytes=65_536)
    await server.start()
    yield issuer, f"http://{server.address}/keys"
    issuer.answering.set()
    await server.stop()


@pytest.fixture
async def verifying(
    issuer: tuple[Issuer, str],
) -> AsyncIterator[Callable[..., tuple[TokenVerifier, FakeClock]]]:
    made: list[TokenVerifier] = []

    def make(**changes: Any) -> tuple[TokenVerifier, FakeClock]:
        clock = FakeClock(datetime.now(UTC))
        settings = TokenSettings(jwt_algorithm="RS256", jwt_jwks_url=issuer[1], **changes)
        made.append(verifier_of(settings, clock))
        return made[-1], clock

    yield make
    for each in made:
        await each.close()


Verifying = Callable[..., tuple[TokenVerifier, FakeClock]]


async def test_key_set_is_fetched_once_for_many(
    issuer: tuple[Issuer, str], verifying: Verifying
) -> None:
    verifier, _ = verifying()
    tokens = [token(FIRST, "first") for _ in range(8)]
    await asyncio.gather(*(verifier.verify(each) for each in tokens))
    assert issuer[0].asked == 1


async def test_new_key_is_found_and_old_one_dropped(
    issuer: tuple[Issuer, str], verifying: Verifying
) -> None:
    verifier, clock = verifying()
    await verifier.verify(token(FIRST, "first"))
    issuer[0].keys = [published(SECOND, "second")]
    clock.advance(31)
    assert await verifier.verify(token(SECOND, "second"))
    clock.advance(61)
    with pytest.raises(Unauthenticated):
        await verifier.verify(token(FIRST, "first"))


async def test_unknown_key_ids_do_not_hammer_the_issuer(
    issuer: tuple[Issuer, str], verifying: Verifying
) -> None:
    verifier, clock = verifying()
    await verifier.verify(token(FIRST, "first"))
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(FIRST, f"made-up-{number}"))
    assert issuer[0].asked == 1
    clock.advance(31)
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await verifier.verify(token(FIRST, f"made-up-{number}"))
    assert issuer[0].asked == 2


async def test_token_without_a_key_id(verifying: Verifying) -> None:
    with pytest.raises(Unauthenticated):
        await verifying()[0].verify(token(FIRST, None))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [7]}', b"x" * 1_100_000]
)
async def test_issuer_that_answers_nonsense(
    issuer: tuple[Issuer, str], verifying: Verifying, content: bytes
) -> None:
    issuer[0].content = content
    with pytest.raises(Unavailable) as refusal:
        await verifying()[0].verify(token(FIRST, "first"))
    assert refusal.value.reason == "KEYS_UNAVAILABLE"


async def test_issuer_that_fails_later_is_done_without(
    issuer: tuple[Issuer, str], verifying: Verifying
) -> None:
    verifier, clock = verifying()
    await verifier.verify(token(FIRST, "first"))
    issuer[0].status = 500
    clock.advance(3600)
    assert await verifier.verify(token(FIRST, "first"))
    clock.advance(86_400)
    with pytest.raises(Unavailable):
        await verifier.verify(token(FIRST, "first"))


async def test_issuer_that_hangs_holds_nothing_up(
    issuer: tuple[Issuer, str], verifying: Verifying
) -> None:
    issuer[0].answering.clear()
    verifier, _ = verifying(jwks_timeout_seconds=0.2)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await verifier.verify(token(FIRST, "first"))
    assert time.monotonic() - began < 3


async def test_keys_of_other_kinds_are_not_used(
    issuer: tuple[Issuer, str], verifying: Verifying
) -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    issuer[0].keys = [
        published(FIRST, "for encryption", use="enc"),
        published(FIRST, "for another hash", alg="RS512"),
        published(SHORT, "short"),
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0", "kid": "shared", "alg": "HS256"},
        jwt.algorithms.ECAlgorithm.to_jwk(curve, as_dict=True) | {"kid": "curve"},
        published(SECOND, "good"),
    ]
    verifier, clock = verifying()
    assert await verifier.verify(token(SECOND, "good"))
    for key_id, key in (
        ("for encryption", FIRST),
        ("for another hash", FIRST),
        ("short", SHORT),
        ("shared", FIRST),
        ("curve", FIRST),
    ):
        clock.advance(31)
        with pytest.raises(Unauthenticated):
            await verifier.verify(signed_even_if_weak(key, key_id))


def signed_even_if_weak(key: RSAPrivateKey, key_id: str) -> str:
    if key.key_size >= 2048:
        return token(key, key_id)
    good = token(FIRST, key_id).rpartition(".")[0]
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    return f"{good}.{jwt.utils.base64url_encode(signature.sign(good.encode(), key)).decode()}"
