"""Reads the change files of a message, and which people their rows concern."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from servicekit.errors import NotFound
from services.cdc_ingest.domain.formats.dms_file import CSV, PARQUET, row_change, wanted_columns
from services.cdc_ingest.domain.formats.records import (
    ChangeFile,
    ChangeRecord,
    Kind,
    LostTrack,
    UnreadableError,
)
from services.cdc_ingest.domain.messages import Arrival
from services.cdc_ingest.domain.ordering import Delivery
from services.cdc_ingest.domain.people import Demand, Key, PersonMap
from services.cdc_ingest.domain.staleness import SHOWN, ObservedRows, RowObserver
from services.cdc_ingest.files.file_rows import rows_of_csv, rows_of_parquet
from services.cdc_ingest.files.object_store import ObjectStore


class FileReader:
    """Reads files from the allowed buckets. Blocks: never call it from asyncio."""

    def __init__(
        self,
        store: ObjectStore,
        people: PersonMap,
        observer: RowObserver,
        *,
        buckets: Collection[str],
        max_bytes: int,
    ) -> None:
        self._store = store
        self._people = people
        self._observer = observer
        self._buckets = buckets
        self._max_bytes = max_bytes

    def read(self, arrival: Arrival) -> Arrival:
        """Return the arrival with the demand of its files.

        A file that cannot be read is a fault of the message, and asks for a full run: which people
        it concerns is unknown.

        Raises:
            ServiceError: S3 is unavailable or denies access.
        """
        demand, captured_at = arrival.demand, arrival.times.captured_at
        observations = dict(arrival.observations)
        message = arrival.message
        delivery = self._observer.delivery(message.message_id, message.came_at, message.sent_at)
        for file in arrival.files:
            found = self._read(file, observations, delivery)
            demand.absorb(found)
            if found.by_transaction and file.written_at is not None:
                captured_at = min(captured_at or file.written_at, file.written_at)
        times = replace(arrival.times, captured_at=captured_at)
        return Arrival(message, demand, times, observations=observations)

    def _read(
        self, file: ChangeFile, observations: dict[Key, ObservedRows], delivery: Delivery
    ) -> Demand:
        demand = Demand()
        demand.counts[file.format, Kind.ENVELOPE] += 1
        if file.bucket not in self._buckets:
            demand.fault = "S3_BUCKET_NOT_ALLOWED"
            lose(demand, file, "bucket-not-allowed")
            return demand
        try:
            content = None
            if file.size_bytes is None or file.size_bytes <= self._max_bytes:
                content = self._store.fetch(file, self._max_bytes)
            if content is None:
                lose(demand, file, "file-too-large")
            else:
                changes = self._changes(file, content, observations, delivery)
                self._people.add(changes, demand)
        except (NotFound, UnreadableError) as error:
            demand.fault = error.reason
            lose(demand, file, "file-unreadable")
        return demand

    def _changes(
        self,
        file: ChangeFile,
        content: bytes,
        observations: dict[Key, ObservedRows],
        delivery: Delivery,
    ) -> Iterator[ChangeRecord]:
        leading = self._people.columns(file.table)
        is_parquet = file.key.lower().endswith(".parquet")
        rows, form = (rows_of_parquet, PARQUET) if is_parquet else (rows_of_csv, CSV)
        wanted = wanted_columns(dict.fromkeys((*leading, *SHOWN.get(file.table, ()))))
        for row in rows(content, wanted, leading[0]):
            change = row_change(file, row, form)
            self._observer.observe_change(change, observations, delivery)
            yield change


def lose(demand: Demand, file: ChangeFile, cause: str) -> None:
    """Ask for a full run for the table of a file that is not read."""
    demand.lose(LostTrack(file.table, cause))
    demand.counts[file.format, Kind.LOST_TRACK] += 1
