"""The notifications of S3 for a new object: sent directly, or by EventBridge.

DMS writes to `folder/schema/table/`, perhaps with folders for the date below.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_plus

from services.cdc_ingest.domain.formats.decoder import Part
from services.cdc_ingest.domain.formats.fields import iso_moment, mapping, text
from services.cdc_ingest.domain.formats.records import (
    ChangeFile,
    Ignored,
    Kind,
    LostTrack,
    UnreadableError,
)

_DIRECT: Final = "s3"
_SUFFIXES = (".csv", ".csv.gz", ".parquet")
# Rows of any table may have changed in a file that is never read.
_LOST: Final = LostTrack("", "file-not-followed")
# 2025/06/02, 20250602, 2025-06-02, and hours.
_DATE_FOLDER = re.compile(r"[0-9_-]+")


class S3NotificationDecoder:
    """Decodes one record of a notification, and the test event that S3 sends at its setup."""

    name = _DIRECT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is one of these."""
        if not isinstance(document, dict):
            return False
        is_record = document.get("eventSource") == "aws:s3" or isinstance(document.get("s3"), dict)
        return is_record or document.get("Event") == "s3:TestEvent"

    def decode(self, document: object) -> tuple[Part]:
        """Return the file that was written; the removal of a file is ignored.

        Raises:
            UnreadableError: there is no bucket or key, or the kind of file cannot be followed.
        """
        found = mapping(document)
        if found.get("Event") == "s3:TestEvent":
            return (Ignored(Kind.TEST, self.name),)
        if not text(found.get("eventName")).removeprefix("s3:").startswith("ObjectCreated:"):
            return (Ignored(Kind.CONTROL, self.name),)
        return (_file(self.name, mapping(found.get("s3")), found.get("eventTime")),)


class S3EventBridgeDecoder:
    """Decodes the same notification from EventBridge, where keys are not URL-encoded."""

    name = "s3_eventbridge"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is an event of S3."""
        return (
            isinstance(document, dict)
            and document.get("source") == "aws.s3"
            and "detail-type" in document
        )

    def decode(self, document: object) -> tuple[Part]:
        """Return the file that was written; the removal of a file is ignored.

        Raises:
            UnreadableError: there is no bucket or key, or the kind of file cannot be followed.
        """
        found = mapping(document)
        if found.get("detail-type") != "Object Created":
            return (Ignored(Kind.CONTROL, self.name),)
        return (_file(self.name, mapping(found.get("detail")), found.get("time")),)


def _file(form: str, event: Mapping[str, object], written_at: object) -> Part:
    found = mapping(event.get("object"))
    bucket = text(mapping(event.get("bucket")).get("name"))
    key = text(found.get("key"))
    if form == _DIRECT:
        key = unquote_plus(key)
    if not bucket or not key:
        raise UnreadableError("S3_OBJECT_NOT_NAMED", _LOST)
    *folders, name = key.split("/")
    if not name.lower().endswith(_SUFFIXES):
        return Ignored(Kind.FILE, form)
    if name.startswith("CDC_TXN_"):
        # PreserveTransactions mixes tables in one file, without column names.
        raise UnreadableError("S3_TRANSACTION_FILE", _LOST)
    size = found.get("size")
    return ChangeFile(
        bucket=bucket,
        key=key,
        table=next((each for each in reversed(folders) if not _DATE_FOLDER.fullmatch(each)), ""),
        size_bytes=size if isinstance(size, int) and not isinstance(size, bool) else None,
        version_id=text(found.get("versionId")) or text(found.get("version-id")) or None,
        written_at=iso_moment(written_at),
        format=form,
    )
