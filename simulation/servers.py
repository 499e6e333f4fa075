"""Private servers with a main app full of people, and the services that decide nothing by time.

`user_context`, `cdc_ingest`, `binlog_relay` and `reconciler` run as processes on the real clock:
theirs is the work of moving what MySQL says, and the binlog, SQS and the caches know real time
only. The queue, which decides by time, runs in simulated time in the simulation's own process.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.processes import ChildProcess
from devstack.queues import SqsQueue, running_sqs_endpoint
from devstack.seed import seed
from devstack.servers import MariaDB, PostgreSQL, Redis, Server
from devstack.stack import (
    OWNS_TABLES,
    Addresses,
    copy_hosts,
    is_serving,
    service_processes,
    service_targets,
)
from servicekit.migrations import upgrade
from simulation.phone_fields import respell
from simulation.plan import Plan

ON_THE_REAL_CLOCK = ("user_context", "reconciler", "cdc_ingest", "binlog_relay")
# The machine has other things to do than to answer within a second.
_PATIENCE = {
    "USER_CONTEXT_MYSQL_LIVE_SECONDS": "5",
    "USER_CONTEXT_MYSQL_BULK_SECONDS": "15",
    "USER_CONTEXT_POSTGRES_SECONDS": "5",
    "BINLOG_RELAY_SAVE_INTERVAL_SECONDS": "0.25",
    # Its clock is not the simulation's: it does what it is asked to.
    "RECONCILER_WATCH_SECONDS": "86400",
}


@dataclass(frozen=True)
class Servers:
    """Where everything is that the simulation does not run itself."""

    addresses: Addresses
    main_app: MainAppDatabase
    # For an account that may keep what it writes out of the binlog.
    unlogged_url: str


@contextmanager
def running_servers(plan: Plan) -> Iterator[Servers]:
    """Start everything but the queue; every person is in MySQL, none in the queue."""
    folder = Path(tempfile.mkdtemp(prefix="dialler-simulation-"))
    # The account postgres must be able to enter.
    folder.chmod(0o711)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        mariadb = MariaDB(folder / "mariadb", durable=False)
        postgres = PostgreSQL(folder / "postgres", durable=False)
        redis = Redis(folder / "redis")
        for server in (mariadb, postgres, redis):
            _start(stack, server)
        main_app = MainAppDatabase.create(mariadb)
        admin_url = mariadb.url(main_app.name, user="admin", driver="mysql+pymysql")
        seed(admin_url, plan.people, plan.seed, until=plan.begins)
        respell(admin_url, plan.seed)
        database = PostgresDatabase.create(postgres)
        asyncio.run(_migrate(database.url))
        endpoint = stack.enter_context(running_sqs_endpoint())
        client = stack.enter_context(closing(endpoint.client()))
        queue = SqsQueue.create(endpoint, client)
        hosts = copy_hosts(plan.copies)
        addresses = Addresses(
            gateway="",
            mysql_writer=main_app.writer_url,
            mysql_reader=main_app.url,
            mysql_relay=main_app.relay_url,
            postgres=database.url,
            redis=redis.url(),
            sqs_endpoint=endpoint.url,
            sqs_queue=queue.url,
            sqs_dlq=queue.dlq_url,
            grpc=stack.enter_context(service_targets(hosts)),
            jwt_secret="",
            hosts=hosts,
        )
        _start_services(stack, plan.logs or folder, addresses)
        yield Servers(addresses, main_app, admin_url)


def _start(stack: ExitStack, server: Server) -> None:
    server.start()
    stack.callback(server.discard)


async def _migrate(url: str) -> None:
    for name in OWNS_TABLES:
        await upgrade(url, package=f"services.{name}", schema=name)


def _start_services(stack: ExitStack, folder: Path, addresses: Addresses) -> None:
    started: list[tuple[ChildProcess, str]] = []
    for name in ON_THE_REAL_CLOCK:
        processes = service_processes(name, addresses, folder, _PATIENCE)
        for process in processes.values():
            process.start()
            stack.callback(process.stop)
        started += zip(processes.values(), addresses.copies_of(name), strict=True)
    for process, address in started:
        process.wait_ready(partial(is_serving, address))
