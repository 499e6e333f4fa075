"""AWS DMS records, and those of our relay, which writes the same format.

The format is described in the DMS user guide under "Using Amazon Kinesis Data Streams as a target".
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from services.cdc_ingest.domain.records import (
    Ignored,
    Image,
    LostTrack,
    Operation,
    Record,
    RowChange,
    UnreadableError,
)

_LOSING_TRACK = frozenset({"truncate-table", "drop-table", "rename-table", "truncate", "gap"})
_OPERATIONS = frozenset(Operation)


class DmsDecoder:
    """Understands one DMS record, of data or of control."""

    name = "dms"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has the metadata that every DMS record has."""
        if not isinstance(document, dict):
            return False
        metadata = document.get("metadata")
        return isinstance(metadata, dict) and "operation" in metadata

    def decode(self, document: object) -> Record:
        """Return the record.

        Raises:
            UnreadableError: the metadata or an image is not of the form it must have.
        """
        if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
            raise UnreadableError("DMS_METADATA_MISSING")
        metadata: dict[str, Any] = document["metadata"]
        operation = _text(metadata, "operation")
        table = _text(metadata, "table-name")
        if metadata.get("record-type") == "control" or operation in _LOSING_TRACK:
            return _control(operation, table)
        if not table:
            raise UnreadableError("DMS_TABLE_MISSING")
        return RowChange(
            table=table,
            operation=Operation(operation) if operation in _OPERATIONS else Operation.OTHER,
            images=_images(document),
            committed_at=_moment(metadata.get("commit-timestamp")),
            captured_at=_moment(metadata.get("timestamp")),
            transaction=_transaction(metadata.get("transaction-id")),
        )


def _control(operation: str, table: str) -> Record:
    if operation in _LOSING_TRACK:
        return LostTrack(table=table, cause=operation)
    return Ignored(kind="control")


def _images(document: Mapping[str, object]) -> tuple[Image, ...]:
    found = (_image(document.get("before-image")), _image(document.get("data")))
    return tuple(image for image in found if image)


def _image(value: object) -> Image | None:
    if value is None or isinstance(value, dict):
        return value
    raise UnreadableError("DMS_IMAGE_NOT_AN_OBJECT")


def _text(metadata: Mapping[str, object], name: str) -> str:
    value = metadata.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise UnreadableError("DMS_METADATA_NOT_TEXT")


def _transaction(value: object) -> str:
    return str(value) if isinstance(value, int | str) else ""


def _moment(value: object) -> datetime | None:
    """Return the aware UTC time; what cannot be read as one counts as not told."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
