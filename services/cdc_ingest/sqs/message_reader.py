"""Reads a message: the people its changes concern, and what a reading of them must show."""

import logging
import traceback
from dataclasses import replace

from services.cdc_ingest.domain.formats.decoding import Decoded, decode_body
from services.cdc_ingest.domain.formats.records import ChangeFile, Kind
from services.cdc_ingest.domain.messages import Arrival, Message, times_of
from services.cdc_ingest.domain.people import Demand, PersonMap
from services.cdc_ingest.domain.staleness import Observations, RowObserver

_log = logging.getLogger(__name__)


def read_message(
    message: Message, people: PersonMap, observer: RowObserver | None = None
) -> Arrival:
    """Return the people of the message, and with `observer` what a reading of them must show.

    Raises nothing for any body.
    """
    try:
        decoded, demand = decode_demand(message.body, people)
    except Exception as error:
        # It must not stop the other messages of the poll.
        decoded, demand = Decoded(fault="DECODER_FAILED", defects=[error]), Demand()
    for defect in decoded.defects:
        _log.error("decoder_failed", extra={"message_id": message.message_id, **_about(defect)})
    demand.fault = decoded.fault or demand.fault
    demand.counts.update(decoded.counts)
    files: list[ChangeFile] = []
    for file in decoded.files:
        table = people.names.table(file.table)
        if people.is_ours(table):
            files.append(replace(file, table=table))
        else:
            demand.counts[file.format, Kind.FOREIGN] += 1
    observations: Observations = {}
    if observer is not None:
        delivery = observer.delivery(message.message_id, message.came_at, message.sent_at)
        try:
            observations = observer.observe(decoded.records, delivery)
        except Exception as error:
            # A person without observed rows is read twice: the message need not be refused.
            _log.error("row_observer_failed", extra=_about(error))
    times = times_of(message, decoded.records)
    return Arrival(message, demand, times, tuple(files), observations)


def decode_demand(body: str, people: PersonMap) -> tuple[Decoded, Demand]:
    """Return the content of a body, by the names of the description, and its people."""
    decoded = _decoded(body, people)
    demand = people.demand(decoded.records)
    if demand.is_inexact:
        precise = _decoded(body, people, exact=True)
        # The exact parser allows less depth, so it may find fewer records.
        if len(precise.records) == len(decoded.records):
            return precise, people.demand(precise.records)
    return decoded, demand


def _decoded(body: str, people: PersonMap, *, exact: bool = False) -> Decoded:
    decoded = decode_body(body, exact=exact)
    decoded.records = [people.names.record(record) for record in decoded.records]
    return decoded


def _about(defect: Exception) -> dict[str, str]:
    """Return type and place of an exception, without its text, which may quote the message."""
    *_, frame = traceback.extract_tb(defect.__traceback__)
    return {"error": type(defect).__name__, "at": f"{frame.filename}:{frame.lineno}"}
