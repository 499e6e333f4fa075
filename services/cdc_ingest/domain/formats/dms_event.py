"""What DMS tells EventBridge about its tasks: that one has lost, or may lose, its place.

The format is described in the DMS user guide under "Working with Amazon EventBridge events".
"""

from collections.abc import Mapping
from typing import Final

from services.cdc_ingest.domain.formats.decoder import Part
from services.cdc_ingest.domain.formats.fields import mapping, text
from services.cdc_ingest.domain.records import Ignored, Kind, LostTrack

_FORMAT: Final = "dms_event"
# A task of an instance, and a serverless one.
_OF_TASKS = frozenset({"DMS Replication Task State Change", "DMS Replication State Change"})
_LOSING_TRACK = {"FAILED": "dms-task-failed", "STOPPED": "dms-task-stopped"}
# The guide has some events by number only.
_NUMBERED = {"DMS-EVENT-0069": "STARTED", "DMS-EVENT-0078": "FAILED", "DMS-EVENT-0079": "STOPPED"}


class DmsEventDecoder:
    """Understands an event of DMS's, whatever it is about."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is one."""
        return (
            isinstance(document, dict)
            and document.get("source") == "aws.dms"
            and "detail-type" in document
        )

    def decode(self, document: object) -> tuple[Part]:
        """Return the loss of track that the event tells of; anything else concerns nobody.

        An event says nothing of when a change was captured: a task that failed is not alive.
        """
        found = mapping(document)
        cause = None
        if text(found.get("detail-type")) in _OF_TASKS:
            cause = _cause(mapping(found.get("detail")))
        if cause is None:
            return (Ignored(Kind.CONTROL, _FORMAT),)
        return (LostTrack("", cause, _FORMAT),)


def _cause(detail: Mapping[str, object]) -> str | None:
    kind = text(detail.get("eventType")).upper()
    if not kind:
        number = text(detail.get("eventName")) or text(detail.get("eventId"))
        kind = _NUMBERED.get(number, "")
    last_word = kind.rpartition("_")[2]
    if last_word == "STARTED":
        # Only one that goes on where it was has passed nothing over.
        goes_on = "resum" in text(detail.get("detailMessage")).lower()
        return None if goes_on else "dms-task-started-afresh"
    return _LOSING_TRACK.get(last_word)
