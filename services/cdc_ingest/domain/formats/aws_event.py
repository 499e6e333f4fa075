"""The list of records that AWS services hand to Lambda, and an SQS message as it stands in one."""

from services.cdc_ingest.domain.formats.decoder import EnclosedText, EnclosedValue, Part
from services.cdc_ingest.domain.records import UnreadableError


class AwsEventDecoder:
    """Understands `{"Records": [...]}`, whatever the records are of."""

    name = "aws_event"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is such a list."""
        return isinstance(document, dict) and isinstance(document.get("Records"), list)

    def decode(self, document: object) -> tuple[Part, ...]:
        """Return the records."""
        records = document["Records"] if isinstance(document, dict) else []
        return tuple(EnclosedValue(record) for record in records)


class SqsRecordDecoder:
    """Understands an SQS message inside such a list."""

    name = "sqs"

    def recognises(self, document: object) -> bool:
        """Tell whether `document` is one."""
        return (
            isinstance(document, dict)
            and document.get("eventSource") == "aws:sqs"
            and "body" in document
        )

    def decode(self, document: object) -> tuple[Part]:
        """Return its body.

        Raises:
            UnreadableError: that is not text.
        """
        body = document.get("body") if isinstance(document, dict) else None
        if not isinstance(body, str):
            raise UnreadableError("SQS_BODY_NOT_TEXT")
        return (EnclosedText(body),)
