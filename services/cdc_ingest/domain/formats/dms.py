"""AWS DMS records, and those of our relay, which writes the same format.

The format is described in the DMS user guide under "Using Amazon Kinesis Data Streams as a target".
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from services.cdc_ingest.domain.formats.fields import image, iso_moment, transaction
from services.cdc_ingest.domain.records import (
    Ignored,
    Image,
    Kind,
    LostTrack,
    Operation,
    Record,
    RowChange,
    UnreadableError,
)

BEFORE_PREFIX: Final = "BI_"
"""What DMS puts before the names of before-image columns when a mapping rule adds them."""

HEARTBEAT: Final = "heartbeat"
"""What our relay says when all it has read is published; DMS says nothing of the kind."""

# The guide has spelt them with and without hyphens. The last two are our relay's.
_LOSING_TRACK = {
    "truncatetable": "truncate-table",
    "droptable": "drop-table",
    "renametable": "rename-table",
    "changecolumns": "change-columns",
    "addcolumn": "add-column",
    "dropcolumn": "drop-column",
    "renamecolumn": "rename-column",
    "columntypechange": "column-type-change",
    "truncate": "truncate",
    "gap": "gap",
}
_NEVER_OF_ROWS = frozenset({*_LOSING_TRACK, *_LOSING_TRACK.values()})
_OPERATIONS = {operation.value: operation for operation in Operation}
_FORMAT = "dms"


class DmsDecoder:
    """Understands one DMS record, of data or of control."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has the metadata that every DMS record has."""
        if not isinstance(document, dict):
            return False
        metadata = document.get("metadata")
        return isinstance(metadata, dict) and "operation" in metadata

    def decode(self, document: object) -> tuple[Record]:
        """Return the record.

        Raises:
            UnreadableError: the metadata or an image is not of the form it must have.
        """
        if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
            raise UnreadableError("DMS_METADATA_MISSING")
        metadata: dict[str, Any] = document["metadata"]
        operation = _name(metadata, "operation")
        table = _name(metadata, "table-name")
        if metadata.get("record-type") == "control" or operation in _NEVER_OF_ROWS:
            return (_control(operation, table, iso_moment(metadata.get("timestamp"))),)
        if not table:
            raise UnreadableError("DMS_TABLE_MISSING")
        change = RowChange(
            table=table,
            operation=_OPERATIONS.get(operation, Operation.OTHER),
            images=_images(document, operation),
            committed_at=iso_moment(metadata.get("commit-timestamp")),
            captured_at=iso_moment(metadata.get("timestamp")),
            transaction=transaction(metadata.get("transaction-id")),
            format=_FORMAT,
        )
        return (change,)


def before_image_columns(row: Image) -> Image | None:
    """Return the before image that a mapping rule has spread among the columns of `row`.

    A file has these columns for inserts and deletions too; every row has a key, so one of NULLs
    alone is none.
    """
    size = len(BEFORE_PREFIX)
    found = {name[size:]: row[name] for name in row if name.startswith(BEFORE_PREFIX)}
    return found if any(value is not None for value in found.values()) else None


def _control(operation: str, table: str, captured_at: datetime | None) -> Record:
    cause = _LOSING_TRACK.get(operation.replace("-", "").lower())
    if cause is not None:
        return LostTrack(table, cause, _FORMAT, captured_at)
    kind = Kind.HEARTBEAT if operation == HEARTBEAT else Kind.CONTROL
    return Ignored(kind, _FORMAT, captured_at)


def _images(document: Mapping[str, object], operation: str) -> tuple[Image, ...]:
    after = _image(document.get("data"))
    before = _image(document.get("before-image"))
    if before is None and after and operation == Operation.UPDATE:
        before = before_image_columns(after)
    return tuple(found for found in (before, after) if found)


def _image(value: object) -> Image | None:
    found = image(value, "DMS_IMAGE_NOT_AN_OBJECT")
    # The object mapping map-record-to-document puts the columns one level down.
    nested = found.get("_doc") if found else None
    return nested if isinstance(nested, dict) else found


def _name(metadata: Mapping[str, object], field: str) -> str:
    value = metadata.get(field)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise UnreadableError("DMS_METADATA_NOT_TEXT")
