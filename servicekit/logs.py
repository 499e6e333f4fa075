"""JSON lines on stdout, without messages of errors that may hold personal data."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import orjson

from servicekit.errors import ServiceError

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Messages of drivers, parsers and validators quote values, which may be personal data. Messages of
# these types are about code, files and sockets; other errors are logged by type and place only.
_HARMLESS = (
    AttributeError,
    AssertionError,
    ImportError,
    NameError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ServiceError,
    TypeError,
)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: ts, level, service, logger, event, trace_id, extras."""

    def __init__(self, service: str, trace_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._service = service
        self._trace_id = trace_id

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; extras that JSON cannot hold are written as their `str`."""
        fields: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        trace_id = self._trace_id()
        if trace_id is not None:
            fields["trace_id"] = trace_id
        fields.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = describe(record.exc_info[1])
        option = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
        try:
            return orjson.dumps(fields, default=str, option=option).decode()
        except TypeError:
            # A lone surrogate, or an int beyond 64 bits: an inexact line is better than none.
            plain = {key: ascii(value) for key, value in fields.items()}
            return orjson.dumps(plain).decode()


def describe(error: BaseException) -> str:
    """Return a traceback with causes; messages only of types that cannot quote a row's values."""
    return "".join(_described(error, set()))


def configure(service: str, level: str, trace_id: Callable[[], str | None]) -> None:
    """Send all logging of this process to stdout as JSON lines; a repeat replaces the first."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, JsonFormatter):
            root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service, trace_id))
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    # No line has them, and looking them up costs more than the rest of making a record.
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False


def _described(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is not None and id(cause) not in seen:
        yield from _described(cause, seen)
        yield "\nwhich led to:\n"
    yield from traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__)).format()
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    yield f"{name}: {error}" if isinstance(error, _HARMLESS) else name
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield "\nwith:\n"
            yield from _described(part, seen)
