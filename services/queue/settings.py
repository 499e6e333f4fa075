"""What the queue can be told through its environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from servicekit.settings import ServiceSettings, settings_config


class QueueSettings(ServiceSettings):
    """Variables with the prefix QUEUE_."""

    model_config = settings_config("QUEUE_")

    postgres_url: SecretStr = Field(
        description="Address of the PostgreSQL whose schema `queue` is ours: postgresql://..."
    )
    redis_url: SecretStr = Field(
        description="Address of the Redis that holds the event stream: redis://..."
    )
    user_context_target: str = Field(description="gRPC address of user_context.")
    rules_path: Path | None = Field(
        default=None, description="Rules file that replaces the one we ship."
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
        default=4,
        ge=1,
        le=32,
        description="Rounds of claims that run side by side at most.",
    )
    claim_batch: int = Field(
        default=100, ge=1, le=200, description="Agents served in one round at most."
    )
    live_check_seconds: float = Field(
        default=1.0, gt=0, description="Time a check against the main app may take."
    )
    redis_timeout_seconds: float = Field(
        default=2.0, gt=0, description="Time Redis may take to answer."
    )
    promotion_interval_seconds: float = Field(
        default=1.0, gt=0, description="How often people who fall due are looked for."
    )
    lease_sweep_interval_seconds: float = Field(
        default=1.0, gt=0, description="How often leases that have run out are looked for."
    )
    dispatch_interval_seconds: float = Field(
        default=0.5,
        gt=0,
        description="How often the outboxes are looked into; our own commits do so at once.",
    )
    housekeeping_interval_seconds: float = Field(
        default=600.0, gt=0, description="How often old answers to request ids are deleted."
    )
    rules_interval_seconds: float = Field(
        default=5.0, gt=0, description="How often the rules file is looked at for changes."
    )
    rebuild_seconds: float = Field(
        default=900.0, gt=0, description="Time reading everybody for a rebuild may take."
    )
