"""A real Redis Cluster of three primaries, each with a replica if wanted."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devstack.processes import HOST, free_port, wait_until
from devstack.servers import Redis

SLOTS = 16_384
PRIMARIES = 3


class ClusterNode(Redis):
    """A Redis that is part of a cluster."""

    def __init__(
        self, folder: Path, options: Mapping[str, object], tls: Mapping[str, object] | None
    ) -> None:
        self.bus_port = free_port()
        self.tls_port = free_port() if tls else 0
        cluster: dict[str, object] = {
            "cluster-enabled": "yes",
            "cluster-port": self.bus_port,
            "cluster-config-file": "nodes.conf",
            # A replica stands for election however long it was without its primary.
            "cluster-replica-validity-factor": 0,
        }
        if tls:
            cluster |= {"tls-port": self.tls_port, "tls-cluster": "yes", **tls}
        super().__init__(folder, options=cluster | dict(options))

    @property
    def node_id(self) -> str:
        return self.ask("CLUSTER", "MYID").split()[1]


class RedisCluster:
    """The nodes; `replicas` are in the order of the primaries that they copy."""

    def __init__(self, primaries: list[ClusterNode], replicas: list[ClusterNode]) -> None:
        self.primaries = primaries
        self.replicas = replicas

    def url(self) -> str:
        return f"redis+cluster://{HOST}:{self.primaries[0].port}"

    def flush(self) -> None:
        """Empty the primaries."""
        for node in self.primaries:
            node.ask("FLUSHALL")

    def successor_of(self, primary: ClusterNode) -> ClusterNode:
        """Return the replica that is to take over from the primary."""
        return self.replicas[self.primaries.index(primary)]

    def primary_of(self, key: str) -> ClusterNode:
        """Return the node that holds the key at the beginning."""
        slot = int(self.primaries[0].ask("CLUSTER", "KEYSLOT", key)[1:])
        return self.primaries[slot // (SLOTS // PRIMARIES + 1)]


@contextmanager
def running_redis_cluster(
    folder: Path,
    *,
    with_replicas: bool = False,
    fails_after_seconds: float = 15.0,
    tls: Mapping[str, object] | None = None,
) -> Iterator[RedisCluster]:
    """Start a cluster; a node that is silent for `fails_after_seconds` is replaced.

    `tls` are the settings of its certificates: then it takes TLS on a port beside the plain one.
    """
    options = {"cluster-node-timeout": round(fails_after_seconds * 1_000)}
    count = PRIMARIES * 2 if with_replicas else PRIMARIES
    nodes = [ClusterNode(folder / str(number), options, tls) for number in range(count)]
    cluster = RedisCluster(nodes[:PRIMARIES], nodes[PRIMARIES:])
    try:
        for node in nodes:
            node.start()
        _join(cluster)
        yield cluster
    finally:
        for node in nodes:
            node.discard()


def _join(cluster: RedisCluster) -> None:
    nodes = [*cluster.primaries, *cluster.replicas]
    first = nodes[0]
    share = SLOTS // PRIMARIES + 1
    for number, node in enumerate(cluster.primaries):
        slots = range(number * share, min((number + 1) * share, SLOTS))
        node.ask("CLUSTER", "ADDSLOTSRANGE", str(slots[0]), str(slots[-1]))
        # Distinct from the start, instead of after the collisions of all have been settled.
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
    for node in nodes[1:]:
        node.ask("CLUSTER", "MEET", HOST, str(first.port), str(first.bus_port))
    _await_all(nodes, f"cluster_known_nodes:{len(nodes)}\r", "the nodes to meet")
    for node, primary in zip(cluster.replicas, cluster.primaries, strict=False):
        primary_id = primary.node_id
        wait_until(
            lambda node=node, primary_id=primary_id: (  # type: ignore[misc]
                node.ask("CLUSTER", "REPLICATE", primary_id).startswith("+OK")
            ),
            seconds=30,
            what="a replica to know its primary",
        )
    for node in cluster.replicas:
        wait_until(
            lambda node=node: "master_link_status:up" in node.ask("INFO", "replication"),  # type: ignore[misc]
            seconds=30,
            what="a replica to copy its primary",
        )
    _await_all(nodes, "cluster_state:ok", "the cluster to form")


def _await_all(nodes: list[ClusterNode], sign: str, what: str) -> None:
    for node in nodes:
        wait_until(
            lambda node=node: sign in node.ask("CLUSTER", "INFO"),  # type: ignore[misc]
            seconds=30,
            what=what,
        )
