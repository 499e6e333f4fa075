"""What a format's module has to offer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from services.cdc_ingest.domain.records import ChangeFile, Record


@dataclass(frozen=True, slots=True)
class EnclosedText:
    """JSON text inside a document, in whatever format."""

    text: str


@dataclass(frozen=True, slots=True)
class EnclosedValue:
    """A parsed value inside a document, in whatever format."""

    value: object


Part: TypeAlias = Record | ChangeFile | EnclosedText | EnclosedValue


class Decoder(Protocol):
    """Understands the documents of one format."""

    @property
    def name(self) -> str:
        """The format, as metrics call it."""
        ...

    def recognises(self, document: object) -> bool:
        """Tell whether `document`, a parsed JSON value, is in this format. Never raises."""
        ...

    def decode(self, document: object) -> Sequence[Part]:
        """Return what is in a document that was recognised: records and files, or more to decode.

        Raises:
            UnreadableError: it is malformed.
        """
        ...
