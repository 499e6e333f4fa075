"""What the reconciler can be told through its environment."""

from pydantic import Field, SecretStr

from servicekit.settings import ServiceSettings, settings_config


class ReconcilerSettings(ServiceSettings):
    """Variables with the prefix RECONCILER_."""

    model_config = settings_config("RECONCILER_")

    postgres_url: SecretStr = Field(description="PostgreSQL that keeps the runs.")
    user_context_target: str = Field(description="gRPC address of user_context.")
    queue_target: str = Field(description="gRPC address of queue.")
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
