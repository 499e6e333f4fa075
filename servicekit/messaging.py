"""Attributes for spans of messages, by OpenTelemetry's conventions for messaging."""

from servicekit.spans import Attribute


def destination(queue_url: str) -> str:
    """Return a queue's name from its address."""
    return queue_url.rstrip("/").rpartition("/")[2]


def described(
    system: str, operation: str, kind: str, destination: str, count: int | None = None
) -> dict[str, Attribute]:
    """Return the attributes of one operation on `count` messages.

    `operation` is the system's name of the operation, `kind` the conventions' name: create, send,
    receive, process or settle.
    """
    attributes: dict[str, Attribute] = {
        "messaging.system": system,
        "messaging.destination.name": destination,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }
    if count is not None:
        attributes["messaging.batch.message_count"] = count
    return attributes
