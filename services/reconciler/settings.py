"""The reconciler's settings, read from the environment."""

from pydantic import Field, SecretStr

from servicekit.settings import POSTGRES_ADDRESS, ServiceSettings, settings_config
from services.reconciler.domain.freshness import CaptureSwitch


class ReconcilerSettings(ServiceSettings):
    """Variables with the prefix RECONCILER_. A schedule of 0 seconds is off."""

    model_config = settings_config("RECONCILER_")

    postgres_url: SecretStr = Field(
        description=f"PostgreSQL that keeps the runs: {POSTGRES_ADDRESS}"
    )
    user_context_target: str = Field(description="gRPC address of user_context.")
    queue_target: str = Field(description="gRPC address of queue.")
    cdc_ingest_target: str | None = Field(
        default=None,
        description="gRPC address of cdc_ingest, asked whether changes still arrive. Unset: change "
        "capture is taken to work, and rechecks wait for changes in flight by the clock alone.",
    )
    change_capture: CaptureSwitch = Field(
        default=CaptureSwitch.AUTO,
        description="`off` where there is no change capture: full runs replace it at once. `auto` "
        "does so while it is silent.",
    )
    silence_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Full runs replace change capture after this long without a message from it, "
        "heartbeats included. Raise it where capture sends no heartbeats and nights are quiet.",
    )
    watch_seconds: float = Field(
        default=5.0, gt=0, description="How often the ingest is asked for signs of life."
    )
    full_every_seconds: float = Field(
        default=6 * 3_600.0, ge=0, description="How often every user is compared."
    )
    batch_every_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How often every user is compared while change capture is off or silent.",
    )
    changed_every_seconds: float = Field(
        default=900.0,
        ge=0,
        description="How often users with a recent change time in their rows are compared.",
    )
    changed_overlap_seconds: float = Field(
        default=300.0,
        ge=0,
        description="How far before the last such run rows count as changed, to allow for clocks "
        "that differ and for long transactions.",
    )
    warming_every_seconds: float = Field(
        default=3_600.0,
        ge=0,
        description="How often the contexts of the users at the head of the queues are cached.",
    )
    warming_users: int = Field(
        default=500, ge=1, le=5_000, description="Users at the head of each queue to be cached."
    )
    housekeeping_every_seconds: float = Field(
        default=86_400.0,
        ge=0,
        description="How often expired data is purged and every entry is checked.",
    )
    runs_kept_days: float = Field(
        default=90.0, gt=0, description="How long reports of runs are kept."
    )
    load_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the time in which MySQL may work on a comparison; refreshes of users "
        "who differ have user_context's own limits.",
    )
    gone_share_at_most: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Largest share of the known users that one run takes for gone from the main "
        "app, unless `allow_gone` is set; 100 users always may be.",
    )
    recheck_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Shortest wait before a difference is checked again; above the usual delay of "
        "changes.",
    )
    recheck_longest_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Longest wait for changes that are still in flight; afterwards users who "
        "differ are refreshed without a drift report.",
    )
    page_users: int = Field(
        default=500, ge=1, le=1_000, description="Users refreshed and applied in one call."
    )
    pages_in_flight: int = Field(
        default=3, ge=1, le=16, description="Pages refreshed at the same time."
    )
    poll_seconds: float = Field(
        default=0.5,
        gt=0,
        description="How often a replica looks for work, or tries to take the lock.",
    )
    retry_first_seconds: float = Field(
        default=0.2, gt=0, description="Retry delay after the first failure in a row."
    )
    retry_longest_seconds: float = Field(
        default=15.0, gt=0, description="Longest retry delay; the delays double up to it."
    )
    give_up_seconds: float = Field(
        default=900.0, gt=0, description="A run fails when no call has succeeded for this long."
    )
    refresh_timeout_seconds: float = Field(
        default=20.0, gt=0, description="Deadline of a call to user_context."
    )
    apply_timeout_seconds: float = Field(
        default=20.0, gt=0, description="Deadline of a call to queue."
    )
