"""Tokens for emergencies: accepted by their own key alone, short, and named in the log."""

import logging
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.access import break_glass
from gateway.access.auth import TokenVerifier, verifier_of
from gateway.settings import TokenSettings
from servicekit.clock import SystemClock
from servicekit.errors import Unauthenticated

SECRET = "s" * 40
OURS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def verifier(**changes: Any) -> TokenVerifier:
    settings = {"jwt_secret": SECRET, "break_glass_public_key": PEM} | changes
    return verifier_of(TokenSettings(**settings), SystemClock())


def forged(
    key: Any = OURS, *, headers: Any = None, algorithm: str = "RS256", **changes: Any
) -> str:
    now = int(time.time())
    claims = {
        "iss": break_glass.ISSUER,
        "aud": "dialler",
        "sub": "break-glass:alice:INC-1",
        "role": "supervisor",
        "jti": "1",
        "iat": now,
        "exp": now + 600,
    } | changes
    kept = {name: value for name, value in claims.items() if value is not ...}
    kid = {"kid": break_glass.KEY_ID} if headers is None else headers
    return jwt.encode(kept, key, algorithm=algorithm, headers=kid)


async def test_it_names_the_engineer_and_the_incident_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = break_glass.signed(OURS, "dialler", "alice", "INC-1", 900)
    with caplog.at_level(logging.WARNING):
        caller = await verifier().verify(token)
    assert (caller.subject, caller.role) == ("break-glass:alice:INC-1", "supervisor")
    assert caller.is_break_glass
    [record] = [each for each in caplog.records if each.message == "break_glass_used"]
    assert vars(record)["caller"] == "break-glass:alice:INC-1"
    assert vars(record)["token_id"]


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: forged(STRANGER), id="another key"),
        pytest.param(lambda: forged(headers={}), id="no key id"),
        pytest.param(lambda: forged(SECRET, algorithm="HS256"), id="the development secret"),
        pytest.param(lambda: forged(role="service"), id="another role"),
        pytest.param(lambda: forged(role="agent"), id="an agent"),
        pytest.param(lambda: forged(sub="alice"), id="a subject without the incident"),
        pytest.param(lambda: forged(sub="break-glass:alice:"), id="an empty incident"),
        pytest.param(lambda: forged(iss="dialler"), id="the issuer's name"),
        pytest.param(lambda: forged(aud="another"), id="another audience"),
        pytest.param(lambda: forged(jti=...), id="no id"),
        pytest.param(lambda: forged(iat=...), id="no beginning"),
        pytest.param(lambda: forged(exp=int(time.time()) + 3700), id="too long"),
        pytest.param(lambda: forged(exp=int(time.time()) - 60), id="expired"),
    ],
)
async def test_anything_else_is_refused(token: Any) -> None:
    with pytest.raises(Unauthenticated):
        await verifier().verify(token())


async def test_without_the_key_there_are_none() -> None:
    with pytest.raises(Unauthenticated):
        await verifier(break_glass_public_key=None).verify(forged())


async def test_the_issuer_cannot_name_a_subject_like_one() -> None:
    token = forged(SECRET, algorithm="HS256", headers={}, iss="dialler")
    with pytest.raises(Unauthenticated):
        await verifier().verify(token)


@pytest.mark.parametrize(
    ("engineer", "reason", "seconds"),
    [("alice@example.com", "INC-1", 900), ("alice", "the IdP is down", 900), ("alice", "I", 3601)],
)
def test_what_the_gateway_would_refuse_is_not_signed(
    engineer: str, reason: str, seconds: int
) -> None:
    with pytest.raises(ValueError, match=r"letters|minutes"):
        break_glass.signed(OURS, "dialler", engineer, reason, seconds)
