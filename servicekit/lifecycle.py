"""From the command line to a running service and back: start, signals, one stop; and loops."""

import asyncio
import contextlib
import inspect
import logging
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar, runtime_checkable

import uvloop
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from servicekit import deadline, metrics, telemetry
from servicekit.clock import Clock
from servicekit.errors import ServiceError
from servicekit.settings import ServiceSettings

EXIT_BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h
EXIT_FAILED = 1
# For closing what calls in progress were using, after the drain.
STOP_SLACK_SECONDS = 2.0
LONGEST_BACKOFF_SECONDS = 30.0
# From the end of a run to the next that a nudge asks for: under a stream of nudges a run is for
# many of them, while one after a silence is answered at once.
NUDGE_GAP_SECONDS = 0.02

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
    """A service that can say where it listens."""

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        ...


class Parts:
    """One service made of several: started in order, stopped in reverse.

    When a part fails to start, those before it are stopped. `address` is the first part's that
    has one. Something that only has to be closed joins as `Closing`.
    """

    def __init__(self, *parts: Service) -> None:
        self._parts = parts
        self._started: list[Service] = []

    @property
    def address(self) -> str:
        """Where the first listening part listens."""
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
        """Stop what was started, last first; one part's failure is logged and spares the rest."""
        while self._started:
            part = self._started.pop()
            try:
                await part.stop()
            except Exception:
                _log.exception("stop_failed", extra={"part": type(part).__name__})


class Closing:
    """A part whose start is nothing and whose stop is `close`, such as a channel or an engine."""

    def __init__(self, close: Callable[[], Awaitable[object]]) -> None:
        self._close = close

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Close it."""
        await self._close()


class Loop:
    """Runs `run_once(now)` again and again: at once, then `interval_seconds` after each run.

    A result whose `has_more` is true is followed by the next run without a pause. An exception
    never ends the loop: the first of a row is logged, and the pause doubles with each. Runs have
    no deadline but those they set. As a part it is started and stopped like any service.
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

    @property
    def failures(self) -> int:
        """How many runs in a row have failed, up to the last."""
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
            task.cancel()
            await asyncio.wait((task,))

    def nudge(self) -> None:
        """Cut the pause short; during a run, another one follows. A backoff is not cut short."""
        self._wake.set()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            has_more = await self._guarded()
            if self._failures:
                await self._pause(self._stopping, self._backoff_seconds())
            elif not has_more:
                await self._pause(self._stopping, min(NUDGE_GAP_SECONDS, self._interval_seconds))
                await self._pause(self._wake, self._interval_seconds)

    async def _guarded(self) -> bool:
        started = time.perf_counter()
        try:
            with telemetry.span(f"loop {self.name}", may_last=True):
                result = await self._run_once(self._clock.now())
        except Exception as error:
            metrics.looped(self.name, "error").observe(time.perf_counter() - started)
            self._failed(error)
            return False
        metrics.looped(self.name, "ok").observe(time.perf_counter() - started)
        self._succeeded(result)
        return bool(getattr(result, "has_more", False))

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        level = logging.ERROR if self._failures == 1 else logging.DEBUG
        cause = None if isinstance(error, ServiceError) else error
        _log.log(
            level,
            "loop_failed",
            exc_info=cause,
            extra={"loop": self.name, "failures": self._failures, "error": _named(error)},
        )

    def _succeeded(self, result: object) -> None:
        if self._failures:
            _log.info("loop_recovered", extra={"loop": self.name, "failures": self._failures})
            self._failures = 0
        if _log.isEnabledFor(logging.DEBUG) and is_dataclass(result):
            counts = {} if isinstance(result, type) else asdict(result)
            _log.debug("loop_ran", extra={"loop": self.name, "result": counts})

    def _backoff_seconds(self) -> float:
        base = max(self._interval_seconds, 0.1)
        seconds = min(LONGEST_BACKOFF_SECONDS, base * 2.0 ** min(self._failures - 1, 16))
        # Copies that failed together should not come back together.
        return max(base, seconds) * random.uniform(0.8, 1.2)  # noqa: S311

    @staticmethod
    async def _pause(until: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until.wait()


def run(build: Callable[[S], Service | Awaitable[Service]], settings_class: type[S]) -> None:
    """Run the service that `build` makes until SIGTERM or SIGINT, then exit the process.

    `build` is called inside the running event loop. Exit codes: 0 after a clean stop, 78 when a
    setting is wrong, 1 when the service cannot start or does not stop within `drain_seconds` and
    a little more. Logs `listening` with the service's `address` once it serves.
    """
    try:
        settings = settings_class()
    except ValidationError as error:
        sys.exit(_complain(error, settings_class))
    name = build.__module__.removesuffix(".app").rpartition(".")[2]
    telemetry.configure(name, settings)
    code = uvloop.run(_live(build, settings))
    telemetry.shutdown()
    sys.exit(code)


async def _live(build: Callable[[S], Service | Awaitable[Service]], settings: S) -> int:
    stop_wanted = _stop_signals()
    try:
        endpoint = telemetry.serve_metrics(settings)
        built = build(settings)
        service = await built if inspect.isawaitable(built) else built
        await _first(service.start(), stop_wanted.wait())
    except Exception as error:
        cause = None if isinstance(error, ServiceError | OSError) else error
        _log.error("start_failed", exc_info=cause, extra={"error": _named(error)})
        return EXIT_FAILED
    if not stop_wanted.is_set():
        where = service.address if isinstance(service, Listening) else ""
        _log.info("listening", extra={"address": where, "metrics": endpoint and endpoint.address})
        await stop_wanted.wait()
    _log.info("stopping")
    code = await _stop(service, settings.drain_seconds)
    if endpoint is not None:
        endpoint.close()
    return code


def _stop_signals() -> asyncio.Event:
    wanted = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, wanted.set)
    return wanted


async def _first(work: Coroutine[Any, Any, object], other: Coroutine[Any, Any, object]) -> None:
    """Return when either is done and cancel the other; raises what `work` raised."""
    tasks = (asyncio.create_task(work), asyncio.create_task(other))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    if not tasks[0].cancelled():
        tasks[0].result()


async def _stop(service: Service, drain_seconds: float) -> int:
    try:
        async with asyncio.timeout(drain_seconds + STOP_SLACK_SECONDS):
            await service.stop()
    except Exception as error:
        _log.error("stop_failed", exc_info=error)
        return EXIT_FAILED
    _log.info("stopped")
    return 0


def _complain(error: ValidationError, settings_class: type[ServiceSettings]) -> int:
    """Say on stderr, in one line, which variables are wrong; never what they were set to."""
    wrong = "; ".join(
        _one_complaint(str(part["loc"][0]) if part["loc"] else "", part["msg"], settings_class)
        for part in error.errors(include_input=False, include_url=False, include_context=False)
    )
    sys.stderr.write(f"cannot start: {wrong}\n")
    return EXIT_BAD_SETTINGS


def _one_complaint(name: str, message: str, settings_class: type[ServiceSettings]) -> str:
    info = settings_class.model_fields.get(name, FieldInfo())
    alias = info.validation_alias if isinstance(info.validation_alias, str) else None
    variable = alias or f"{settings_class.model_config.get('env_prefix', '')}{name}".upper()
    problem = "is not set" if message == "Field required" else f"is not valid: {message}"
    about = f" ({info.description})" if info.description else ""
    return f"{variable} {problem}{about}"


def _named(error: Exception) -> str:
    return str(error) if isinstance(error, ServiceError | OSError) else type(error).__name__
