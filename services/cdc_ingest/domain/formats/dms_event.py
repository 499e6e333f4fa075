"""The events of DMS in EventBridge: a task has lost its place in the binlog, or may lose it.

The format is described in the DMS user guide under "Working with Amazon EventBridge events".
"""

from typing import Final

from services.cdc_ingest.domain.formats.decoder import Part
from services.cdc_ingest.domain.formats.fields import mapping, text
from services.cdc_ingest.domain.formats.records import Ignored, Kind, LostTrack

_FORMAT: Final = "dms_event"
# Of a task on an instance, and of a serverless one.
_OF_TASKS = frozenset({"DMS Replication Task State Change", "DMS Replication State Change"})
_STARTED_AFRESH: Final = "dms-task-started-afresh"
_LOSING_TRACK = {
    "FAILED": "dms-task-failed",
    "STOPPED": "dms-task-stopped",
    "STARTED": _STARTED_AFRESH,
}
# The guide lists some events by number only.
_NUMBERED = {"DMS-EVENT-0069": "STARTED", "DMS-EVENT-0078": "FAILED", "DMS-EVENT-0079": "STOPPED"}


class DmsEventDecoder:
    """Decodes any event of DMS."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is an event of DMS."""
        return (
            isinstance(document, dict)
            and document.get("source") == "aws.dms"
            and "detail-type" in document
        )

    def decode(self, document: object) -> tuple[Part]:
        """Return a loss of track; an event of any other kind is ignored.

        The event has no capture time: a task that failed is no sign of a living capture.
        """
        found = mapping(document)
        if text(found.get("detail-type")) not in _OF_TASKS:
            return (Ignored(Kind.CONTROL, _FORMAT),)
        detail = mapping(found.get("detail"))
        kind = text(detail.get("eventType")).upper()
        if not kind:
            number = text(detail.get("eventName")) or text(detail.get("eventId"))
            kind = _NUMBERED.get(number, "")
        cause = _LOSING_TRACK.get(kind.rpartition("_")[2])
        # A resumed task has skipped nothing.
        if cause is None or (
            cause == _STARTED_AFRESH and "resum" in text(detail.get("detailMessage")).lower()
        ):
            return (Ignored(Kind.CONTROL, _FORMAT),)
        return (LostTrack("", cause, _FORMAT),)
