"""From a message body to the records in it, whatever the formats they are wrapped in."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.cdc_ingest.domain.formats.aws_event import AwsEventDecoder, SqsRecordDecoder
from services.cdc_ingest.domain.formats.debezium import DebeziumDecoder
from services.cdc_ingest.domain.formats.decoder import Decoder, EnclosedText, EnclosedValue, Part
from services.cdc_ingest.domain.formats.dms import DmsDecoder
from services.cdc_ingest.domain.formats.dms_event import DmsEventDecoder
from services.cdc_ingest.domain.formats.kinesis_pipe import KinesisDecoder
from services.cdc_ingest.domain.formats.maxwell import MaxwellDecoder
from services.cdc_ingest.domain.formats.s3_notification import (
    S3EventBridgeDecoder,
    S3NotificationDecoder,
)
from services.cdc_ingest.domain.formats.sns import SnsDecoder
from services.cdc_ingest.domain.json_text import parse, parse_to_the_digit
from services.cdc_ingest.domain.records import ChangeFile, Kind, Record, UnreadableError

MAX_DEPTH = 12
UNKNOWN_FORMAT = "unknown"

# The commonest first: each record is shown to them in turn.
DECODERS: tuple[Decoder, ...] = (
    DmsDecoder(),
    KinesisDecoder(),
    MaxwellDecoder(),
    DebeziumDecoder(),
    AwsEventDecoder(),
    SqsRecordDecoder(),
    S3NotificationDecoder(),
    S3EventBridgeDecoder(),
    DmsEventDecoder(),
    SnsDecoder(),
)


@dataclass(slots=True)
class Decoded:
    """What a body holds.

    `fault` is why the body, or the first bad record in it, could not be read: UPPER_SNAKE, or None.
    The records that could be read are there all the same. `counts` tells what was opened and what
    was refused, by format; the records are for others to count. `defects` are errors of ours.
    """

    records: list[Record] = field(default_factory=list)
    files: list[ChangeFile] = field(default_factory=list)
    fault: str | None = None
    counts: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    defects: list[Exception] = field(default_factory=list)


def decode_body(
    body: str, decoders: Sequence[Decoder] = DECODERS, *, to_the_digit: bool = False
) -> Decoded:
    """Return what is in the body: one JSON document, an array of them, or one a line.

    Raises nothing. `to_the_digit` is slower and keeps numbers as they are written.
    """
    decoding = _Decoding(decoders, parse_to_the_digit if to_the_digit else parse)
    decoding.read_text(body, 0, "BODY_NOT_JSON")
    return decoding.decoded


class _Decoding:
    """Opens envelopes until only records are left. Every document stands or falls alone."""

    def __init__(self, decoders: Sequence[Decoder], parse_text: Callable[[str], object]) -> None:
        self._decoders = decoders
        self._parse = parse_text
        self.decoded = Decoded()

    def read_text(self, text: str, depth: int, fault: str) -> None:
        try:
            documents = [self._parse(text)]
        except ValueError:
            lines = text.split("\n")
            if len(lines) > 1 and self._is_json(lines[0]):
                for line in filter(str.strip, lines):
                    self.read_text(line, depth, fault)
            else:
                self._refuse(UNKNOWN_FORMAT, fault)
            return
        self._read_all(documents, depth)

    def _is_json(self, text: str) -> bool:
        try:
            self._parse(text)
        except ValueError:
            return False
        return True

    def _read_all(self, documents: Iterable[object], depth: int) -> None:
        for document in documents:
            if depth > MAX_DEPTH:
                self._refuse(UNKNOWN_FORMAT, "NESTED_TOO_DEEPLY")
            elif isinstance(document, list):
                self._read_all(document, depth + 1)
            else:
                self._read(document, depth)

    def _read(self, document: object, depth: int) -> None:
        name = UNKNOWN_FORMAT
        try:
            decoder = self._decoder(document)
            name = decoder.name
            parts = decoder.decode(document)
        except UnreadableError as error:
            self._refuse(name, error.reason)
            return
        except Exception as defect:
            # It must not cost the document's neighbours anything.
            self.decoded.defects.append(defect)
            self._refuse(name, "DECODER_FAILED")
            return
        if not parts or isinstance(parts[0], EnclosedText | EnclosedValue):
            self.decoded.counts[name, Kind.ENVELOPE] += 1
        for part in parts:
            self._take(part, depth)

    def _decoder(self, document: object) -> Decoder:
        for decoder in self._decoders:
            if decoder.recognises(document):
                return decoder
        raise UnreadableError("FORMAT_UNKNOWN")

    def _take(self, part: Part, depth: int) -> None:
        if isinstance(part, EnclosedText):
            self.read_text(part.text, depth + 1, "CONTENT_NOT_JSON")
        elif isinstance(part, EnclosedValue):
            self._read_all((part.value,), depth + 1)
        elif isinstance(part, ChangeFile):
            self.decoded.files.append(part)
        else:
            self.decoded.records.append(part)

    def _refuse(self, name: str, reason: str) -> None:
        self.decoded.counts[name, Kind.UNREADABLE] += 1
        self.decoded.fault = self.decoded.fault or reason
