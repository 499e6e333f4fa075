"""The whole suite on this machine: servers, services and gateway as child processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.mainapp_database import MainAppDatabase
from devstack.names import NameServer
from devstack.postgres_database import PostgresDatabase
from devstack.processes import HOST, ChildProcess, free_port
from devstack.queues import REGION, SqsEndpoint, SqsQueue
from devstack.rules import write_rules
from devstack.seed import seed
from devstack.servers import MariaDB, PostgreSQL, Redis
from servicekit.migrations import upgrade

MAIN_APP = "mainapp"
DIALLER = "dialler"
OWNS_TABLES = ("user_context", "queue", "binlog_relay", "reconciler")
SERVICES = ("user_context", "queue", "reconciler", "cdc_ingest", "binlog_relay")
PREFERRED_GATEWAY_PORT = 8080

Report = Callable[[str], None]


@dataclass(frozen=True)
class Addresses:
    """Where everything of a running stack answers; written to ``stack.json`` for `make demo`."""

    gateway: str
    mysql_writer: str
    mysql_reader: str
    mysql_relay: str
    postgres: str
    redis: str
    sqs_endpoint: str
    sqs_queue: str
    sqs_dlq: str
    grpc: dict[str, str]
    jwt_secret: str
    hosts: Sequence[str] = (HOST,)
    """Of the copies of each service, which all have its port."""
    other_gateways: Sequence[str] = ()
    """Of the copies of the gateway after the first."""

    @property
    def gateways(self) -> list[str]:
        """Of every copy of the gateway."""
        return [self.gateway, *self.other_gateways]

    def copies_of(self, name: str) -> list[str]:
        """Return the address of each copy of a service."""
        port = self.grpc[name].rpartition(":")[2]
        return [f"{host}:{port}" for host in self.hosts]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the addresses of the stack that runs in ``folder``.

        Raises:
            FileNotFoundError: none runs there.
        """
        return cls(**json.loads((folder / "stack.json").read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        """Write them, readable by the owner only: they hold the local passwords."""
        path = folder / "stack.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")


@dataclass
class Stack:
    """Private servers in ``folder`` and every service of the suite.

    ``durable`` makes the servers flush as production ones do. ``extra_environment`` goes to every
    service. Of several ``copies`` each has an address of its own, and the services find one another
    by DNS. Use as a context manager, from the main thread.
    """

    folder: Path
    users: int
    seed: int = 1
    durable: bool = True
    copies: int = 1
    preferred_gateway_port: int | None = None
    preferred_sqs_port: int | None = None
    extra_environment: Mapping[str, str] = field(default_factory=dict)
    report: Report = print
    progress: Callable[[int, int], None] | None = None
    services: dict[str, ChildProcess] = field(default_factory=dict)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all, servers first, and return when every service is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start_servers()
        self._prepare_data()
        self.addresses = self._addresses()
        self._start_services()
        self.addresses.save(self.folder)

    def stop(self) -> None:
        """Stop all, services first; safe to call twice and after a failed start."""
        (self.folder / "stack.json").unlink(missing_ok=True)
        for process in reversed(self.services.values()):
            process.stop()
        self._names.close()
        for server in (self.sqs, self.redis, self.postgres, self.mariadb):
            server.stop()

    def __post_init__(self) -> None:
        self.mariadb = MariaDB(self.folder / "mariadb", durable=self.durable)
        self.postgres = PostgreSQL(self.folder / "postgres", durable=self.durable)
        self.redis = Redis(self.folder / "redis")
        self._names = contextlib.ExitStack()
        self._sqs_port = 0
        self.sqs = ChildProcess("sqs", "devstack.sqs", self.logs / "sqs.log")

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.folder / "logs"

    def _start_servers(self) -> None:
        self.report("Starting MariaDB, PostgreSQL, Redis and the SQS endpoint ...")
        self.mariadb.start()
        self.postgres.start()
        self.redis.start()
        self._sqs_port = free_port(self.preferred_sqs_port)
        self.sqs.arguments = ("--port", str(self._sqs_port))
        self.sqs.start()
        self.sqs.wait_ready(lambda: _answers(f"http://127.0.0.1:{self._sqs_port}/"))

    def _prepare_data(self) -> None:
        self.main_app = MainAppDatabase(self.mariadb, MAIN_APP)
        self._fill_main_app()
        self.postgres.create_database(DIALLER)
        self.report("Bringing the dialler's own tables up to date ...")
        asyncio.run(self._migrate())
        endpoint = SqsEndpoint(self._sqs_endpoint)
        with contextlib.closing(endpoint.client()) as client:
            self._queue = SqsQueue.create(endpoint, client, "dialler-changes")

    def _fill_main_app(self) -> None:
        """Make the main app's people, unless the same are there from the last time."""
        marker = self.folder / "main_app.json"
        wanted = json.dumps({"users": self.users, "seed": self.seed})
        if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
            return
        marker.unlink(missing_ok=True)
        self.main_app.drop()
        MainAppDatabase.create(self.mariadb, MAIN_APP)
        # What the dialler knew is about people who are gone.
        PostgresDatabase(self.postgres, DIALLER).drop()
        # As the administrator, who may keep what was there before us out of the binlog.
        url = self.mariadb.url(MAIN_APP, user="admin", driver="mysql+pymysql")
        seed(url, self.users, self.seed, self.progress)
        marker.write_text(wanted, encoding="utf-8")

    async def _migrate(self) -> None:
        for name in OWNS_TABLES:
            await upgrade(self.postgres.url(DIALLER), package=f"services.{name}", schema=name)

    @property
    def _sqs_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._sqs_port}"

    def _addresses(self) -> Addresses:
        port = free_port(self.preferred_gateway_port)
        others = [free_port(port + copy) for copy in range(1, self.copies)]
        hosts = copy_hosts(self.copies)
        return Addresses(
            gateway=f"http://{HOST}:{port}",
            mysql_writer=self.main_app.writer_url,
            mysql_reader=self.main_app.url,
            mysql_relay=self.main_app.relay_url,
            postgres=self.postgres.url(DIALLER),
            redis=self.redis.url(),
            sqs_endpoint=self._sqs_endpoint,
            sqs_queue=self._queue.url,
            sqs_dlq=self._queue.dlq_url,
            grpc=self._names.enter_context(service_targets(hosts)),
            jwt_secret=secrets.token_hex(32),
            hosts=hosts,
            other_gateways=[f"http://{HOST}:{each}" for each in others],
        )

    def _start_services(self) -> None:
        self.report("Starting the services ...")
        rules = {"QUEUE_RULES_PATH": str(write_rules(self.folder / "queue_rules.yaml"))}
        more = rules | dict(self.extra_environment)
        for name in SERVICES:
            self.services |= service_processes(name, self.addresses, self.logs, more)
        self.services |= gateway_processes(self.addresses, self.logs, more)
        for process in self.services.values():
            process.start()
        for name in (*SERVICES, "gateway"):
            self.wait_ready(name)

    def copies_of(self, name: str) -> list[ChildProcess]:
        """Return the processes of a service or of the gateway."""
        return [it for it in self.services.values() if it.name.partition("-")[0] == name]

    def is_ready(self, name: str) -> bool:
        """Whether every copy of a service says that it is ready."""
        return all(map(is_serving, self.addresses.copies_of(name)))

    def wait_ready(self, name: str) -> None:
        """Return once every copy says that it is ready; `DidNotStart` when one does not."""
        if name == "gateway":
            checks = [partial(_is_gateway_ready, it) for it in self.addresses.gateways]
        else:
            checks = [partial(is_serving, it) for it in self.addresses.copies_of(name)]
        for process, check in zip(self.copies_of(name), checks, strict=True):
            process.wait_ready(check)

    def kill(self, name: str) -> None:
        """Kill every copy of a service."""
        for process in self.copies_of(name):
            process.kill()

    def restart(self, name: str) -> None:
        """Start copies that have ended, and return when the gateway reaches all of them again."""
        for process in self.copies_of(name):
            process.start()
        self.wait_ready(name)
        self.wait_ready("gateway")

    def revive(self) -> list[str]:
        """Start services again that have ended by themselves; return their names."""
        ended = [name for name, process in self.services.items() if not process.is_running]
        for name in ended:
            self.services[name].start()
        return ended


