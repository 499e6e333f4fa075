"""Messages that point at files: held while the files are read, then passed on like the others."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from servicekit import telemetry
from servicekit.errors import ServiceError
from services.cdc_ingest.custody import Custody
from services.cdc_ingest.domain.messages import Arrival
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.file_reader import FileReader
from services.cdc_ingest.metrics import Ledger

_log = logging.getLogger(__name__)

Deliver = Callable[[Sequence[Arrival]], None]


class ChangeFiles:
    """Reads files in threads of their own, so that no other message waits for S3.

    Everything runs on one event loop but the reading. While S3 does not answer, only the messages
    that want it go back to SQS; after `max_receives` they are given up.
    """

    def __init__(
        self,
        reader: FileReader,
        custody: Custody,
        ledger: Ledger,
        deliver: Deliver,
        *,
        threads: int,
        max_receives: int,
    ) -> None:
        self._reader = reader
        self._custody = custody
        self._ledger = ledger
        self._deliver = deliver
        self._max_receives = max_receives
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="s3")
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Take on messages just received; those without files are passed on at once."""
        self._deliver([arrival for arrival in arrivals if not arrival.files])
        for arrival in arrivals:
            if arrival.files:
                self._custody.hold((arrival,))
                self._begin(arrival)

    async def stop(self) -> None:
        """Give every message whose files have not been read back to SQS."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, arrival: Arrival) -> None:
        if self._is_stopping:
            self._custody.put_back(arrival.message, 0)
            return
        task = asyncio.create_task(self._complete(arrival))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _complete(self, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()
        parent = telemetry.extract(arrival.message.traceparent)
        try:
            with telemetry.span(
                "change_files", parent=parent, attributes={"dialler.files": len(arrival.files)}
            ):
                complete = await loop.run_in_executor(self._threads, self._reader.read, arrival)
        except asyncio.CancelledError:
            self._custody.put_back(arrival.message, 0)
        except Exception as error:
            self._failed(arrival, error)
        else:
            self._deliver((complete,))

    def _failed(self, arrival: Arrival, error: Exception) -> None:
        message = arrival.message
        reason = error.reason if isinstance(error, ServiceError) else "FILE_READER_FAILED"
        cause = None if isinstance(error, ServiceError) else error
        extra = {"message_id": message.message_id, "error": reason}
        _log.warning("file_not_read", exc_info=cause, extra=extra)
        if message.receive_count < self._max_receives:
            self._ledger.arrived((Arrival(message, Demand(), arrival.times),))
            self._custody.put_back(message)
            return
        demand = arrival.demand
        demand.fault = demand.fault or reason
        self._deliver((Arrival(message, demand, arrival.times),))
