"""A gRPC server with health, reflection and a graceful stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import grpc.aio
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from servicekit.errors import ServiceError, Unavailable
from servicekit.lifecycle import cancelled
from servicekit.served_methods import Admission, OpenStreams, ServedMethods
from servicekit.settings import ServiceSettings

LIVENESS = "live"
READINESS_INTERVAL_SECONDS = 1.0
READINESS_TIMEOUT_SECONDS = 1.0
# For the last health status to reach its watchers.
LAST_HEALTH_SECONDS = 0.1

Register = Callable[[grpc.aio.Server], None]
Readiness = Mapping[str, Callable[[], Awaitable[object]]]

# Connections end after 90 s (gRPC adds jitter), so that clients resolve the name again and find new
# pods. Streams on an ended connection may go on for the grace. Clients may ping every 20 s.
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_age_ms", 90_000),
    ("grpc.max_connection_age_grace_ms", 600_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_log = logging.getLogger(__name__)


class GrpcServer:
    """Serves what `register` adds.

    Health: the service `live` is SERVING as long as the process answers; "" and each of
    `service_names` are SERVING while every check in `readiness` returns without raising.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        name: str,
        register: Register,
        service_names: Sequence[str],
        readiness: Readiness | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._register = register
        self._service_names = tuple(service_names)
        self._health = _Health(("", *self._service_names), readiness or {})
        self._streams = OpenStreams()
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the start."""
        return self._port

    @property
    def address(self) -> str:
        """The address it listens on, as host:port."""
        return f"{self._settings.bind_host}:{self._port}"

    async def start(self) -> None:
        """Listen and serve; raises Unavailable (ADDRESS_TAKEN) if the address is in use."""
        methods = ServedMethods(
            self._settings.default_deadline_seconds,
            Admission(self._settings.max_concurrent_calls),
            self._streams,
        )
        self._server = server = grpc.aio.server(options=OPTIONS)
        # Generated code calls no other method of a server than those to add services.
        registry = cast(grpc.aio.Server, methods)
        self._register(registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, registry)
        names = (*self._service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = reflection_aio.ReflectionServicer(service_names=names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, registry)
        server.add_generic_rpc_handlers((methods,))
        wanted = f"{self._settings.bind_host}:{self._settings.grpc_port}"
        try:
            self._port = server.add_insecure_port(wanted)
        except RuntimeError:
            raise Unavailable("ADDRESS_TAKEN", f"cannot listen on {wanted}") from None
        await self._health.start()
        await server.start()

    async def stop(self) -> None:
        """Report NOT_SERVING, take no new calls, and give calls in progress `drain_seconds`.

        Streams whose caller set no deadline end with Unavailable (SERVER_STOPPING).
        """
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.stop()
        stopping = asyncio.ensure_future(server.stop(self._settings.drain_seconds))
        # Watchers of our health receive NOT_SERVING before their stream ends.
        await asyncio.wait((stopping,), timeout=LAST_HEALTH_SECONDS)
        self._streams.end()
        await stopping


class _Health:
    """Runs the readiness checks about once a second and publishes the health status."""

    def __init__(self, names: Sequence[str], checks: Readiness) -> None:
        self.servicer = health_aio.HealthServicer()
        self._names = names
        self._checks = checks
        self._failing: dict[str, str] | None = None
        self._poll: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.servicer.set(LIVENESS, _SERVING)
        await self._publish(_NOT_SERVING if self._checks else _SERVING)
        if self._checks:
            self._poll = asyncio.create_task(self._run(), name="readiness")

    async def stop(self) -> None:
        if self._poll is not None:
            await cancelled(self._poll)
        await self._publish(_NOT_SERVING)

    async def _run(self) -> None:
        while True:
            causes = await asyncio.gather(*map(self._failure_of, self._checks))
            failing = {
                name: cause
                for name, cause in zip(self._checks, causes, strict=True)
                if cause is not None
            }
            if failing != self._failing:
                self._failing = failing
                await self._publish(_NOT_SERVING if failing else _SERVING)
                if failing:
                    _log.warning("not_ready", extra={"failing": failing})
                else:
                    _log.info("ready")
            await asyncio.sleep(READINESS_INTERVAL_SECONDS)

    async def _failure_of(self, name: str) -> str | None:
        """Return the reason, or the type, of the check's error; None when it succeeds."""
        try:
            async with asyncio.timeout(READINESS_TIMEOUT_SECONDS):
                await self._checks[name]()
        except Exception as error:
            _log.debug("readiness_check_failed", exc_info=error, extra={"check": name})
            return error.reason if isinstance(error, ServiceError) else type(error).__name__
        return None

    async def _publish(self, status: int) -> None:
        for name in self._names:
            await self.servicer.set(name, status)
