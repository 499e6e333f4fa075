"""The relay's settings, read from the environment."""

from pydantic import Field, SecretStr, field_validator

from servicekit.settings import POSTGRES_ADDRESS, ServiceSettings, settings_config


class BinlogRelaySettings(ServiceSettings):
    """Variables with the prefix BINLOG_RELAY_. AWS credentials come the way boto3 finds them."""

    model_config = settings_config("BINLOG_RELAY_")

    mysql_url: SecretStr = Field(
        description="mysql://user:password@host:port/database of the server whose binlog is read; "
        "the user needs REPLICATION SLAVE and REPLICATION CLIENT. `?ssl_ca=file` asks for TLS."
    )
    postgres_url: SecretStr = Field(
        description="PostgreSQL that keeps the position and elects the active replica; a direct "
        "connection, since an advisory lock does not survive PgBouncer's transaction mode: "
        f"{POSTGRES_ADDRESS}"
    )
    sqs_queue_url: str = Field(
        description="URL of the queue of change messages, a standard one: their order does not "
        "matter, and a FIFO queue takes none without a group."
    )
    sqs_endpoint_url: str | None = Field(
        default=None, description="Address of SQS; unset: that of the region."
    )
    aws_region: str = Field(default="eu-west-2", description="AWS region of the queue.")
    reconciler_target: str = Field(
        description="gRPC address of the reconciler, for full-run requests after a gap."
    )
    source_name: str = Field(
        default="mainapp",
        min_length=1,
        max_length=100,
        description="Names the position and the lock; relays of the same name elect one of them.",
    )
    server_id: int | None = Field(
        default=None,
        ge=1,
        le=4_294_967_295,
        description="Replication server id; must be unlike every replica's. Unset: derived from "
        "source_name.",
    )
    heartbeat_seconds: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="MySQL sends a heartbeat after this long without an event.",
    )
    capture_heartbeat_seconds: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="How often a heartbeat record goes through the queue while the binlog is read: "
        "it shows the difference between silence and no changes. 0: never.",
    )
    max_records_per_message: int = Field(
        default=500, ge=1, le=10_000, description="Most changes in one message."
    )
    max_message_bytes: int = Field(
        default=200 * 1024,
        ge=1024,
        le=1_000_000,
        description="Largest size of a message with several changes.",
    )
    max_request_bytes: int = Field(
        default=1_000_000,
        ge=1024,
        le=1_048_576,
        description="Largest size of a SendMessageBatch request, with its attributes; an endpoint "
        "that refuses it gets halves.",
    )
    max_record_bytes: int = Field(
        default=180_000,
        ge=1024,
        le=1_000_000,
        description="A longer record keeps only its key and the column that identifies the user.",
    )
    bulk_above_bytes: int = Field(
        default=32 * 1024,
        ge=0,
        description="Row images of one transaction beyond this size are bulk if they are of more "
        "than 50 rows: they are sent apart, many rows in a record, with only their keys and the "
        "columns that cdc_ingest compares. 32 KiB are about 150 rows. 0: never, for consumers that "
        "know only the records of DMS.",
    )
    sends_in_flight: int = Field(
        default=4, ge=1, le=32, description="Most SendMessageBatch requests at the same time."
    )
    backlog_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=65_536,
        description="Most bytes of changes in memory; above it, reading the binlog waits.",
    )
    save_interval_seconds: float = Field(
        default=0.2, gt=0, description="Shortest interval between two saves of the position."
    )
    retry_longest_seconds: float = Field(
        default=5.0, gt=0, description="Longest retry delay; the delays double up to it."
    )

    @field_validator("sqs_queue_url")
    @classmethod
    def _is_a_standard_queue(cls, url: str) -> str:
        # SQS asks for this ending of every FIFO queue, and allows it for no other.
        if url.endswith(".fifo"):
            raise ValueError("it names a FIFO queue: make a standard queue, and name that")
        return url
