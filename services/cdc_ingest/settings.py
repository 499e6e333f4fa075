"""The settings of the ingest, from environment variables."""

from pydantic import Field

from servicekit.settings import ServiceSettings, settings_config


class CdcIngestSettings(ServiceSettings):
    """Variables with the prefix CDC_INGEST_. boto3 finds the AWS credentials."""

    model_config = settings_config("CDC_INGEST_")

    sqs_queue_url: str = Field(description="URL of the queue of change messages.")
    sqs_dlq_url: str = Field(description="URL of the dead-letter queue.")
    sqs_endpoint_url: str | None = Field(
        default=None, description="Address of SQS; unset: that of the region."
    )
    aws_region: str = Field(default="eu-west-2", description="AWS region of the queues.")
    s3_buckets: str = Field(
        default="",
        description="Buckets whose files of changes may be read, separated by commas; messages "
        "that point elsewhere are refused.",
    )
    s3_endpoint_url: str | None = Field(
        default=None, description="Address of S3; unset: that of the region."
    )
    s3_max_object_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1,
        description="Larger files are not read: the reconciler is asked for a full run instead.",
    )
    user_context_target: str = Field(description="gRPC address of user_context.")
    queue_target: str = Field(description="gRPC address of queue.")
    reconciler_target: str | None = Field(
        default=None,
        description="gRPC address of the reconciler, asked for a full run when changes cannot be "
        "followed one by one. Unset: that is only logged and counted.",
    )
    receivers: int = Field(default=2, ge=1, le=32, description="Threads that poll SQS.")
    receive_wait_seconds: int = Field(
        default=20, ge=0, le=20, description="How long one poll waits for a message."
    )
    visibility_seconds: int = Field(
        default=60,
        ge=2,
        le=43_200,
        description="Visibility timeout of a message; extended while work on it goes on.",
    )
    stale_patience_seconds: float = Field(
        default=600.0,
        ge=0,
        le=43_200,
        description="A person whose facts are older than the change in a message is read again for "
        "this long; then the message is dead-lettered. Keep it above the lag of the replica that "
        "is read. 0 trusts every reading.",
    )
    settle_seconds: float = Field(
        default=1.0,
        ge=0,
        le=60,
        description="A person whose facts do not show the changed columns, read sooner than this "
        "after the message was received, is read once more before the message is deleted. 0 "
        "trusts the first reading.",
    )
    max_messages_in_flight: int = Field(
        default=10_000, ge=10, description="Messages in flight at once; receiving waits above it."
    )
    max_bytes_in_flight: int = Field(
        default=64 * 1024 * 1024, ge=1, description="The same limit by size of the bodies."
    )
    batch_users: int = Field(
        default=500, ge=1, le=500, description="People refreshed in one call at most."
    )
    batches_in_flight: int = Field(
        default=3, ge=1, le=32, description="Batches of people refreshed at the same time."
    )
    bulk_above_users: int = Field(
        default=50,
        ge=0,
        description="Transactions that concern more people than this queue apart from the others.",
    )
    retry_first_seconds: float = Field(
        default=1.0, gt=0, description="A message is hidden this long after its first failure."
    )
    retry_longest_seconds: float = Field(
        default=300.0,
        gt=0,
        le=43_200,
        description="Longest delay; it doubles with each failure.",
    )
    max_receives: int = Field(
        default=10,
        ge=1,
        description="Receives after which a message whose own people fail is dead-lettered. Keep "
        "the queue's maxReceiveCount above it, else messages are dead-lettered without a reason.",
    )
    pause_poll_seconds: float = Field(
        default=5.0,
        gt=0,
        description="How often the tag by which operators pause every replica is read.",
    )
    dead_letters_per_minute: int = Field(
        default=100,
        ge=1,
        description="More dead letters than this within a minute, by one replica, and it receives "
        "nothing more until an operator resumes it.",
    )
    refresh_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Deadline of a call to user_context."
    )
    apply_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Deadline of a call to queue."
    )

    @property
    def allowed_buckets(self) -> frozenset[str]:
        """The names in `s3_buckets`."""
        return frozenset(name.strip() for name in self.s3_buckets.split(",")) - {""}
