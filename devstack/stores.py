"""The stores of the overlay `local` in one pod: a main app with people, PostgreSQL, Redis and SQS.

`python -m devstack.stores` runs until SIGTERM. It is what `make run` has, for clusters on one
machine: nothing here is fit for production, and the accounts are those of `devstack.accounts`.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import threading
from pathlib import Path

from devstack.mainapp_database import MainAppDatabase
from devstack.processes import HOST, ChildProcess
from devstack.queues import SqsEndpoint, SqsQueue
from devstack.seed import seed
from devstack.servers import MariaDB, PostgreSQL, Redis

PORTS = {"mariadb": 3306, "postgres": 5432, "redis": 6379, "sqs": 9324}
"""Names and ports by which the overlay knows them."""
ANYWHERE = "0.0.0.0"  # noqa: S104 - in its own pod, behind a NetworkPolicy
MAIN_APP = "mainapp"
DIALLER = "dialler"
QUEUE = "dialler-changes"


def start(folder: Path, users: int) -> list[MariaDB | PostgreSQL | Redis | ChildProcess]:
    """Start all and return them; people and databases are made if they are not there.

    The SQS endpoint begins to listen when the others are ready: a probe need ask only for its port.
    """
    mariadb = MariaDB(folder / "mariadb", port=PORTS["mariadb"], buffer_pool_bytes=256 << 20)
    postgres = PostgreSQL(folder / "postgres", port=PORTS["postgres"])
    redis = Redis(folder / "redis", port=PORTS["redis"], maxmemory_bytes=64 << 20)
    for server in (mariadb, postgres, redis):
        server.listens_on = ANYWHERE
        server.start()
    postgres.create_database(DIALLER)
    marker = folder / "main_app"
    if not marker.exists():
        MainAppDatabase(mariadb, MAIN_APP).drop()
        MainAppDatabase.create(mariadb, MAIN_APP)
        seed(mariadb.url(MAIN_APP, user="admin", driver="mysql+pymysql"), users)
        marker.touch()
    sqs = ChildProcess("sqs", "devstack.sqs", folder / "sqs.log")
    sqs.arguments = ("--host", ANYWHERE, "--port", str(PORTS["sqs"]))
    sqs.start()
    sqs.wait_ready(_sqs_listens)
    endpoint = SqsEndpoint(f"http://{HOST}:{PORTS['sqs']}")
    with contextlib.closing(endpoint.client()) as client:
        SqsQueue.create(endpoint, client, QUEUE)
    return [mariadb, postgres, redis, sqs]


def _sqs_listens() -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, PORTS["sqs"]), timeout=1):
        return True
    return False


def main() -> None:
    """Serve until SIGTERM; raises `DidNotStart` with the end of the log of what did not start."""
    parser = argparse.ArgumentParser(prog="python -m devstack.stores", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/data"))
    parser.add_argument("--users", type=int, default=2000, help="people of the main app")
    arguments = parser.parse_args()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    running = start(arguments.folder, arguments.users)
    print(f"{arguments.users} people; {', '.join(PORTS)} listen.", flush=True)
    stopping.wait()
    for each in reversed(running):
        each.stop()


if __name__ == "__main__":
    main()
