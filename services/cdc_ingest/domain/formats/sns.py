"""What SNS wraps around a message unless raw delivery is on."""

from services.cdc_ingest.domain.formats.decoder import EnclosedText, Part
from services.cdc_ingest.domain.records import Ignored, Kind, UnreadableError

_FORMAT = "sns"
_TYPES = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")


class SnsDecoder:
    """Understands a notification, and what SNS says about subscriptions."""

    name = _FORMAT

    def recognises(self, document: object) -> bool:
        """Tell whether `document` has what each of them has."""
        return (
            isinstance(document, dict)
            and document.get("Type") in _TYPES
            and "TopicArn" in document
            and "Message" in document
        )

    def decode(self, document: object) -> tuple[Part]:
        """Return the message in a notification.

        Raises:
            UnreadableError: it is not text.
        """
        found = document if isinstance(document, dict) else {}
        if found.get("Type") != "Notification":
            return (Ignored(Kind.CONTROL, _FORMAT),)
        message = found.get("Message")
        if not isinstance(message, str):
            raise UnreadableError("SNS_MESSAGE_NOT_TEXT")
        return (EnclosedText(message),)
