"""Redis over TLS with an account: one server, or a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.processes import free_port
from devstack.servers import Redis
from tests.fakes.certificates import Authority
from tests.fakes.redis_cluster import running_redis_cluster

_ACCOUNT = ("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-client")


@dataclass(frozen=True)
class TlsRedis:
    """An address for the account, and what signed the server's certificate."""

    url: str
    ca_file: Path


@contextmanager
def running_tls_redis(folder: Path) -> Iterator[TlsRedis]:
    """Start one server."""
    authority, port = _authority(folder), free_port()
    redis = Redis(folder / "server", options=_tls(authority) | {"tls-port": port})
    redis.start()
    try:
        redis.ask(*_ACCOUNT)
        yield TlsRedis(f"rediss://app:pw@127.0.0.1:{port}/0", authority.file)
    finally:
        redis.discard()


@contextmanager
def running_tls_cluster(folder: Path) -> Iterator[TlsRedis]:
    """Start three nodes."""
    authority = _authority(folder)
    with running_redis_cluster(folder / "cluster", tls=_tls(authority)) as cluster:
        for node in cluster.primaries:
            node.ask(*_ACCOUNT)
        url = f"rediss+cluster://app:pw@127.0.0.1:{cluster.primaries[0].tls_port}"
        yield TlsRedis(url, authority.file)


def _authority(folder: Path) -> Authority:
    folder.mkdir(parents=True, exist_ok=True)
    return Authority(folder, "authority")


def _tls(authority: Authority) -> dict[str, object]:
    signed = authority.sign("redis")
    return {
        "tls-cert-file": signed.certificate,
        "tls-key-file": signed.key,
        "tls-ca-cert-file": authority.file,
        "tls-auth-clients": "no",
    }
