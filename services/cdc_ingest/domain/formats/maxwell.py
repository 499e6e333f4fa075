"""The messages of Maxwell: rows, and changes of tables with `output_ddl`.

The format is described in Maxwell's documentation under "Data format".
"""

from typing import Final

from services.cdc_ingest.domain.formats.fields import (
    epoch_moment,
    image,
    opened,
    text,
    transaction,
)
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Ignored,
    Kind,
    LostTrack,
    Operation,
    Record,
    UnreadableError,
)
from services.cdc_ingest.domain.gtids import gtid_of
from services.cdc_ingest.domain.ordering import gtid_position, leading_integers, place_position

_FORMAT: Final = "maxwell"
_OPERATIONS = {
    "insert": Operation.INSERT,
    "update": Operation.UPDATE,
    "delete": Operation.DELETE,
    "bootstrap-insert": Operation.LOAD,
}
_LOSING_TRACK = {
    "table-alter": "alter-table",
    "table-drop": "drop-table",
    "database-drop": "drop-database",
}
_SCHEMA = frozenset({"table-create", "database-create", "database-alter"})
_CONTROL = frozenset({"bootstrap-start", "bootstrap-complete"})
# The commit time of a bootstrapped row is unknown.
_COMMITTED = frozenset({"insert", "update", "delete"})
_LAST: Final = 2**62


class MaxwellDecoder:
    """Decodes one message of Maxwell."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has the fields of every message, or is encrypted as a whole."""
        if not isinstance(document, dict):
            return False
        if isinstance(document.get("type"), str) and isinstance(document.get("database"), str):
            return True
        encrypted = document.get("encrypted")
        return isinstance(encrypted, dict) and {"iv", "bytes"} <= encrypted.keys()

    def decode(self, document: object) -> tuple[Record]:
        """Return the record.

        Raises:
            UnreadableError: the message is encrypted, of an unknown type, or malformed.
        """
        if not isinstance(document, dict):
            raise UnreadableError("MAXWELL_TYPE_UNKNOWN")
        # Older versions put the encrypted columns in place of the columns.
        if "encrypted" in document or isinstance(opened(document.get("data")), str):
            raise UnreadableError("MAXWELL_ENCRYPTED")
        kind = text(document.get("type"))
        table = text(document.get("table"))
        if kind not in _OPERATIONS:
            if kind in _LOSING_TRACK:
                return (LostTrack(table, _LOSING_TRACK[kind], _FORMAT),)
            if kind in _SCHEMA:
                return (Ignored(Kind.SCHEMA, _FORMAT),)
            if kind in _CONTROL:
                return (Ignored(Kind.CONTROL, _FORMAT),)
            raise UnreadableError("MAXWELL_TYPE_UNKNOWN")
        if not table:
            raise UnreadableError("MAXWELL_TABLE_MISSING")
        # `old` has only the columns that changed.
        sides = (document.get("old"), document.get("data"))
        found = (image(side, "MAXWELL_IMAGE_NOT_AN_OBJECT") for side in sides)
        # The last row of a transaction has `commit`, the others their offset in it.
        offset = _LAST if document.get("commit") is True else document.get("xoffset")
        change = ChangeRecord(
            table=table,
            operation=_OPERATIONS[kind],
            images=tuple(each for each in found if each),
            committed_at=epoch_moment(document.get("ts"), 1) if kind in _COMMITTED else None,
            transaction=transaction(document.get("xid")),
            format=_FORMAT,
            position=place_position(document.get("server_id"), document.get("position"), offset)
            or gtid_position(document.get("gtid"), offset),
            sequence=leading_integers(document.get("xid"), offset),
            gtid=gtid_of(document.get("gtid")),
        )
        return (change,)