def copy_hosts(copies: int) -> list[str]:
    """Return an address for each copy: the usual one for one copy, else of 127.0.1.0/24."""
    return [HOST] if copies == 1 else [f"127.0.1.{number}" for number in range(1, copies + 1)]


@contextlib.contextmanager
def service_targets(hosts: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield a gRPC target for each service: a name in DNS where there are several hosts."""
    ports = {name: free_port() for name in SERVICES}
    if len(hosts) == 1:
        yield {name: f"{hosts[0]}:{port}" for name, port in ports.items()}
        return
    with NameServer(hosts) as names:
        yield {name: names.target(name, port) for name, port in ports.items()}


def service_processes(
    name: str, addresses: Addresses, logs: Path, more: Mapping[str, str]
) -> dict[str, ChildProcess]:
    """Return the copies of a service by name, not started; `more` are further variables."""
    environments = [service_environment(name, addresses, host) for host in addresses.hosts]
    return _copies(name, f"services.{name}", logs, environments, more)


def gateway_processes(
    addresses: Addresses, logs: Path, more: Mapping[str, str]
) -> dict[str, ChildProcess]:
    """Return the copies of the gateway by name, not started."""
    environments = [gateway_environment(addresses, each) for each in addresses.gateways]
    return _copies("gateway", "gateway", logs, environments, more)


def _copies(
    name: str,
    module: str,
    logs: Path,
    environments: Sequence[Mapping[str, str]],
    more: Mapping[str, str],
) -> dict[str, ChildProcess]:
    """Return a process for each environment, `name`, `name-2` and so on."""
    names = [name, *(f"{name}-{number}" for number in range(2, len(environments) + 1))]
    return {
        each: ChildProcess(each, module, logs / f"{each}.log", environment={**environment, **more})
        for each, environment in zip(names, environments, strict=True)
    }


def service_environment(name: str, addresses: Addresses, host: str = HOST) -> dict[str, str]:
    """Return the variables of one gRPC service that listens on a host."""
    prefix = name.upper()
    port = addresses.grpc[name].rpartition(":")[2]
    aws = {
        "SQS_ENDPOINT_URL": addresses.sqs_endpoint,
        "SQS_QUEUE_URL": addresses.sqs_queue,
        "AWS_REGION": REGION,
    }
    targets = {f"{other.upper()}_TARGET": address for other, address in addresses.grpc.items()}
    own = {
        "user_context": {
            "MYSQL_URL": addresses.mysql_reader,
            "POSTGRES_URL": addresses.postgres,
            "REDIS_URL": addresses.redis,
        },
        "queue": {"POSTGRES_URL": addresses.postgres, "REDIS_URL": addresses.redis},
        "reconciler": {"POSTGRES_URL": addresses.postgres},
        "cdc_ingest": aws | {"SQS_DLQ_URL": addresses.sqs_dlq},
        "binlog_relay": aws
        | {"MYSQL_URL": addresses.mysql_relay, "POSTGRES_URL": addresses.postgres},
    }[name]
    values = own | targets | {"GRPC_PORT": port, "BIND_HOST": host}
    return _aws_credentials() | {f"{prefix}_{key}": value for key, value in values.items()}


def gateway_environment(addresses: Addresses, url: str) -> dict[str, str]:
    """Return the variables of the gateway that answers at a URL."""
    targets = {f"{name.upper()}_TARGET": address for name, address in addresses.grpc.items()}
    values = targets | {
        "REDIS_URL": addresses.redis,
        "JWT_SECRET": addresses.jwt_secret,
        "HTTP_PORT": url.rpartition(":")[2],
    }
    return {f"GATEWAY_{key}": value for key, value in values.items()}


def _aws_credentials() -> dict[str, str]:
    # boto3 signs every request; the local endpoint does not look.
    return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


def is_serving(target: str) -> bool:
    """Whether the gRPC server at ``target`` answers its health check with SERVING."""
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _is_gateway_ready(url: str) -> bool:
    return _answers(f"{url}/readyz")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code < 500
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
    """Return once ``condition()``; `TimeoutError` naming ``what`` when the time runs out."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_seconds:.0f} s")
        time.sleep(0.05)


def default_folder() -> Path:
    """The folder of `make run`: DIALLER_STACK_FOLDER, else ``.stack`` in the checkout."""
    named = os.environ.get("DIALLER_STACK_FOLDER")
    return Path(named) if named else Path(__file__).parent.parent / ".stack"
