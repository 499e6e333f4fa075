"""The interface of a decoder, and the documents that one may find inside another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from services.cdc_ingest.domain.formats.records import ChangeFile, Record, UnreadableError


@dataclass(frozen=True, slots=True)
class EnclosedText:
    """JSON text inside a document, in any format."""

    text: str


@dataclass(frozen=True, slots=True)
class EnclosedValue:
    """A parsed value inside a document, in any format."""

    value: object


Part: TypeAlias = Record | ChangeFile | EnclosedText | EnclosedValue


def enclosed(content: object, reason: str) -> EnclosedText | EnclosedValue:
    """Return a document inside another: a text, an object or a list.

    Raises:
        UnreadableError: with `reason`, for anything else.
    """
    if isinstance(content, dict | list):
        return EnclosedValue(content)
    if isinstance(content, str):
        return EnclosedText(content)
    raise UnreadableError(reason)


class Decoder(Protocol):
    """Decodes the documents of one format."""

    @property
    def name(self) -> str:
        """The name of the format in the metrics."""
        ...

    def recognises(self, document: object) -> bool:
        """Tell whether `document`, a parsed JSON value, is in this format. Never raises."""
        ...

    def decode(self, document: object) -> Sequence[Part]:
        """Return the parts of a recognised document: records, files, and documents to decode.

        Raises:
            UnreadableError: the document is malformed.
        """
        ...
