"""From the files a message points at to whom they concern."""

from collections.abc import Collection, Iterator
from datetime import datetime

from servicekit.errors import NotFound
from services.cdc_ingest.domain.formats.dms_file import CSV, PARQUET, row_change, wanted_columns
from services.cdc_ingest.domain.messages import Arrival, ChangeTimes
from services.cdc_ingest.domain.people import Demand, Key, PersonMap
from services.cdc_ingest.domain.records import (
    ChangeFile,
    Kind,
    LostTrack,
    RowChange,
    UnreadableError,
)
from services.cdc_ingest.domain.staleness import SHOWN, Seen, Witness
from services.cdc_ingest.file_rows import rows_of_csv, rows_of_parquet
from services.cdc_ingest.object_store import ObjectStore


class FileReader:
    """Reads files from the allowed buckets. Blocks: never call it from asyncio."""

    def __init__(
        self,
        store: ObjectStore,
        people: PersonMap,
        witness: Witness,
        *,
        buckets: Collection[str],
        max_bytes: int,
    ) -> None:
        self._store = store
        self._people = people
        self._witness = witness
        self._buckets = buckets
        self._max_bytes = max_bytes

    def read(self, arrival: Arrival) -> Arrival:
        """Return the arrival with what is in its files.

        A file that cannot be read is a fault of the message, and a reason to look at everybody:
        who it concerns is not known.

        Raises:
            ServiceError: S3 does not give us a file that may well be there.
        """
        demand, captured_at = arrival.demand, arrival.times.captured_at
        sightings = dict(arrival.sightings)
        for file in arrival.files:
            found = self._read(file, sightings)
            demand.absorb(found)
            if found.by_transaction and file.written_at is not None:
                captured_at = min(captured_at or file.written_at, file.written_at)
        return Arrival(arrival.message, demand, _times(arrival, captured_at), sightings=sightings)

    def _read(self, file: ChangeFile, sightings: dict[Key, Seen]) -> Demand:
        demand = Demand()
        demand.counts[file.format, Kind.ENVELOPE] += 1
        if file.bucket not in self._buckets:
            demand.fault = "S3_BUCKET_NOT_ALLOWED"
            return demand
        try:
            content = self._fetch(file)
            if content is None:
                _lose(demand, file, "file-too-large")
            else:
                self._people.add(self._changes(file, content, sightings), demand)
        except UnreadableError as error:
            demand.fault = error.reason
            _lose(demand, file, "file-unreadable")
        return demand

    def _fetch(self, file: ChangeFile) -> bytes | None:
        if file.size_bytes is not None and file.size_bytes > self._max_bytes:
            return None
        try:
            return self._store.fetch(file, self._max_bytes)
        except NotFound as error:
            raise UnreadableError(error.reason) from error

    def _changes(
        self, file: ChangeFile, content: bytes, sightings: dict[Key, Seen]
    ) -> Iterator[RowChange]:
        leading = self._people.columns(file.table)
        is_parquet = file.key.lower().endswith(".parquet")
        rows, form = (rows_of_parquet, PARQUET) if is_parquet else (rows_of_csv, CSV)
        wanted = wanted_columns(dict.fromkeys((*leading, *SHOWN.get(file.table, ()))))
        for row in rows(content, wanted, leading[0]):
            change = row_change(file, row, form)
            self._witness.see(change, sightings)
            yield change


def _lose(demand: Demand, file: ChangeFile, cause: str) -> None:
    demand.lose(LostTrack(file.table, cause))
    demand.counts[file.format, Kind.LOST_TRACK] += 1


def _times(arrival: Arrival, captured_at: datetime | None) -> ChangeTimes:
    times = arrival.times
    return ChangeTimes(times.received_at, times.committed_at, captured_at)
