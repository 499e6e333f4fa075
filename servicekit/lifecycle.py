"""Starting a service process, stopping it on a signal, and periodic loops."""

import asyncio
import contextlib
import inspect
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar, runtime_checkable

import uvloop
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from servicekit import deadline, metrics, telemetry
from servicekit.backoff import Backoff
from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from servicekit.settings import ServiceSettings

EXIT_BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h
EXIT_FAILED = 1
# After the drain, for closing channels and engines.
STOP_SLACK_SECONDS = 2.0
CANCELLED_AGAIN_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
# A service that is unavailable may be back at any moment, and a try costs little.
LONGEST_BACKOFF_WHILE_UNAVAILABLE_SECONDS = 5.0
# A run that a nudge asks for begins no sooner after the end of the last one than that one took, and
# at most so much later: the busier the process, the more of frequent nudges one run serves, and a
# nudge that finds a quiet process is served at once.
LONGEST_NUDGE_GAP_SECONDS = 0.02

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=ServiceSettings)


class Service(Protocol):
    """Something that is started once and stopped; stopping again does nothing."""

    async def start(self) -> None:
        """Begin; returns when it works."""
        ...

    async def stop(self) -> None:
        """Finish work in hand and release everything."""
        ...


@runtime_checkable
class Listening(Protocol):
    """A service that listens on an address."""

    @property
    def address(self) -> str:
        """The address it listens on, as host:port."""
        ...


class Parts:
    """One service made of several parts, started in order and stopped in reverse.

    When a part fails to start, the parts before it are stopped. A part that only has to be closed
    is wrapped in `Closing`.
    """

    def __init__(self, *parts: Service) -> None:
        self._parts = parts
        self._started: list[Service] = []

    @property
    def address(self) -> str:
        """The address of the first part that has one, else empty."""
        return next((p.address for p in self._parts if isinstance(p, Listening)), "")

    async def start(self) -> None:
        """Start each part; raises what the first failing one raises."""
        for part in self._parts:
            try:
                await part.start()
            except BaseException:
                await self.stop()
                raise
            self._started.append(part)

    async def stop(self) -> None:
        """Stop the started parts, last first; a failure is logged and the others are stopped."""
        while self._started:
            part = self._started.pop()
            try:
                await part.stop()
            except Exception:
                _log.exception("stop_failed", extra={"part": type(part).__name__})


