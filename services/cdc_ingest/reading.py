"""From a message to whom it concerns."""

import logging
import traceback

from services.cdc_ingest.domain.decoding import Decoded, decode_body
from services.cdc_ingest.domain.messages import Arrival, Message, times_of
from services.cdc_ingest.domain.people import Demand, PersonMap
from services.cdc_ingest.domain.records import ChangeFile, Kind
from services.cdc_ingest.domain.staleness import Sightings, Witness

_log = logging.getLogger(__name__)


def read(message: Message, people: PersonMap, witness: Witness | None = None) -> Arrival:
    """Return whom the message concerns, and by `witness` what a reading of them must show.

    Raises nothing, whatever the body holds.
    """
    try:
        decoded, demand = _decode(message.body, people)
    except Exception as error:
        # It must not keep the message's neighbours waiting.
        decoded, demand = Decoded(fault="DECODER_FAILED", defects=[error]), Demand()
    for defect in decoded.defects:
        _log.error("decoder_failed", extra={"message_id": message.message_id, **_about(defect)})
    demand.fault = decoded.fault or demand.fault
    demand.counts.update(decoded.counts)
    sightings = {} if witness is None else _sightings(decoded, witness)
    files = tuple(file for file in decoded.files if _concerns(file, people, demand))
    return Arrival(message, demand, times_of(message, decoded.records), files, sightings)


def _decode(body: str, people: PersonMap) -> tuple[Decoded, Demand]:
    decoded = decode_body(body)
    demand = people.demand(decoded.records)
    if demand.is_inexact:
        precise = decode_body(body, to_the_digit=True)
        # The other parser allows less depth.
        if len(precise.records) == len(decoded.records):
            return precise, people.demand(precise.records)
    return decoded, demand


def _sightings(decoded: Decoded, witness: Witness) -> Sightings:
    """Whoever has no sighting is read twice: no reason to refuse the message."""
    try:
        return witness.sightings(decoded.records)
    except Exception as error:
        _log.error("witness_failed", extra=_about(error))
        return {}


def _concerns(file: ChangeFile, people: PersonMap, demand: Demand) -> bool:
    """Tell whether a file must be read; count it if not."""
    if people.is_ours(file.table):
        return True
    demand.counts[file.format, Kind.FOREIGN] += 1
    return False


def _about(defect: Exception) -> dict[str, str]:
    """Say what went wrong and where, without the text of the error: that may quote the message."""
    *_, frame = traceback.extract_tb(defect.__traceback__)
    return {"error": type(defect).__name__, "at": f"{frame.filename}:{frame.lineno}"}
