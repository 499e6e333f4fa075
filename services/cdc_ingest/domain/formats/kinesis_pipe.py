"""A Kinesis record as an EventBridge Pipe puts it into SQS, or as Lambda is given it.

A pipe writes the fields of the record flat; Lambda has them under `kinesis`. The data is base64;
a pipe with an input transformer may have decoded it already.
"""

import base64
import binascii

from services.cdc_ingest.domain.formats.decoder import EnclosedText, EnclosedValue, Part
from services.cdc_ingest.domain.records import UnreadableError

_FORMAT = "kinesis"


class KinesisDecoder:
    """Understands one record of a Kinesis stream."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is such a record."""
        if not isinstance(document, dict):
            return False
        if isinstance(document.get("kinesis"), dict):
            return True
        is_from_kinesis = document.get("eventSource") == "aws:kinesis"
        return "data" in document and (is_from_kinesis or "kinesisSchemaVersion" in document)

    def decode(self, document: object) -> tuple[Part]:
        """Return what is in the record.

        Raises:
            UnreadableError: its data is not text, or base64 of something else.
        """
        found = document if isinstance(document, dict) else {}
        nested = found.get("kinesis")
        data = (nested if isinstance(nested, dict) else found).get("data")
        if isinstance(data, dict | list):
            return (EnclosedValue(data),)
        if not isinstance(data, str):
            raise UnreadableError("KINESIS_DATA_MISSING")
        return (EnclosedText(_plain(data)),)


def _plain(data: str) -> str:
    """Braces and brackets are no base64, so JSON that is plain already is never mistaken for it."""
    if data.lstrip()[:1] in ("{", "["):
        return data
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise UnreadableError("KINESIS_DATA_NOT_TEXT") from error
