"""The gateway's environment variables."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from servicekit.settings import (
    REDIS_ADDRESS,
    REDIS_TLS_CA_FILE,
    ServiceSettings,
    settings_config,
)

# RFC 7518, section 3.2: an HMAC key is at least as long as the hash.
SHORTEST_SECRET_BYTES = 32
SHORTEST_RSA_BITS = 2048

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class TokenSettings(BaseSettings):
    """How tokens are verified; `python -m gateway.token` needs only these to make one."""

    model_config = settings_config("GATEWAY_")

    jwt_algorithm: Literal["HS256", "RS256"] = Field(
        default="HS256",
        description="The one signature algorithm that is accepted: HS256 or RS256. "
        "A token's own header never selects it.",
    )
    jwt_secret: SecretStr | None = Field(
        default=None, description="Secret for HS256, at least 32 bytes. Required with HS256."
    )
    jwt_public_key: str | None = Field(
        default=None,
        description="RSA public key in PEM for RS256; either this or the JWKS address.",
    )
    jwt_jwks_url: str | None = Field(
        default=None,
        description="Address of the issuer's key set for RS256; https, or http on loopback only.",
    )
    jwt_issuer: str = Field(
        default="dialler", min_length=1, description="Value that `iss` must have."
    )
    jwt_audience: str = Field(
        default="dialler", min_length=1, description="Value that `aud` must hold."
    )
    jwt_leeway_seconds: float = Field(
        default=30.0,
        ge=0.0,
        le=300.0,
        description="By how much the issuer's clock may differ for `exp`, `nbf` and `iat`.",
    )
    jwt_agent_longest_seconds: float = Field(
        default=86_400.0,
        gt=0.0,
        description="How long a token of role agent may be valid, from its `iat` (from now without "
        "one) to its `exp`. A token that is valid for longer is refused.",
    )
    jwt_longest_seconds: float = Field(
        default=31_622_400.0,
        gt=0.0,
        description="The same for the other roles, 366 days: tokens of services and of wallboard "
        "screens are long-lived.",
    )
    break_glass_public_key: str | None = Field(
        default=None,
        description="RSA public key in PEM for tokens of emergencies (`python -m gateway.token "
        "--break-glass`), beside the issuer's keys. Unset: there are none.",
    )
    jwks_timeout_seconds: float = Field(
        default=2.0, gt=0.0, description="Time limit for fetching the key set."
    )
    jwks_cache_seconds: float = Field(
        default=600.0, gt=0.0, description="Age at which the key set is fetched again."
    )
    jwks_cooldown_seconds: float = Field(
        default=30.0,
        ge=0.0,
        description="Shortest time between two fetches, so that tokens with invented key ids "
        "cannot overload the issuer.",
    )

    @field_validator("jwt_public_key", "break_glass_public_key")
    @classmethod
    def _is_rsa_key(cls, value: str | None) -> str | None:
        if value is not None:
            public_key(value)
        return value

    @field_validator("jwt_jwks_url")
    @classmethod
    def _is_safe_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            return value
        raise ValueError("must be https, or http on loopback")

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.jwt_algorithm == "HS256":
            secret = self.jwt_secret.get_secret_value() if self.jwt_secret else ""
            if len(secret.encode()) < SHORTEST_SECRET_BYTES:
                raise ValueError("GATEWAY_JWT_SECRET must have at least 32 bytes for HS256")
        elif (self.jwt_public_key is None) == (self.jwt_jwks_url is None):
            raise ValueError(
                "RS256 needs either GATEWAY_JWT_PUBLIC_KEY or GATEWAY_JWT_JWKS_URL, not both"
            )
        return self


class GatewaySettings(ServiceSettings, TokenSettings):
    """Variables of the gateway."""

    model_config = settings_config("GATEWAY_")

    http_host: str = Field(
        default="127.0.0.1", description="Address the HTTP server listens on; 0.0.0.0 in a pod."
    )
    http_port: int = Field(
        default=0, ge=0, le=65535, description="Port of the HTTP server; 0 picks a free one."
    )
    redis_url: SecretStr = Field(
        description=f"The Redis of the event stream, rate limits and event tickets: {REDIS_ADDRESS}"
    )
    redis_tls_ca_file: Path | None = Field(default=None, description=REDIS_TLS_CA_FILE)
    user_context_target: str = Field(description="Address of user_context, such as host:port.")
    queue_target: str = Field(description="Address of queue, such as dns:///queue:50051.")
    cdc_ingest_target: str | None = Field(
        default=None, description="Address of cdc_ingest; unset: /v1/pipeline leaves it out."
    )
    reconciler_target: str | None = Field(
        default=None, description="Address of reconciler; unset: no reconciliations over HTTP."
    )
    binlog_relay_target: str | None = Field(
        default=None, description="Address of binlog_relay; unset: /v1/pipeline leaves it out."
    )
    request_deadline_seconds: float = Field(
        default=5.0,
        gt=0.0,
        description="Time within which a request is answered; travels through gRPC to SQL.",
    )
    head_seconds: float = Field(
        default=10.0, gt=0.0, description="Time within which the head of a request must arrive."
    )
    max_head_bytes: int = Field(
        default=65_536, ge=16_384, description="Largest head of a request that is read."
    )
    max_body_bytes: int = Field(
        default=65_536, ge=1024, description="Largest request body that is read."
    )
    max_upload_bytes: int = Field(
        default=512 * 1024 * 1024,
        ge=1024,
        description="Largest list of phone numbers that is read; it is streamed, never buffered.",
    )
    upload_deadline_seconds: float = Field(
        default=600.0, gt=0.0, description="Time within which such a list is imported."
    )
    search_access_seconds: int = Field(
        default=900,
        ge=10,
        le=86_400,
        description="How long an agent may read a person found by a search.",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description='Origins whose pages may call the API, as JSON: ["https://desk.example"].',
    )
    rate_limit_per_second: int = Field(
        default=50, ge=1, description="Requests a second allowed to one agent or supervisor."
    )
    service_rate_limit_per_second: int = Field(
        default=1000, ge=1, description="Requests a second allowed to one token of role service."
    )
    address_rate_limit_per_second: int = Field(
        default=2000, ge=1, description="Requests a second allowed to one client address."
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Number of proxies in front whose X-Forwarded-For is trusted; 0 trusts none.",
    )
    redis_timeout_seconds: float = Field(
        default=0.25,
        gt=0.0,
        description="Time limit for one answer of Redis, except for the event stream.",
    )
    access_log: bool = Field(default=True, description="Whether each request is logged.")
    events_clients: int = Field(
        default=4000, ge=1, description="Event streams that one process keeps open."
    )
    events_clients_per_caller: int = Field(
        default=100, ge=1, description="Event streams that one caller may have."
    )
    events_buffer: int = Field(
        default=512, ge=1, description="Events buffered for one slow client before its stream ends."
    )
    events_replay: int = Field(
        default=2000,
        ge=1,
        description="Events replayed after a reconnect; a client that missed more gets `reset`.",
    )
    events_heartbeat_seconds: float = Field(
        default=15.0, gt=0.0, description="Silence after which a comment keeps a stream alive."
    )
    events_send_seconds: float = Field(
        default=30.0,
        gt=0.0,
        description="Time within which a client must receive what it is sent; else it is dropped.",
    )
    events_figures_seconds: float = Field(
        default=2.0,
        gt=0.0,
        description="How often the figures of a topic are read, once for all screens that follow "
        "it; while no screen does, they are read only for the last hour's points.",
    )
    events_history_seconds: float = Field(
        default=15.0,
        ge=0.01,
        description="Time between the points of the wallboard's last hour.",
    )
    event_ticket_seconds: int = Field(
        default=60, ge=1, le=300, description="How long a ticket for /v1/events can be used."
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError("each must be scheme://host[:port], with no path and no wildcard")
        return value


def public_key(pem: str) -> RSAPublicKey:
    """Return the RSA key that `pem` holds; raises ValueError for another kind or a short one."""
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the public key is not an RSA key")
    if key.key_size < SHORTEST_RSA_BITS:
        raise ValueError(f"the RSA key has fewer than {SHORTEST_RSA_BITS} bits")
    return key
