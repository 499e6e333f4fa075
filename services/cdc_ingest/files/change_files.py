"""Reads the change files that messages point at, then delivers the messages like all others."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from servicekit import telemetry
from servicekit.errors import ServiceError
from services.cdc_ingest.domain.messages import Arrival
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.files.file_reader import FileReader, lose
from services.cdc_ingest.metrics import PipelineMetrics
from services.cdc_ingest.sqs.in_flight import InFlight

_log = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Arrival]], None]


class ChangeFiles:
    """Reads files in threads of its own, so that messages without files do not wait for S3.

    Only the reading runs outside the event loop. While S3 is unavailable, only the messages with
    files go back to SQS; after `max_receives` they are dead-lettered, and a full run is requested.
    """

    def __init__(
        self,
        reader: FileReader,
        in_flight: InFlight,
        pipeline_metrics: PipelineMetrics,
        deliver: Deliver,
        *,
        threads: int,
        max_receives: int,
    ) -> None:
        self._reader = reader
        self._in_flight = in_flight
        self._metrics = pipeline_metrics
        self._deliver = deliver
        self._max_receives = max_receives
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="s3")
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Accept messages just received; messages without files are delivered at once."""
        self._deliver([arrival for arrival in arrivals if not arrival.files])
        for arrival in arrivals:
            if not arrival.files:
                continue
            self._in_flight.hold((arrival,))
            if self._is_stopping:
                self._in_flight.put_back(arrival.message, 0)
                continue
            task = asyncio.create_task(self._complete(arrival))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Return every message whose files are not read yet to SQS."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _complete(self, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()
        message = arrival.message
        parent = telemetry.extract(message.traceparent)
        attributes = {"dialler.files": len(arrival.files)}
        try:
            with telemetry.span("change_files", parent=parent, attributes=attributes):
                complete = await loop.run_in_executor(self._threads, self._reader.read, arrival)
        except asyncio.CancelledError:
            self._in_flight.put_back(message, 0)
        except Exception as error:
            reason = error.reason if isinstance(error, ServiceError) else "FILE_READER_FAILED"
            cause = None if isinstance(error, ServiceError) else error
            extra = {"message_id": message.message_id, "error": reason}
            _log.warning("file_not_read", exc_info=cause, extra=extra)
            if message.receive_count < self._max_receives:
                self._metrics.arrived((Arrival(message, Demand(), arrival.times),))
                self._in_flight.put_back(message)
                return
            demand = arrival.demand
            demand.fault = demand.fault or reason
            for file in arrival.files:
                # The rows of the file changed, and which people they concern is unknown.
                lose(demand, file, "file-given-up")
            self._deliver((Arrival(message, demand, arrival.times),))
        else:
            self._deliver((complete,))
