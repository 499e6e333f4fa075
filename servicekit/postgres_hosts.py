"""Connections to PostgreSQL: of several hosts, to the one that takes writes."""

import asyncio
import logging
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import make_url

from servicekit.database_failures import failure_of

CONNECT_SECONDS: Final = 3.0

_log = logging.getLogger(__name__)

# The parts before and after the hosts: a URL of SQLAlchemy has one host only.
_PARTS = re.compile(r"(?P<before>[^:/]+://(?:[^:/@]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<after>.*)")
_HOST = re.compile(r"(?P<host>\[[^]]*]|[^:]*)(?::(?P<port>\d+))?")
# Every service writes, so sessions on a standby would be of no use.
_TARGETS: Final = ("read-write", "primary", "any")


class PostgresHosts:
    """The hosts of an address, tried in turn; the last that answered is tried first.

    An address is `postgresql://user:password@host:port,host:port/database`, as libpq takes it, or
    has its hosts as `?host=host:port&host=host:port`. A host that does not answer delays one
    connection by its time limit, not each of them.

    TLS is set as for libpq: `sslmode`, `sslrootcert`, `sslcert` and `sslkey` in the address, or
    PGSSLMODE, PGSSLROOTCERT, PGSSLCERT and PGSSLKEY in the environment.
    """

    def __init__(self, url: str, *, default_target: str = "read-write") -> None:
        """`default_target` is the `target_session_attrs` of a `url` that has none.

        Raises ValueError for an address that is not one of PostgreSQL, or names no such target.
        """
        self._addresses, query = _addresses(url)
        self.target = query.get("target_session_attrs", default_target)
        if self.target not in _TARGETS:
            raise ValueError(f"target_session_attrs must be one of {', '.join(_TARGETS)}")
        # libpq's word for the time limit of a connection to one host.
        named = query.get("connect_timeout")
        self._seconds = None if named is None else float(named)
        self._latest = 0

    async def connect(self, *, timeout: float = CONNECT_SECONDS, **arguments: Any) -> Any:
        """Return a connection of asyncpg's; `timeout` is for each host, in seconds, unless the
        address has a `connect_timeout`.

        Raises OSError or asyncpg's errors; of several errors, one that another try would not cure,
        such as a wrong password. A host that takes no writes counts as SQLSTATE 25006.
        """
        count = len(self._addresses)
        failed: Exception | None = None
        refused: Exception | None = None
        for place in ((self._latest + step) % count for step in range(count)):
            try:
                connection = await asyncpg.connect(
                    self._addresses[place],
                    timeout=self._seconds or timeout,
                    target_session_attrs=self.target,
                    **arguments,
                )
            except asyncpg.TargetServerAttributeNotMatched:
                failed = asyncpg.ReadOnlySQLTransactionError("the server takes no writes")
            except TimeoutError:
                failed = ConnectionError("PostgreSQL is silent")
            except (ssl.SSLError, FileNotFoundError) as error:
                # A wrong certificate looks like a network that fails; only this tells them apart.
                why = getattr(error, "verify_message", getattr(error, "reason", "no such file"))
                _log.error("postgres_tls_failed", extra={"tls_reason": why})
                failed = error
            except asyncio.CancelledError:
                # The caller had less time than a silent host takes: the next call skips that host.
                self._latest = (place + 1) % count
                raise
            except Exception as error:
                if failure_of(error) is None:
                    refused = error
                failed = error
            else:
                self._latest = place
                return connection
        raised = refused or failed
        assert raised is not None  # noqa: S101 - there is always a host
        raise raised

    def takes_writes(self, connection: Any) -> bool:
        """Whether the server of an open connection takes writes, as far as it has reported.

        PostgreSQL reports a change after each statement from version 14 on; before, never.
        """
        if self.target == "any":
            return True
        settings = connection.get_settings()
        read_only = getattr(settings, "default_transaction_read_only", "off") == "on"
        is_standby = getattr(settings, "in_hot_standby", "off") == "on"
        return not (is_standby or (read_only and self.target == "read-write"))


def _addresses(url: str) -> tuple[list[str], Mapping[str, str]]:
    """Return an address for each host, in libpq's form, and the query without the hosts."""
    parts = _PARTS.fullmatch(url)
    if parts is None:
        raise ValueError("not a postgresql URL")
    parsed = make_url(parts["before"] + parts["after"])
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError("not a postgresql URL")
    query = dict(parsed.query)
    named = _words(query.pop("host", ()))
    ports = _words(query.pop("port", ()))
    # Arguments of asyncpg and URLs of SQLAlchemy call libpq's sslmode ssl.
    if "ssl" in query:
        query["sslmode"] = query.pop("ssl")
    single = {name: value if isinstance(value, str) else value[-1] for name, value in query.items()}
    ours = {name: value for name, value in single.items() if name != "connect_timeout"}
    base = parsed.set(drivername="postgresql", query=ours)
    hosts = _hosts(parts["hosts"].split(",") if parts["hosts"] else named, ports)
    made = []
    for host, port in hosts:
        if host.startswith("/"):
            # A folder of sockets cannot stand among the hosts of a URL.
            socket = {"host": host, **({"port": str(port)} if port else {})}
            address = base.update_query_dict(socket)
        else:
            address = base.set(host=host, port=port)
        made.append(address.render_as_string(hide_password=False))
    return made or [base.render_as_string(hide_password=False)], single


def _words(value: str | Sequence[str]) -> list[str]:
    values = [value] if isinstance(value, str) else value
    return [word for it in values for word in it.split(",")]


def _hosts(named: Sequence[str], ports: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    for place, name in enumerate(named):
        if name.startswith("/"):
            host, port = name, None
        else:
            found = _HOST.fullmatch(name)
            if found is None:
                raise ValueError("not a host of a postgresql URL")
            host, port = found["host"].strip("[]"), found["port"]
        if port is None and ports:
            port = ports[min(place, len(ports) - 1)]
        yield host, int(port) if port else None
