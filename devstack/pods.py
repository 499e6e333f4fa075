"""The stack with its services in containers: the rendered manifests of the overlay `local`.

podman starts the Deployments as they stand: user, read-only root, capabilities, seccomp, limits,
ConfigMaps and Secrets are what the manifests say. What it has no notion of is done here: Services
become names in /etc/hosts, Jobs become pods that are waited for, and probes are asked by us. Meant
for a network namespace of its own, in which the ports that the manifests name are free.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.images import Engine, default_engine
from devstack.manifests import Manifest, of_kind, rendered
from devstack.processes import HOST, DidNotStart, wait_until
from devstack.servers import MariaDB, PostgreSQL, Redis
from devstack.stack import Addresses, Stack
from devstack.stores import PORTS as STORES

OVERLAY = "local"
START_SECONDS = 90.0


@dataclass
class PodStack(Stack):
    """A `Stack` whose services are containers of `engine`'s images."""

    engine: Engine = field(default_factory=default_engine)
    migrated_seconds: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.preferred_sqs_port = STORES["sqs"]
        folder, durable = self.folder, self.durable
        self.mariadb = MariaDB(folder / "mariadb", port=STORES["mariadb"], durable=durable)
        self.postgres = PostgreSQL(folder / "postgres", port=STORES["postgres"], durable=durable)
        self.redis = Redis(folder / "redis", port=STORES["redis"])
        self._services = rendered(OVERLAY, "services")
        self.deployments = of_kind(self._services, "Deployment")
        self.secrets = of_kind(rendered(OVERLAY, "foundation"), "Secret")

    def start(self) -> None:
        """Start all, servers first, and return when every service is ready."""
        names = (*STORES, *of_kind(self._services, "Service"))
        self.engine.prepare(f"{HOST} localhost {' '.join(names)}\n")
        self._remove_pods()
        super().start()

    def stop(self) -> None:
        """Stop all, services first; safe to call twice and after a failed start."""
        self._remove_pods()
        super().stop()

    def container(self, name: str) -> str:
        """Name of the container of a Deployment."""
        return f"{name}-pod-0-service"

    def log(self, name: str) -> str:
        """The end of what a Deployment's container has said."""
        return self.engine.podman("logs", "--tail=15", self.container(name))

    def state(self, name: str) -> Manifest:
        """What podman says of the container of a Deployment."""
        [found] = json.loads(self.engine.podman("inspect", self.container(name)))
        return dict(found)

    def answers_probe(self, name: str, probe: str) -> bool:
        """Whether a Deployment answers its `livenessProbe`, `readinessProbe` or `startupProbe`."""
        [container] = self.deployments[name]["spec"]["template"]["spec"]["containers"]
        return _answers(
            container[probe], {p["name"]: p["containerPort"] for p in container["ports"]}
        )

    def migrate(self) -> None:
        """Run the Jobs one after the other; `DidNotStart` with the log of one that failed."""
        for name, job in of_kind(rendered(OVERLAY, "migrations"), "Job").items():
            template = job["spec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
            pod["metadata"] = {"name": name, "labels": template["metadata"]["labels"]}
            self._play(name, [pod])
            code = self.engine.podman("wait", f"{name}-service")
            if code != "0":
                log = self.engine.podman("logs", "--tail=15", f"{name}-service")
                raise DidNotStart(f"{name} ended with code {code}.\n{log}")
            self.engine.podman("pod", "rm", "--force", name)

    async def _migrate(self) -> None:
        started = time.monotonic()
        self._make_secrets()
        self.migrate()
        self.migrated_seconds = time.monotonic() - started

    def _addresses(self) -> Addresses:
        values = {
            key: value
            for each in of_kind(self._services, "ConfigMap").values()
            for key, value in each["data"].items()
        }
        ports = {
            key.removesuffix("_GRPC_PORT").lower(): port
            for key, port in values.items()
            if key.endswith("_GRPC_PORT")
        }
        return Addresses(
            gateway=f"http://{HOST}:{values['GATEWAY_HTTP_PORT']}",
            mysql_writer=self.main_app.writer_url,
            mysql_reader=self.main_app.url,
            mysql_relay=self.main_app.relay_url,
            postgres=self.postgres.url("dialler"),
            redis=self.redis.url(),
            sqs_endpoint=values["CDC_INGEST_SQS_ENDPOINT_URL"].replace("sqs", HOST),
            sqs_queue=values["CDC_INGEST_SQS_QUEUE_URL"].replace("//sqs", f"//{HOST}"),
            sqs_dlq=values["CDC_INGEST_SQS_DLQ_URL"].replace("//sqs", f"//{HOST}"),
            grpc={name: f"{HOST}:{port}" for name, port in ports.items()},
            jwt_secret=_decoded(self.secrets["gateway"])["GATEWAY_JWT_SECRET"],
        )

    def _start_services(self) -> None:
        self.report("Starting the services' containers ...")
        config_maps = list(of_kind(self._services, "ConfigMap").values())
        for name, deployment in self.deployments.items():
            self._play(name, [*config_maps, deployment])
        for name in self.deployments:
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Return once a Deployment answers its probes; `DidNotStart` with its log otherwise."""
        probes = ("startupProbe", "readinessProbe", "livenessProbe")
        try:
            wait_until(
                lambda: all(self.answers_probe(name, probe) for probe in probes),
                seconds=START_SECONDS,
                what=name,
            )
        except DidNotStart as error:
            raise DidNotStart(f"{error}\n{self.log(name)}") from None

    def _play(self, name: str, manifests: list[Manifest]) -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all(_without_ports(manifests)), encoding="utf-8")
        self.engine.podman("play", "kube", "--network=host", str(path))

    def _make_secrets(self) -> None:
        # Debian 12's podman keeps a Secret that it is given as YAML and then reads it as JSON.
        path = self.folder / "secret.json"
        for name, secret in self.secrets.items():
            path.touch(mode=0o600)
            path.write_text(json.dumps(secret["data"]), encoding="utf-8")
            self.engine.podman("secret", "create", name, str(path))
            path.unlink()

    def _remove_pods(self) -> None:
        self.engine.podman("pod", "rm", "--all", "--force", "--time=60")
        self.engine.podman("volume", "rm", "--all", "--force")
        if names := self.engine.podman("secret", "ls", "--quiet"):
            self.engine.podman("secret", "rm", *names.split())


def _without_ports(manifests: list[Manifest]) -> list[Manifest]:
    """podman would publish them, which on the host's network there is no need for."""
    copies: list[Manifest] = json.loads(json.dumps(manifests))
    for each in copies:
        if each["kind"] == "Deployment":
            for container in each["spec"]["template"]["spec"]["containers"]:
                container.pop("ports")
    return copies


def _decoded(secret: Manifest) -> dict[str, str]:
    return {key: b64decode(value).decode() for key, value in secret["data"].items()}


def _answers(probe: Manifest, ports: dict[str, int]) -> bool:
    if "grpc" in probe:
        return _serves(probe["grpc"]["port"], probe["grpc"].get("service", ""))
    port = probe["httpGet"]["port"]
    url = f"http://{HOST}:{ports.get(port, port)}{probe['httpGet']['path']}"
    try:
        return httpx.get(url, timeout=2.0).status_code < 400
    except httpx.TransportError:
        return False


def _serves(port: int, service: str) -> bool:
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer: Any = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
