"""From a message body to the records in it, whatever the format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from services.cdc_ingest.domain.dms import DmsDecoder
from services.cdc_ingest.domain.records import Record, UnreadableError


class Decoder(Protocol):
    """Understands the records of one change format."""

    @property
    def name(self) -> str:
        """The format, as metrics call it."""
        ...

    def recognises(self, document: object) -> bool:
        """Tell whether `document`, a parsed JSON value, is in this format. Never raises."""
        ...

    def decode(self, document: object) -> Record:
        """Return the record in `document`; raise `UnreadableError` when it is malformed."""
        ...


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a body holds.

    `fault` is why the body, or the first bad record in it, could not be read: UPPER_SNAKE, or None.
    The records that could be read are there all the same.
    """

    records: tuple[Record, ...]
    fault: str | None = None


DECODERS: tuple[Decoder, ...] = (DmsDecoder(),)


def decode_body(body: str, decoders: Sequence[Decoder] = DECODERS) -> Decoded:
    """Return the records of one JSON object, or of an array of them. Raises nothing."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return Decoded((), "BODY_NOT_JSON")
    if not isinstance(document, list):
        document = [document]
    records: list[Record] = []
    fault: str | None = None
    for element in document:
        try:
            records.append(_decode(element, decoders))
        except UnreadableError as error:
            fault = fault or error.reason
    return Decoded(tuple(records), fault)


def _decode(document: object, decoders: Sequence[Decoder]) -> Record:
    for decoder in decoders:
        if decoder.recognises(document):
            return decoder.decode(document)
    raise UnreadableError("FORMAT_UNKNOWN")
