"""Settings of the queue, read from its environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from servicekit.settings import (
    POSTGRES_ADDRESS,
    REDIS_ADDRESS,
    REDIS_TLS_CA_FILE,
    ServiceSettings,
    settings_config,
)


class QueueSettings(ServiceSettings):
    """Variables with the prefix QUEUE_."""

    model_config = settings_config("QUEUE_")

    postgres_url: SecretStr = Field(
        description=f"The PostgreSQL whose schema `queue` is ours: {POSTGRES_ADDRESS}"
    )
    redis_url: SecretStr = Field(description=f"The Redis of the event stream: {REDIS_ADDRESS}")
    redis_tls_ca_file: Path | None = Field(default=None, description=REDIS_TLS_CA_FILE)
    user_context_target: str = Field(description="gRPC address of user_context.")
    rules_path: Path | None = Field(
        default=None, description="Rules file that replaces the shipped one."
    )
    postgres_pool_size: int = Field(
        default=16, ge=4, le=200, description="Connections to PostgreSQL at most."
    )
    is_behind_pgbouncer: bool = Field(
        default=False, description="Whether postgres_url leads to PgBouncer in transaction mode."
    )
    statement_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Time a statement may take."
    )
    claim_workers: int = Field(
        default=4, ge=1, le=32, description="Batches of hand-outs that run side by side at most."
    )
    claim_batch: int = Field(
        default=100, ge=1, le=200, description="Agents served in one batch at most."
    )
    live_check_seconds: float = Field(
        default=1.0, gt=0, description="Time a check against the main app may take."
    )
    redis_timeout_seconds: float = Field(
        default=2.0, gt=0, description="Time Redis may take to answer."
    )
    promotion_interval_seconds: float = Field(
        default=1.0, gt=0, description="How often users who fall due are looked for."
    )
    lease_sweep_interval_seconds: float = Field(
        default=1.0, gt=0, description="How often leases that have run out are looked for."
    )
    dispatch_interval_seconds: float = Field(
        default=0.5,
        gt=0,
        description="How often the outboxes are read; a commit here wakes the dispatch at once.",
    )
    housekeeping_interval_seconds: float = Field(
        default=600.0, gt=0, description="How often records whose retention has ended are deleted."
    )
    report_interval_seconds: float = Field(
        default=300.0, gt=0, description="How often the figures of reports are counted."
    )
    rules_interval_seconds: float = Field(
        default=5.0, gt=0, description="How often the rules file is checked for changes."
    )
    rebuild_seconds: float = Field(
        default=900.0, gt=0, description="Time that reading every user for a rebuild may take."
    )
    phone_list_batch: int = Field(
        default=10_000,
        ge=1,
        le=50_000,
        description="Numbers of a list inserted or deleted in one statement.",
    )
    phone_list_idle_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Silence after which an import counts as cut off: the list may be imported"
        " anew, and any replica finishes or deletes what the import left.",
    )
    phone_list_shrinks_at_most: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a list's numbers that a complete import may take off without"
        " allow_shrink; lists of up to 100 numbers have no such limit.",
    )
    phone_list_interval_seconds: float = Field(
        default=10.0, gt=0, description="How often imports that were cut off are looked for."
    )
    rebuild_batch: int = Field(
        default=2_000,
        ge=1,
        le=10_000,
        description="Users that a rebuild writes in one transaction at most.",
    )
    rebuild_gone_share_at_most: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the known users that one rebuild may find gone from the main app"
        " without allow_gone; up to 100 users are always allowed.",
    )