class Closing:
    """A part that is only closed, such as a channel or an engine."""

    def __init__(self, close: Callable[[], Awaitable[object]]) -> None:
        self._close = close

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Close it."""
        await self._close()


class Loop:
    """Runs `run_once(now)` at once, then `interval_seconds` after each run.

    After a result whose `has_more` is true the next run begins without a pause. An exception never
    ends the loop: the first of a row is logged, and the pause doubles with each, up to 5 seconds
    after an Unavailable and 30 after others. Runs have no deadline but those they set.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[datetime], Awaitable[object]],
        interval_seconds: float,
        clock: Clock,
        *,
        stop_seconds: float = 5.0,
    ) -> None:
        self.name = name
        self._run_once = run_once
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._stop_seconds = stop_seconds
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._longest_backoff_seconds = LONGEST_BACKOFF_SECONDS

    @property
    def failures(self) -> int:
        """How many of the latest runs have failed in a row."""
        return self._failures

    async def start(self) -> None:
        """Begin; the first run is under way soon after this returns."""
        with deadline.detached():
            self._task = asyncio.create_task(self._run(), name=f"loop-{self.name}")

    async def stop(self) -> None:
        """Let the run in progress end, or cancel it after `stop_seconds`."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self._wake.set()
        done, _ = await asyncio.wait((task,), timeout=self._stop_seconds)
        if not done:
            _log.warning("loop_cancelled", extra={"loop": self.name})
            await cancelled(task)

    def nudge(self) -> None:
        """Cut the pause short; during a run, another one follows. A backoff is not cut short."""
        self._wake.set()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            started = time.perf_counter()
            has_more = False
            try:
                with telemetry.span(f"loop {self.name}", may_last=True):
                    result = await self._run_once(self._clock.now())
            except Exception as error:
                took = time.perf_counter() - started
                metrics.looped(self.name, "error").observe(took)
                self._failed(error)
            else:
                took = time.perf_counter() - started
                metrics.looped(self.name, "ok").observe(took)
                if self._failures:
                    extra = {"loop": self.name, "failures": self._failures}
                    _log.info("loop_recovered", extra=extra)
                    self._failures = 0
                if _log.isEnabledFor(logging.DEBUG) and is_dataclass(result):
                    counts = {} if isinstance(result, type) else asdict(result)
                    _log.debug("loop_ran", extra={"loop": self.name, "result": counts})
                has_more = bool(getattr(result, "has_more", False))
            if self._failures:
                await self._pause(self._stopping, self._backoff_seconds())
            elif not has_more:
                gap = min(took, LONGEST_NUDGE_GAP_SECONDS, self._interval_seconds)
                await self._pause(self._stopping, gap)
                await self._pause(self._wake, self._interval_seconds)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._longest_backoff_seconds = (
            LONGEST_BACKOFF_WHILE_UNAVAILABLE_SECONDS
            if isinstance(error, Unavailable)
            else LONGEST_BACKOFF_SECONDS
        )
        level = logging.ERROR if self._failures == 1 else logging.DEBUG
        cause = None if isinstance(error, ServiceError) else error
        _log.log(
            level,
            "loop_failed",
            exc_info=cause,
            extra={"loop": self.name, "failures": self._failures, "error": _named(error)},
        )

    def _backoff_seconds(self) -> float:
        first = max(self._interval_seconds, 0.1)
        backoff = Backoff(first, max(first, self._longest_backoff_seconds), jitter=(0.8, 1.2))
        return backoff.delay_seconds(self._failures)

    @staticmethod
    async def _pause(until: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until.wait()


def run(build: Callable[[S], Service | Awaitable[Service]], settings_class: type[S]) -> None:
    """Run the service that `build` makes until SIGTERM or SIGINT, then exit the process.

    `build` is called in the running event loop. Exit codes: 0 after a clean stop, 78 when a
    setting is wrong, 1 when the service cannot start, or does not stop within `drain_seconds` and
    `STOP_SLACK_SECONDS`. Logs `listening` with the service's `address` once it serves.
    """
    try:
        settings = settings_class()
    except ValidationError as error:
        sys.stderr.write(f"cannot start: {_problems(error, settings_class)}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    name = build.__module__.removesuffix(".app").rpartition(".")[2]
    try:
        telemetry.configure(name, settings)
    except ValueError as error:
        sys.stderr.write(f"cannot start: {error}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    code = uvloop.run(_serve(build, settings))
    telemetry.shutdown()
    sys.exit(code)


async def _serve(build: Callable[[S], Service | Awaitable[Service]], settings: S) -> int:
    stop_wanted = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_wanted.set)
    try:
        endpoint = telemetry.serve_metrics(settings)
        built = build(settings)
        service = await built if inspect.isawaitable(built) else built
        starting, stopping = (
            asyncio.create_task(service.start()),
            asyncio.create_task(stop_wanted.wait()),
        )
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, stopping):
            await cancelled(task)
        if not starting.cancelled():
            starting.result()
    except Exception as error:
        cause = None if isinstance(error, ServiceError | OSError) else error
        _log.error("start_failed", exc_info=cause, extra={"error": _named(error)})
        return EXIT_FAILED
    if not stop_wanted.is_set():
        where = service.address if isinstance(service, Listening) else ""
        _log.info("listening", extra={"address": where, "metrics": endpoint and endpoint.address})
        await stop_wanted.wait()
    _log.info("stopping")
    code = 0
    try:
        async with asyncio.timeout(settings.drain_seconds + STOP_SLACK_SECONDS):
            await service.stop()
    except Exception as error:
        _log.error("stop_failed", exc_info=error)
        code = EXIT_FAILED
    else:
        _log.info("stopped")
    if endpoint is not None:
        endpoint.close()
    return code


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and return when it has ended, whatever its result.

    The task is cancelled again until it ends: up to Python 3.11 `asyncio.wait_for`, which redis-py
    uses, loses a cancellation that comes when its awaitable is done (CPython issue 86296).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCELLED_AGAIN_SECONDS)


def _problems(error: ValidationError, settings_class: type[ServiceSettings]) -> str:
    """Return, in one line, which variables are wrong; never their values."""
    problems = []
    for part in error.errors(include_input=False, include_url=False, include_context=False):
        name, message = str(part["loc"][0]) if part["loc"] else "", part["msg"]
        info = settings_class.model_fields.get(name, FieldInfo())
        alias = info.validation_alias if isinstance(info.validation_alias, str) else None
        variable = alias or f"{settings_class.model_config.get('env_prefix', '')}{name}".upper()
        problem = "is not set" if message == "Field required" else f"is not valid: {message}"
        about = f" ({info.description})" if info.description else ""
        problems.append(f"{variable} {problem}{about}")
    return "; ".join(problems)


def _named(error: Exception) -> str:
    return str(error) if isinstance(error, ServiceError | OSError) else type(error).__name__
