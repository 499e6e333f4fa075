"""Decodes a message body to its records, through all envelopes that enclose them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from services.cdc_ingest.domain.formats.contents import (
    Unpacker,
    aggregated,
    base64_content,
    text_of,
)
from services.cdc_ingest.domain.formats.debezium import DebeziumDecoder
from services.cdc_ingest.domain.formats.decoder import Decoder, EnclosedText, EnclosedValue
from services.cdc_ingest.domain.formats.dms import DmsDecoder
from services.cdc_ingest.domain.formats.dms_event import DmsEventDecoder
from services.cdc_ingest.domain.formats.envelopes import (
    AwsEventDecoder,
    CloudEventDecoder,
    EventBusDecoder,
    FailedBatchDecoder,
    KafkaDecoder,
    KinesisDecoder,
    SnsDecoder,
    SqsRecordDecoder,
)
from services.cdc_ingest.domain.formats.json_text import (
    NOT_JSON,
    documents,
    parse,
    parse_exactly,
    unescaped,
)
from services.cdc_ingest.domain.formats.maxwell import MaxwellDecoder
from services.cdc_ingest.domain.formats.records import (
    ChangeFile,
    Ignored,
    Kind,
    LostTrack,
    Record,
    UnreadableError,
)
from services.cdc_ingest.domain.formats.s3_notification import (
    S3EventBridgeDecoder,
    S3NotificationDecoder,
)

MAX_DEPTH = 12
MAX_EFFORT = 100_000
"""The largest effort for one message; each part that is read costs 1.

