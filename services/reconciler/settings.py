"""What the reconciler can be told through its environment."""

from pydantic import Field, SecretStr

from servicekit.settings import ServiceSettings, settings_config
from services.reconciler.domain.freshness import CaptureSwitch


class ReconcilerSettings(ServiceSettings):
    """Variables with the prefix RECONCILER_. A schedule of 0 seconds is off."""

    model_config = settings_config("RECONCILER_")

    postgres_url: SecretStr = Field(description="PostgreSQL that keeps the runs.")
    user_context_target: str = Field(description="gRPC address of user_context.")
    queue_target: str = Field(description="gRPC address of queue.")
    cdc_ingest_target: str | None = Field(
        default=None,
        description="gRPC address of cdc_ingest, asked whether changes still arrive. Unset: change "
        "capture is taken to work, and what may be under way is waited for by the clock alone.",
    )
    change_capture: CaptureSwitch = Field(
        default=CaptureSwitch.AUTO,
        description="`off` where there is no change capture: full runs stand in at once. `auto` "
        "does so while it is silent.",
    )
    silence_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Without a message from change capture for so long, heartbeats included, full "
        "runs stand in. Raise it where capture sends no heartbeats and nights are quiet.",
    )
    watch_seconds: float = Field(
        default=5.0, gt=0, description="How often the ingest is asked for signs of life."
    )
    full_every_seconds: float = Field(
        default=6 * 3_600.0, ge=0, description="How often everybody is compared."
    )
    batch_every_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How often everybody is compared while change capture is off or silent.",
    )
    changed_every_seconds: float = Field(
        default=900.0,
        ge=0,
        description="How often people are compared whose rows say that they changed.",
    )
    changed_overlap_seconds: float = Field(
        default=300.0,
        ge=0,
        description="How far before the last such run rows count as changed: for clocks that "
        "differ and transactions that took long.",
    )
    warming_every_seconds: float = Field(
        default=3_600.0, ge=0, description="How often the heads of the queues are cached."
    )
    warming_users: int = Field(
        default=500, ge=1, le=5_000, description="People at the head of each queue to be cached."
    )
    housekeeping_every_seconds: float = Field(
        default=86_400.0, ge=0, description="How often what is out of date is cleared away."
    )
    runs_kept_days: float = Field(
        default=90.0, gt=0, description="Reports of runs are kept for so long."
    )
    load_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the time in which MySQL may be at work on a comparison; refreshing "
        "those who differ goes by user_context's own bounds.",
    )
    recheck_seconds: float = Field(
        default=5.0,
        ge=0,
        description="A difference is looked at again after this long at least: above the usual "
        "delay of changes.",
    )
    recheck_longest_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Changes that are still under way are waited for so long at most; then those "
        "who differ are refreshed, and nobody is accused.",
    )
    page_users: int = Field(
        default=500, ge=1, le=1_000, description="People refreshed and applied in one call."
    )
    pages_in_flight: int = Field(
        default=3, ge=1, le=16, description="Pages under way at the same time."
    )
    poll_seconds: float = Field(
        default=0.5, gt=0, description="How often a copy looks for work, or for the lock."
    )
    retry_first_seconds: float = Field(
        default=0.2, gt=0, description="Pause after the first failure in a row."
    )
    retry_longest_seconds: float = Field(
        default=15.0, gt=0, description="Doubling from there, never longer than this."
    )
    give_up_seconds: float = Field(
        default=900.0, gt=0, description="A run fails when nothing has succeeded for so long."
    )
    refresh_timeout_seconds: float = Field(
        default=20.0, gt=0, description="Deadline of a call to user_context."
    )
    apply_timeout_seconds: float = Field(
        default=20.0, gt=0, description="Deadline of a call to queue."
    )
