"""The settings of the service, read from environment variables."""

from pathlib import Path

from pydantic import Field, SecretStr

from servicekit.settings import (
    POSTGRES_ADDRESS,
    REDIS_ADDRESS,
    REDIS_TLS_CA_FILE,
    ServiceSettings,
    settings_config,
)


class UserContextSettings(ServiceSettings):
    """Variables of the user context service, each with the prefix ``USER_CONTEXT_``."""

    model_config = settings_config("USER_CONTEXT_")

    mysql_url: SecretStr = Field(
        description="The main app's database, mysql://user:password@host:port/database; the user "
        "needs SELECT on the described tables and nothing else."
    )
    postgres_url: SecretStr = Field(description=f"The dialler's database: {POSTGRES_ADDRESS}")
    redis_url: SecretStr = Field(description=f"The Redis of the cache: {REDIS_ADDRESS}")
    redis_tls_ca_file: Path | None = Field(default=None, description=REDIS_TLS_CA_FILE)
    queue_target: str = Field(description="The queue service, host:port or dns:///host:port.")
    description_path: Path | None = Field(
        default=None, description="Description of the main app's tables; unset: the one built in."
    )
    mysql_tls_ca_file: Path | None = Field(
        default=None, description="Certificates to trust for MySQL; unset: no TLS."
    )
    mysql_live_connections: int = Field(
        default=4, ge=1, description="Connections to MySQL for live checks."
    )
    mysql_bulk_connections: int = Field(
        default=5, ge=1, description="Connections to MySQL for contexts and refreshes."
    )
    mysql_live_seconds: float = Field(
        default=1.0, gt=0.0, description="Time limit of a live check's reading."
    )
    mysql_bulk_seconds: float = Field(
        default=3.0, gt=0.0, description="Time limit of the reading of a batch of contexts."
    )
    mysql_stream_seconds: float = Field(
        default=60.0,
        gt=0.0,
        description="Time limit of a stream of all people's facts, which holds one snapshot.",
    )
    mysql_replica_lag_seconds: float = Field(
        default=30.0,
        ge=0.0,
        description="While the replica is further behind than this, comparisons pause. Needs the "
        "privilege REPLICATION CLIENT (MariaDB: REPLICA MONITOR). 0: no check.",
    )
    postgres_connections: int = Field(default=4, ge=1, description="Connections to PostgreSQL.")
    postgres_seconds: float = Field(
        default=0.5, gt=0.0, description="Time limit of a statement in PostgreSQL."
    )
    redis_seconds: float = Field(
        default=0.25, gt=0.0, description="Time after which Redis counts as unavailable."
    )
    queue_seconds: float = Field(
        default=0.5, gt=0.0, description="Time limit of a request to the queue for call states."
    )
    context_fresh_seconds: float = Field(
        default=900.0, gt=0.0, description="How long the main app's part is served unconfirmed."
    )
    call_state_fresh_seconds: float = Field(
        default=300.0, gt=0.0, description="How long the queue's part is served unconfirmed."
    )
    absent_fresh_seconds: float = Field(
        default=30.0,
        gt=0.0,
        description="How long the cache keeps that the main app has no such person, or that the "
        "queue does not know the person.",
    )
    context_kept_seconds: float = Field(
        default=86_400.0,
        gt=0.0,
        description="How long a context is kept, to be served as stale while MySQL is unavailable.",
    )
    unraised_interval_seconds: float = Field(
        default=0.5,
        gt=0.0,
        description="Interval of checks whether Redis takes writes, and of attempts to apply "
        "invalidations that it has missed. The same in every copy: a refresh without Redis takes "
        "three times as long, after which no copy serves what was before it as fresh.",
    )
    name_sweep_seconds: float = Field(
        default=21_600.0,
        gt=0.0,
        description="Pause between two sweeps that index the names of all people for search.",
    )
