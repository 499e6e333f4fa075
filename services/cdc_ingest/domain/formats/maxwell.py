"""What Maxwell writes: rows, and changes of tables when told to (`output_ddl`).

The format is described in Maxwell's documentation under "Data format".
"""

from collections.abc import Mapping
from typing import Final

from services.cdc_ingest.domain.formats.fields import epoch_moment, image, text, transaction
from services.cdc_ingest.domain.records import (
    Ignored,
    Kind,
    LostTrack,
    Operation,
    Record,
    RowChange,
    UnreadableError,
)

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


class MaxwellDecoder:
    """Understands one message of Maxwell's."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has what each of them has, or is encrypted as a whole."""
        if not isinstance(document, dict):
            return False
        if isinstance(document.get("type"), str) and isinstance(document.get("database"), str):
            return True
        encrypted = document.get("encrypted")
        return isinstance(encrypted, dict) and {"iv", "bytes"} <= encrypted.keys()

    def decode(self, document: object) -> tuple[Record]:
        """Return the record.

        Raises:
            UnreadableError: it is encrypted, of a type that is not known, or malformed.
        """
        if not isinstance(document, dict):
            raise UnreadableError("MAXWELL_TYPE_UNKNOWN")
        # Older versions put the encrypted columns where the columns would be.
        if "encrypted" in document or isinstance(document.get("data"), str):
            raise UnreadableError("MAXWELL_ENCRYPTED")
        kind = text(document.get("type"))
        table = text(document.get("table"))
        if kind in _OPERATIONS:
            return (_row(document, kind, table),)
        if kind in _LOSING_TRACK:
            return (LostTrack(table, _LOSING_TRACK[kind], _FORMAT),)
        if kind in _SCHEMA:
            return (Ignored(Kind.SCHEMA, _FORMAT),)
        if kind in _CONTROL:
            return (Ignored(Kind.CONTROL, _FORMAT),)
        raise UnreadableError("MAXWELL_TYPE_UNKNOWN")


def _row(document: Mapping[str, object], kind: str, table: str) -> Record:
    if not table:
        raise UnreadableError("MAXWELL_TABLE_MISSING")
    # `old` has only the columns that changed; those that lead to the person are all we look for.
    found = (image(document.get(side), "MAXWELL_IMAGE_NOT_AN_OBJECT") for side in ("old", "data"))
    return RowChange(
        table=table,
        operation=_OPERATIONS[kind],
        images=tuple(each for each in found if each),
        committed_at=epoch_moment(document.get("ts"), 1) if kind in _COMMITTED else None,
        transaction=transaction(document.get("xid")),
        format=_FORMAT,
    )


# A bootstrapped row was committed at some time before.
_COMMITTED = frozenset({"insert", "update", "delete"})
