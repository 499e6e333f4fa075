"""Settings that every service reads from its environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# How an address of PostgreSQL may be written, for the descriptions of settings.
REDIS_ADDRESS = (
    "redis://user:password@host:port/0, or rediss:// over TLS; of a cluster, redis+cluster:// or "
    "rediss+cluster:// and the address of any node or of all."
)
REDIS_TLS_CA_FILE = "Certificates to trust for rediss://; unset: those of the system."
POSTGRES_ADDRESS = (
    "postgresql://user:password@host:port/database. Of several hosts, as host:port,host:port, the "
    "one that takes writes is used (target_session_attrs=read-write, unless the address names "
    "primary or any)."
)


def settings_config(prefix: str) -> SettingsConfigDict:
    """Return the model config of a settings class whose variables start with `prefix`.

    An empty variable counts as unset, and unknown variables are ignored, so that new code starts
    with old configuration and old code with new.
    """
    return SettingsConfigDict(
        env_prefix=prefix,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )


class ServiceSettings(BaseSettings):
    """Variables common to all services; each service adds its own and its prefix."""

    model_config = settings_config("")

    log_level: str = Field(
        default="INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="Lowest level written to the log: DEBUG, INFO, WARNING or ERROR.",
    )
    trace_slow_seconds: float = Field(
        default=1.0,
        gt=0.0,
        description="A service's part of a trace that took this long is exported, sampled or not.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Prometheus endpoint's port on bind_host; 0 picks a free one, unset is none.",
    )
    bind_host: str = Field(
        default="127.0.0.1", description="Address the servers listen on; 0.0.0.0 in a container."
    )
    grpc_port: int = Field(
        default=0, ge=0, le=65535, description="Port of the gRPC server; 0 picks a free one."
    )
    max_concurrent_calls: int = Field(
        default=1000,
        ge=1,
        description="Unary calls in progress above which new ones get RESOURCE_EXHAUSTED.",
    )
    drain_seconds: float = Field(
        default=10.0, ge=0.0, description="Time allowed to finish work in hand when stopping."
    )
    default_deadline_seconds: float = Field(
        default=2.0, gt=0.0, description="Deadline of unary calls whose caller sets none."
    )
