"""Tokens for emergencies: what they say, how one is signed, and when one is accepted.

For when the identity provider gives none. They have a key of their own, which is not the issuer's;
its private half lies where two people open it together. The subject says that it is such a token,
who has it and for which incident, so every entry of the audit trail says so too.
"""

import re
import time
import uuid
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

KEY_ID: Final = "break-glass"
ISSUER: Final = "dialler-break-glass"
LONGEST_SECONDS: Final = 3600
PREFIX: Final = "break-glass:"

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,22}"
_SUBJECT: Final = re.compile(f"{PREFIX}{_NAME}:{_NAME}")


def signed(key: RSAPrivateKey, audience: str, engineer: str, reason: str, ttl_seconds: int) -> str:
    """Return a supervisor's token that is valid from now on.

    `reason` is the incident's number, not a text: the audit trail holds no personal data. Raises
    ValueError for a name, a reason or a duration that the gateway would refuse.
    """
    subject = f"{PREFIX}{engineer}:{reason}"
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(
            "the engineer and the incident are up to 23 letters, digits, dots, dashes, underscores"
        )
    if not 0 < ttl_seconds <= LONGEST_SECONDS:
        raise ValueError(f"such a token is valid for at most {LONGEST_SECONDS // 60} minutes")
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": audience,
        "sub": subject,
        "role": "supervisor",
        "jti": str(uuid.uuid4()),
        "iat": now,
        "exp": now + ttl_seconds,
    }
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": KEY_ID})


def decoded(token: str, key: RSAPublicKey, audience: str, leeway_seconds: float) -> dict[str, Any]:
    """Return the claims of such a token; raises PyJWTError when it is not acceptable."""
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience=audience,
        issuer=ISSUER,
        leeway=leeway_seconds,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "role", "jti"]},
    )
    if claims["role"] != "supervisor" or not _SUBJECT.fullmatch(str(claims["sub"])):
        raise jwt.InvalidTokenError("not a token for emergencies")
    if float(claims["exp"]) - float(claims["iat"]) > LONGEST_SECONDS:
        raise jwt.InvalidTokenError("valid for too long")
    return claims
