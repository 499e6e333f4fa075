"""AWS DMS records, and those of binlog_relay, which writes the same format.

The format is described in the DMS user guide under "Using Amazon Kinesis Data Streams as a target".
Records with many rows are the relay's own, for bulk transactions.
"""

from collections.abc import Mapping
from typing import Final

from services.cdc_ingest.domain.formats.fields import (
    image,
    iso_moment,
    loosely_named,
    mapping,
    opened,
    text,
    transaction,
)
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Ignored,
    Image,
    Kind,
    LostTrack,
    Operation,
    Record,
    UnreadableError,
)
from services.cdc_ingest.domain.gtids import gtid_of
from services.cdc_ingest.domain.ordering import leading_integers, place_position

BEFORE_PREFIX: Final = "BI_"
"""The prefix of before-image columns that a mapping rule of DMS adds."""

BEFORE_PREFIXES: Final = (BEFORE_PREFIX, BEFORE_PREFIX.lower())
"""The prefix also after a rule that makes names lower-case."""

HEARTBEAT: Final = "heartbeat"
"""The operation that binlog_relay sends once all it has read is published; DMS has none."""

# The guide spells them with and without hyphens. The last two are of binlog_relay.
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
    """Decodes one DMS record, of data or of control."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has the metadata that every DMS record has."""
        return "operation" in _metadata(document)

    def decode(self, document: object) -> tuple[Record, ...]:
        """Return the record, or those of all rows in a record of the relay's for many.

        Raises:
            UnreadableError: the metadata or an image is malformed.
        """
        metadata = _metadata(document)
        if not metadata or not isinstance(document, dict):
            raise UnreadableError("DMS_METADATA_MISSING")
        operation = _name(metadata, "operation").lower()
        table = _name(metadata, "table-name")
        if _name(metadata, "record-type").lower() == "control" or operation in _NEVER_OF_ROWS:
            captured_at = iso_moment(metadata.get("timestamp"))
            cause = _LOSING_TRACK.get(operation.replace("-", ""))
            if cause is not None:
                return (LostTrack(table, cause, _FORMAT, captured_at),)
            kind = Kind.HEARTBEAT if operation == HEARTBEAT else Kind.CONTROL
            return (Ignored(kind, _FORMAT, captured_at),)
        if not table:
            raise UnreadableError("DMS_TABLE_MISSING")
        if "rows" in document:
            one = _change(table, operation, (), metadata)
            return tuple(one._replace(images=images) for images in _rows(document))
        after = _image(document.get("data"))
        fields = document if "before-image" in document else loosely_named(document)
        before = _image(fields.get("before-image", fields.get("beforeimage")))
        if before is None and after and operation == Operation.UPDATE:
            before = before_image_columns(after)
        images = tuple(found for found in (before, after) if found)
        return (_change(table, operation, images, metadata),)


def _change(
    table: str, operation: str, images: tuple[Image, ...], metadata: Mapping[str, object]
) -> ChangeRecord:
    return ChangeRecord(
        table=table,
        operation=_OPERATIONS.get(operation, Operation.OTHER),
        images=images,
        committed_at=iso_moment(metadata.get("commit-timestamp")),
        captured_at=iso_moment(metadata.get("timestamp")),
        transaction=transaction(metadata.get("transaction-id")),
        format=_FORMAT,
        # Only binlog_relay names the server and the GTID.
        position=place_position(
            text(metadata.get("source-server")), metadata.get("stream-position")
        ),
        sequence=leading_integers(
            metadata.get("transaction-id"), metadata.get("transaction-record-id")
        ),
        gtid=gtid_of(metadata.get("source-gtid")),
    )


def _rows(document: Mapping[str, object]) -> list[tuple[Image, ...]]:
    """Return the images of each row, the one before first, from lists of values.

    Raises:
        UnreadableError: DMS_ROWS_MALFORMED.
    """
    columns, rows, befores = (document.get(n) for n in ("columns", "rows", "before-rows"))
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise UnreadableError("DMS_ROWS_MALFORMED")
    if not isinstance(rows, list) or not isinstance(befores, list | None):
        raise UnreadableError("DMS_ROWS_MALFORMED")
    try:
        afters = [dict(zip(columns, row, strict=True)) for row in rows]
        if befores is None:
            return [(after,) for after in afters]
        olds = [dict(zip(columns, row, strict=True)) for row in befores]
        return list(zip(olds, afters, strict=True))
    except (TypeError, ValueError) as error:
        raise UnreadableError("DMS_ROWS_MALFORMED") from error


def _metadata(document: object) -> Mapping[str, object]:
    """Return the metadata, which may be a JSON text, by the guide's names in any spelling."""
    if not isinstance(document, dict) or "metadata" not in document:
        return {}
    metadata = mapping(opened(document["metadata"]))
    if "table-name" in metadata:
        return metadata
    found = loosely_named(metadata)
    return {name: found[letters] for letters, name in _METADATA.items() if letters in found}


_METADATA = {
    name.replace("-", ""): name
    for name in (
        "timestamp",
        "record-type",
        "operation",
        "table-name",
        "transaction-id",
        "transaction-record-id",
        "commit-timestamp",
        "stream-position",
        "source-server",
        "source-gtid",
    )
}


def before_image_columns(row: Image) -> Image | None:
    """Return the before image that a mapping rule has put among the columns of `row`.

    A file has these columns for inserts and deletions too. Every row has a key, so an image of
    NULLs alone is no image: None.
    """
    size = len(BEFORE_PREFIX)
    found = {name[size:]: row[name] for name in row if name.startswith(BEFORE_PREFIXES)}
    return found if any(value is not None for value in found.values()) else None


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
