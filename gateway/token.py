"""Makes tokens for development: `python -m gateway.token --role agent --sub agent-1`."""

import argparse
import sys
import time
from collections.abc import Sequence

import jwt
from pydantic import ValidationError

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
    """Print a token; 78 when the settings have no HS256 secret, or forbid what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m gateway.token", description=__doc__)
    parser.add_argument("--role", choices=list(Role), required=True)
    parser.add_argument("--sub", required=True, help="the agent's id; never an e-mail address")
    parser.add_argument("--ttl", type=float, default=3600.0, help="seconds it is valid")
    parser.add_argument("--queues", help="comma-separated queues the agent is limited to")
    arguments = parser.parse_args()
    try:
        settings = TokenSettings()
    except ValidationError:
        sys.stderr.write("set GATEWAY_JWT_SECRET to the gateway's secret (at least 32 bytes)\n")
        return 78
    if settings.jwt_algorithm != "HS256" or settings.jwt_secret is None:
        sys.stderr.write("tokens for RS256 come from the issuer; this makes only HS256\n")
        return 78
    longest = longest_seconds(settings, Role(arguments.role))
    if not 0 < arguments.ttl <= longest:
        sys.stderr.write(f"--ttl of a token of role {arguments.role} is at most {longest:.0f}\n")
        return 78
    token = development_token(
        settings.jwt_secret.get_secret_value(),
        arguments.role,
        arguments.sub,
        ttl_seconds=arguments.ttl,
        queues=arguments.queues.split(",") if arguments.queues else None,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )
    sys.stdout.write(token + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
