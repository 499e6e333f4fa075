"""Tokens, good and forged; each row of the tables is a way in that must stay shut."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from gateway.access.auth import Caller, Role, TokenVerifier, verifier_of
from gateway.settings import TokenSettings
from gateway.token import development_token, main
from servicekit.clock import SystemClock
from servicekit.errors import Unauthenticated
from tests.fakes.clock import FakeClock

SECRET = "s" * 40
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

Claims = dict[str, Any]


def claims(**changes: Any) -> Claims:
    now = int(time.time())
    base: Claims = {
        "iss": "dialler",
        "aud": "dialler",
        "sub": "agent-1",
        "role": "agent",
        "exp": now + 600,
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def now(offset: int) -> int:
    return int(time.time()) + offset


def hs256(**settings: Any) -> TokenVerifier:
    return verifier_of(TokenSettings(jwt_secret=SECRET, **settings), SystemClock())


def rs256() -> TokenVerifier:
    return verifier_of(TokenSettings(jwt_algorithm="RS256", jwt_public_key=PEM), SystemClock())


def signed(payload: Claims, **header: Any) -> str:
    return jwt.encode(payload, SECRET, algorithm="HS256", headers=header)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged(header: object, payload: object, key: bytes | None) -> str:
    """Make a token by hand, as an attacker would: libraries refuse to."""
    text = f"{segment(header)}.{segment(payload)}"
    if key is None:
        return f"{text}."
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


async def test_good_token_names_its_bearer() -> None:
    payload = claims(role="supervisor", queues=["callbacks"])
    caller = await hs256().verify(signed(payload))
    assert caller == Caller(
        "agent-1", Role.SUPERVISOR, frozenset({"callbacks"}), float(payload["exp"])
    )


async def test_development_token_is_good() -> None:
    caller = await hs256().verify(development_token(SECRET, "service", "make-run"))
    assert caller.role is Role.SERVICE
    assert caller.queues is None


async def test_good_rs256_token() -> None:
    token = jwt.encode(claims(), PRIVATE, algorithm="RS256")
    assert (await rs256().verify(token)).subject == "agent-1"


@pytest.mark.parametrize(("claim", "offset"), [("exp", -5), ("nbf", 5), ("iat", 5)])
async def test_clocks_may_differ_by_the_leeway(claim: str, offset: int) -> None:
    assert await hs256().verify(signed(claims(**{claim: now(offset)})))


async def test_one_of_several_audiences_is_enough() -> None:
    assert await hs256().verify(signed(claims(aud=["other", "dialler"])))


@pytest.mark.parametrize(
    "payload",
    [
        claims(nbf=now(7200)),
        claims(iat=now(7200)),
        claims(exp=...),
        claims(exp="tomorrow"),
        claims(exp=None),
        claims(aud="other"),
        claims(aud=...),
        claims(aud=[]),
        claims(iss="other"),
        claims(iss=...),
        claims(iss=["dialler"]),
        claims(sub=...),
        claims(sub=""),
        claims(sub=7),
        claims(sub="jo@example.com"),
        claims(sub="a\nb"),
        claims(sub="a" * 65),
        claims(role=...),
        claims(role="admin"),
        claims(role=["agent", "supervisor"]),
        claims(role=None),
        claims(queues="callbacks"),
        claims(queues=[7]),
        claims(queues=["Call Backs"]),
    ],
)
async def test_wrong_claims(payload: Claims) -> None:
    # The library's own encoder refuses some of these.
    token = forged({"alg": "HS256", "typ": "JWT"}, payload, SECRET.encode())
    with pytest.raises(Unauthenticated) as refusal:
        await hs256().verify(token)
    assert refusal.value.reason == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "payload",
    [
        claims(exp=(now(3600)) * 1000),
        claims(exp=now(90_000)),
        claims(exp=now(86_400 - 600), iat=now(-1200)),
        claims(exp=str(now(3600) * 1000)),
        claims(exp=1e300),
        claims(role="supervisor", exp=now(3600) * 1000),
        claims(role="service", exp=now(367 * 86_400)),
    ],
)
async def test_a_token_that_is_good_for_too_long_is_refused_and_told_why(payload: Claims) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await hs256().verify(forged({"alg": "HS256"}, payload, SECRET.encode()))
    assert refusal.value.reason == "TOKEN_INVALID"
    assert f"a token of role {payload['role']} may be" in refusal.value.message
    assert refusal.value.metadata["longest_seconds"] in {"86400", "31622400"}


async def test_how_long_a_token_may_be_good_is_set_for_each_kind() -> None:
    assert await hs256().verify(signed(claims(exp=now(86_400), iat=now(0))))
    assert await hs256().verify(signed(claims(role="service", exp=now(360 * 86_400))))
    assert await hs256(jwt_agent_longest_seconds=604_800).verify(signed(claims(exp=now(500_000))))
    for role, setting in (
        ("agent", "jwt_agent_longest_seconds"),
        ("service", "jwt_longest_seconds"),
    ):
        with pytest.raises(Unauthenticated):
            await hs256(**{setting: 60}).verify(signed(claims(role=role)))


@pytest.mark.parametrize(("ttl", "code"), [("86400", 0), ("86401", 78), ("inf", 78), ("nan", 78)])
def test_no_token_is_made_that_would_be_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ttl: str, code: int
) -> None:
    monkeypatch.setenv("GATEWAY_JWT_SECRET", SECRET)
    monkeypatch.setattr("sys.argv", ["token", "--role", "agent", "--sub", "a", "--ttl", ttl])
    assert main() == code
    assert ("86400" in capsys.readouterr().err) == (code != 0)


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "number",
    [float("inf"), float("nan"), 10**400, "9" * 5000],
    ids=["infinite", "no number", "of 400 digits", "of 5,000 digits, as text"],
)
async def test_an_absurd_time_is_a_wrong_token_and_no_defect(claim: str, number: object) -> None:
    token = forged({"alg": "HS256"}, claims(**{claim: number}), SECRET.encode())
    with pytest.raises(Unauthenticated):
        await hs256().verify(token)


async def test_expired_token_says_so() -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await hs256().verify(signed(claims(exp=now(-120))))
    assert refusal.value.reason == "TOKEN_EXPIRED"


ATTACKS: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "noise": lambda: "not.a.token",
    "binary": lambda: "\x00\xff.\x00.\x00",
    "two parts": lambda: "e30.e30",
    "four parts": lambda: signed(claims()) + ".e30",
    "alg none": lambda: forged({"alg": "none"}, claims(), None),
    "alg None": lambda: forged({"alg": "None"}, claims(), None),
    "alg NONE with signature": lambda: forged({"alg": "NONE"}, claims(), SECRET.encode()),
    "no alg": lambda: forged({"typ": "JWT"}, claims(), SECRET.encode()),
    "alg as list": lambda: forged({"alg": ["HS256"]}, claims(), SECRET.encode()),
    "signature left out": lambda: forged({"alg": "HS256"}, claims(), None),
    "signature of another key": lambda: forged({"alg": "HS256"}, claims(), b"guess" * 8),
    "signature of the empty key": lambda: forged({"alg": "HS256"}, claims(), b""),
    "other hash": lambda: jwt.encode(claims(), SECRET * 2, algorithm="HS512"),
    "rs256 where hs256 is pinned": lambda: jwt.encode(claims(), PRIVATE, algorithm="RS256"),
    "jku": lambda: signed(claims(), jku="https://evil.example/jwks.json"),
    "x5u": lambda: signed(claims(), x5u="https://evil.example/cert.pem"),
    "jwk": lambda: signed(claims(), jwk={"kty": "oct", "k": "c2VjcmV0"}),
    "x5c": lambda: signed(claims(), x5c=["MIIB"]),
    "crit": lambda: forged({"alg": "HS256", "crit": ["exp"]}, claims(), SECRET.encode()),
    "unencoded payload": lambda: forged({"alg": "HS256", "b64": False}, claims(), SECRET.encode()),
    "id token type": lambda: signed(claims(), typ="id_token"),
    "refresh token type": lambda: signed(claims(), typ="refresh+jwt"),
    "payload is a list": lambda: forged({"alg": "HS256"}, [claims()], SECRET.encode()),
    "payload is nested deep": lambda: (
        f"{segment({'alg': 'HS256'})}.{base64.urlsafe_b64encode(b'[' * 5000).decode()}.x"
    ),
    "far too long": lambda: signed(claims(padding="x" * 10_000)),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_on_hs256(attack: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await hs256().verify(ATTACKS[attack]())
    assert refusal.value.reason == "TOKEN_INVALID"


RS_ATTACKS: dict[str, Callable[[], str]] = {
    # The public key is no secret: any client could sign, were the token's own algorithm used.
    "public key as secret": lambda: forged({"alg": "HS256"}, claims(), PEM.encode()),
    "public key as secret, other case": lambda: forged({"alg": "hs256"}, claims(), PEM.encode()),
    "stranger's key": lambda: jwt.encode(claims(), STRANGER, algorithm="RS256"),
    "stranger's key brought along": lambda: jwt.encode(
        claims(),
        STRANGER,
        algorithm="RS256",
        headers={"jwk": jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)},
    ),
    "other padding": lambda: jwt.encode(claims(), PRIVATE, algorithm="PS256"),
    "alg none": lambda: forged({"alg": "none"}, claims(), None),
    "signature of another token": lambda: ".".join(
        [
            *jwt.encode(claims(role="supervisor"), STRANGER, algorithm="RS256").split(".")[:2],
            jwt.encode(claims(), PRIVATE, algorithm="RS256").split(".")[2],
        ]
    ),
}


@pytest.mark.parametrize("attack", RS_ATTACKS)
async def test_attacks_on_rs256(attack: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await rs256().verify(RS_ATTACKS[attack]())
    assert refusal.value.reason == "TOKEN_INVALID"


class CountedKey:
    """A key source that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def key(self, key_id: str | None) -> str:
        self.asked += 1
        return SECRET

    async def close(self) -> None:
        return


