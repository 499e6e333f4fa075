"""What the relay can be told through its environment."""

from pydantic import Field, SecretStr

from servicekit.settings import ServiceSettings, settings_config


class BinlogRelaySettings(ServiceSettings):
    """Variables with the prefix BINLOG_RELAY_. AWS credentials come the way boto3 finds them."""

    model_config = settings_config("BINLOG_RELAY_")

    mysql_url: SecretStr = Field(
        description="mysql://user:password@host:port/database of the server whose binlog is read; "
        "the user needs REPLICATION SLAVE and REPLICATION CLIENT. `?ssl_ca=file` asks for TLS."
    )
    postgres_url: SecretStr = Field(
        description="PostgreSQL that keeps the position and elects the active copy; a direct "
        "connection, since an advisory lock does not survive PgBouncer's transaction mode."
    )
    sqs_queue_url: str = Field(description="URL of the queue of change messages.")
    sqs_endpoint_url: str | None = Field(
        default=None, description="Address of SQS; unset: that of the region."
    )
    aws_region: str = Field(default="eu-west-2", description="AWS region of the queue.")
    reconciler_target: str = Field(
        description="gRPC address of the reconciler, asked for a full run after a gap."
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
        default=1.0, gt=0, le=60, description="MySQL sends a sign of life after such a silence."
    )
    capture_heartbeat_seconds: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="While the binlog is heard, a control record goes through the queue so often: "
        "it tells silence from nothing having changed. 0: none.",
    )
    max_records_per_message: int = Field(
        default=500, ge=1, le=10_000, description="Changes packed into one message at most."
    )
    max_message_bytes: int = Field(
        default=200 * 1024, ge=1024, le=1_000_000, description="Size of a packed message at most."
    )
    sends_in_flight: int = Field(
        default=4, ge=1, le=32, description="SendMessageBatch requests under way at once."
    )
    backlog_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=65_536,
        description="Changes held in memory at most; reading the binlog waits above it.",
    )
    save_interval_seconds: float = Field(
        default=0.2, gt=0, description="The position is saved no more often than this."
    )
    retry_longest_seconds: float = Field(
        default=5.0, gt=0, description="Pauses between attempts double up to this."
    )