A row costs 2, and 2 more for each envelope. An SQS message of 1 MiB holds fewer than 30,000 of the
shortest rows, flattened ones of Debezium's; only a compressed message may exceed the limit.
"""
MAX_OPENINGS = 2 * MAX_EFFORT
"""The most opening braces and brackets in a text; parsed, each takes at least 64 bytes."""
UNREADABLE_EFFORT = 100
"""The cost of an unreadable part, which every decoder has been asked about."""
UNKNOWN_FORMAT = "unknown"
LENIENT = "lenient"
AGGREGATED = "kpl"

# The most frequent first: a document is offered to each in turn.
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
    CloudEventDecoder(),
    EventBusDecoder(),
    KafkaDecoder(),
    FailedBatchDecoder(),
)


@dataclass(slots=True)
class Decoded:
    """The content of a body.

    `fault` is the reason for which the body, or the first bad record in it, is unreadable:
    UPPER_SNAKE, or None. `records` holds all readable records in either case. `counts` counts the
    envelopes and the unreadable parts by format, not the records. `defects` are exceptions of
    decoders.
    """

    records: list[Record] = field(default_factory=list)
    files: list[ChangeFile] = field(default_factory=list)
    fault: str | None = None
    counts: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    defects: list[Exception] = field(default_factory=list)


def decode_body(
    body: str, decoders: Sequence[Decoder] = DECODERS, *, exact: bool = False
) -> Decoded:
    """Return the content of the body: documents of any format, one after another or nested.

    A strict parse comes first; a text that it refuses is read leniently, and as base64. Raises
    nothing. An `exact` parse is slower and keeps the numbers as they are written.
    """
    decoding = _Decoding(decoders, parse_exactly if exact else parse)
    decoding.read_text(body, 0, "BODY_NOT_JSON")
    return decoding.decoded


class _Decoding:
    """Opens envelopes until only records remain. A bad document does not affect the others."""

    def __init__(self, decoders: Sequence[Decoder], parse_text: Callable[[str], object]) -> None:
        self._decoders = decoders
        self._parse = parse_text
        self._unpacker = Unpacker()
        self._effort_left = MAX_EFFORT
        self._is_given_up = False
        self.decoded = Decoded()

    def read_text(self, text: str, depth: int, fault: str) -> None:
        if depth > MAX_DEPTH:
            self._refuse(UNKNOWN_FORMAT, "NESTED_TOO_DEEPLY")
        elif not text or text.isspace():
            self._note_tombstone()
        elif len(text) > MAX_OPENINGS and text.count("{") + text.count("[") > MAX_OPENINGS:
            self._give_up()
        else:
            try:
                document = self._parse(text)
            except ValueError:
                self._read_otherwise(text, depth, fault)
            else:
                self._read_all((document,), depth)

    def _read_otherwise(self, text: str, depth: int, fault: str) -> None:
        """Read a text that is not one JSON document."""
        content = base64_content(text)
        if content is not None:
            # The content is shorter than the text, so the recursion ends.
            self._read_bytes(content, depth, fault)
            return
        if (plain := unescaped(text)) is not None:
            self.read_text(plain, depth + 1, fault)
            return
        is_empty = True
        for document in documents(text):
            is_empty = False
            if not self._may_go_on():
                return
            if document is NOT_JSON:
                self._refuse(UNKNOWN_FORMAT, fault)
            else:
                self.decoded.counts[LENIENT, Kind.ENVELOPE] += 1
                self._read_all((document,), depth)
        if is_empty:
            self._note_tombstone()

    def _read_bytes(self, content: bytes, depth: int, fault: str) -> None:
        try:
            plain = self._unpacker.unpacked(content)
            records = aggregated(plain)
        except UnreadableError as error:
            self._refuse(UNKNOWN_FORMAT, error.reason, error.lost_track)
            return
        if records is None:
            self.read_text(text_of(plain), depth + (plain is not content), fault)
            return
        self.decoded.counts[AGGREGATED, Kind.ENVELOPE] += 1
        if depth > MAX_DEPTH:
            self._refuse(UNKNOWN_FORMAT, "NESTED_TOO_DEEPLY")
            return
        for record in records:
            if not self._may_go_on():
                return
            self._read_bytes(record, depth + 1, fault)

    def _note_tombstone(self) -> None:
        """Debezium Server writes the tombstone of a key as an empty record."""
        self.decoded.records.append(Ignored(Kind.TOMBSTONE, DebeziumDecoder.name))

    def _read_all(self, found: Iterable[object], depth: int) -> None:
        for document in found:
            if not self._may_go_on():
                return
            if depth > MAX_DEPTH:
                self._refuse(UNKNOWN_FORMAT, "NESTED_TOO_DEEPLY")
            elif isinstance(document, list):
                self._read_all(document, depth + 1)
            elif isinstance(document, str):
                self.read_text(document, depth + 1, "CONTENT_NOT_JSON")
            else:
                self._read(document, depth)

    def _read(self, document: object, depth: int) -> None:
        name = UNKNOWN_FORMAT
        try:
            for decoder in self._decoders:
                if decoder.recognises(document):
                    name = decoder.name
                    parts = decoder.decode(document)
                    break
            else:
                raise UnreadableError("FORMAT_UNKNOWN")
        except UnreadableError as error:
            self._refuse(name, error.reason, error.lost_track)
            return
        except Exception as defect:
            # It must not affect the document's neighbours.
            self.decoded.defects.append(defect)
            self._refuse(name, "DECODER_FAILED")
            return
        if not parts or isinstance(parts[0], EnclosedText | EnclosedValue):
            self.decoded.counts[name, Kind.ENVELOPE] += 1
        for part in parts:
            if not self._may_go_on():
                return
            if isinstance(part, EnclosedText):
                self.read_text(part.text, depth + 1, "CONTENT_NOT_JSON")
            elif isinstance(part, EnclosedValue):
                self._read_all((part.value,), depth + 1)
            elif isinstance(part, ChangeFile):
                self.decoded.files.append(part)
            else:
                self.decoded.records.append(part)

    def _may_go_on(self) -> bool:
        """Tell whether one more part may be read; a full run finds the changes in the others."""
        if self._effort_left > 0:
            self._effort_left -= 1
            return True
        if not self._is_given_up:
            self._is_given_up = True
            self._give_up()
        return False

    def _give_up(self) -> None:
        self._refuse(UNKNOWN_FORMAT, "TOO_MANY_PARTS", LostTrack("", "message-given-up"))

    def _refuse(self, name: str, reason: str, lost_track: LostTrack | None = None) -> None:
        self._effort_left -= UNREADABLE_EFFORT
        self.decoded.counts[name, Kind.UNREADABLE] += 1
        self.decoded.fault = self.decoded.fault or reason
        if lost_track is not None:
            self.decoded.records.append(replace(lost_track, format=name))
