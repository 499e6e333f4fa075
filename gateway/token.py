"""Makes tokens: for development, and for emergencies.

`python -m gateway.token --role agent --sub agent-1` signs with the development secret,
`python -m gateway.token --break-glass KEY.pem --sub ENGINEER --reason INCIDENT` with a key of its
own.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError

from gateway.access import break_glass
from gateway.access.auth import Role, longest_seconds
from gateway.settings import TokenSettings


def development_token(
    secret: str,
    role: str,
    subject: str,
    *,
    ttl_seconds: float = 3600.0,
    queues: Sequence[str] | None = None,
    issuer: str = "dialler",
    audience: str = "dialler",
) -> str:
    """Return a token signed with HS256, valid from now on for `ttl_seconds`."""
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "role": role,
        "iat": now,
        "exp": now + int(ttl_seconds),
    }
    if queues is not None:
        claims["queues"] = list(queues)
    return jwt.encode(claims, secret, algorithm="HS256")


def main() -> int:
    """Print a token; 78 when the key or the settings do not allow what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m gateway.token", description=__doc__)
    parser.add_argument("--role", choices=list(Role), help="for development; else supervisor")
    parser.add_argument("--sub", required=True, help="the agent's id; never an e-mail address")
    parser.add_argument("--ttl", type=float, help="seconds it is valid: 3600; in an emergency 900")
    parser.add_argument("--queues", help="comma-separated queues the agent is limited to")
    parser.add_argument("--break-glass", type=Path, metavar="KEY", help="RSA private key in PEM")
    parser.add_argument("--reason", help="the number of the incident, with --break-glass")
    arguments = parser.parse_args()
    if arguments.break_glass is not None:
        if arguments.reason is None or arguments.role is not None or arguments.queues is not None:
            parser.error("--break-glass needs --reason, and takes neither --role nor --queues")
        return _break_glass(
            arguments.break_glass, arguments.sub, arguments.reason, int(arguments.ttl or 900)
        )
    if arguments.role is None or arguments.reason is not None:
        parser.error("--role is required; --reason belongs to --break-glass")
    return _development(
        Role(arguments.role), arguments.sub, arguments.ttl or 3600.0, arguments.queues
    )


def _break_glass(path: Path, engineer: str, reason: str, ttl_seconds: int) -> int:
    audience = os.environ.get("GATEWAY_JWT_AUDIENCE") or "dialler"
    try:
        pem = path.read_bytes()
        password = getpass("passphrase: ").encode() if b"ENCRYPTED" in pem else None
        key = load_pem_private_key(pem, password)
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("the key is not an RSA private key")
        token = break_glass.signed(key, audience, engineer, reason, ttl_seconds)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"no token: {error}\n")
        return 78
    sys.stdout.write(token + "\n")
    return 0


def _development(role: Role, subject: str, ttl_seconds: float, queues: str | None) -> int:
    try:
        settings = TokenSettings()
    except ValidationError:
        sys.stderr.write("set GATEWAY_JWT_SECRET to the gateway's secret (at least 32 bytes)\n")
        return 78
    if settings.jwt_algorithm != "HS256" or settings.jwt_secret is None:
        sys.stderr.write("tokens for RS256 come from the issuer; see --break-glass\n")
        return 78
    longest = longest_seconds(settings, role)
    if not 0 < ttl_seconds <= longest:
        sys.stderr.write(f"--ttl of a token of role {role} is at most {longest:.0f}\n")
        return 78
    token = development_token(
        settings.jwt_secret.get_secret_value(),
        role,
        subject,
        ttl_seconds=ttl_seconds,
        queues=queues.split(",") if queues else None,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )
    sys.stdout.write(token + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