async def test_token_is_looked_at_again_after_a_minute_and_at_its_expiry() -> None:
    clock, keys = FakeClock(), CountedKey()
    clock.advance(time.time() - clock.now().timestamp())
    verifier = TokenVerifier(TokenSettings(jwt_secret=SECRET), keys, clock)
    long, short = signed(claims()), signed(claims(exp=now(20)))
    for token in (long, short, long, short):
        await verifier.verify(token)
    assert keys.asked == 2
    clock.advance(21)
    await verifier.verify(long)
    assert keys.asked == 2
    await verifier.verify(short)
    assert keys.asked == 3
    clock.advance(40)
    await verifier.verify(long)
    assert keys.asked == 4


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"jwt_secret": "short"},
        {"jwt_secret": SECRET, "jwt_algorithm": "none"},
        {"jwt_secret": SECRET, "jwt_algorithm": "RS256"},
        {"jwt_algorithm": "RS256", "jwt_public_key": "no key"},
        {"jwt_algorithm": "RS256", "jwt_public_key": PEM, "jwt_jwks_url": "https://a.example"},
        {"jwt_algorithm": "RS256", "jwt_jwks_url": "http://issuer.example/keys"},
        {"jwt_algorithm": "RS256", "jwt_jwks_url": "file:///etc/passwd"},
        {"jwt_secret": SECRET, "jwt_leeway_seconds": 4000},
    ],
)
def test_unsafe_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokenSettings(**values)
