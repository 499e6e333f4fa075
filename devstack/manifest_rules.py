"""What must hold between the manifests of an overlay and the code that they start.

Each rule yields a sentence for what is wrong. Rules read rendered manifests, the settings classes,
the contracts and the modules; none of it is written down a second time here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import opentelemetry.environment_variables
import opentelemetry.sdk.environment_variables
from prometheus_client import REGISTRY
from pydantic import ValidationError

from devstack.images import IMAGES, ROOT
from devstack.manifest_network import (
    browsers_reach_the_gateway,
    network_is_the_call_graph,
    nothing_is_left_to_set,
)
from devstack.manifest_overlay import (
    COLLECTOR,
    LOCAL_STORES,
    NAME,
    Overlay,
    loaded_settings,
    module_of,
    settings_of,
)
from devstack.manifests import Manifest, pod_labels, with_pods
from servicekit.lifecycle import STOP_SLACK_SECONDS
from servicekit.server import LIVENESS

# What the operating system or the Python of the image reads, and no settings class.
FOREIGN_VARIABLES = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"),
    *(each for each in vars(opentelemetry.sdk.environment_variables) if each.startswith("OTEL_")),
    opentelemetry.environment_variables.OTEL_TRACES_EXPORTER,
}
# A pod's own, beside its pool: the advisory lock's, where one copy is elected or one rebuilds.
LOCK_CONNECTIONS = 1

Rule = Callable[[Overlay], Iterator[str]]


def every_service_is_deployed(overlay: Overlay) -> Iterator[str]:
    """One Deployment, Service, ServiceAccount and PodDisruptionBudget for each image."""
    wanted = {name.replace("_", "-") for name in IMAGES}
    for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"):
        for name in wanted - overlay.of(kind).keys():
            yield f"no {kind} {name}"
    for name in overlay.deployments.keys() - wanted:
        yield f"Deployment {name} is none of ours"


def selectors_select(overlay: Overlay) -> Iterator[str]:
    """Whatever selects pods selects some, and only those of its own name."""
    pods = [pod_labels(each) for each, _ in with_pods(overlay.manifests)]
    for each in overlay.manifests:
        where = f"{each['kind']} {each['metadata']['name']}"
        for selector in _selectors(each):
            if selector and not any(selector.items() <= labels.items() for labels in pods):
                yield f"{where} selects no pod: {selector}"
    for name, deployment in overlay.deployments.items():
        own = deployment["spec"]["selector"]["matchLabels"]
        if not own.items() <= pod_labels(deployment).items():
            yield f"Deployment {name} does not select its own pods"
    for name, service in overlay.of("Service").items():
        own = {NAME: name.removesuffix("-metrics")}
        if service["spec"]["selector"] not in (own, {NAME: LOCAL_STORES}):
            yield f"Service {name} leads to other pods: {service['spec']['selector']}"


def _selectors(manifest: Manifest) -> Iterator[dict[str, str]]:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Service":
        yield spec["selector"]
    elif manifest["kind"] == "PodDisruptionBudget":
        yield spec["selector"]["matchLabels"]
    elif manifest["kind"] == "NetworkPolicy":
        yield spec["podSelector"].get("matchLabels", {})
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            for peer in (*rule.get("from", ()), *rule.get("to", ())):
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    yield peer["podSelector"].get("matchLabels", {})
    elif manifest["kind"] == "Deployment":
        for each in spec["template"]["spec"].get("topologySpreadConstraints", ()):
            yield each["labelSelector"]["matchLabels"]


def ports_are_those_listened_on(overlay: Overlay) -> Iterator[str]:
    """Containers, Services and settings name the same ports, and pods listen to the network."""
    for name in overlay.deployments:
        container = overlay.container(name)
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        settings = overlay.environment(container)
        prefix = str(settings_of(name).model_config.get("env_prefix", ""))
        main = "http" if name == "gateway" else "grpc"
        for port, variable in ((main, f"{main.upper()}_PORT"), ("metrics", "METRICS_PORT")):
            if settings.get(f"{prefix}{variable}") != str(ports.get(port)):
                yield f"{name}: port {port} is not {prefix}{variable}"
        for variable in ("BIND_HOST", *(("HTTP_HOST",) if name == "gateway" else ())):
            if settings.get(f"{prefix}{variable}") != "0.0.0.0":  # noqa: S104 - in its own pod
                yield f"{name} does not listen to the network: {prefix}{variable}"
        for each in overlay.of("Service").get(name, {"spec": {"ports": ()}})["spec"]["ports"]:
            if each["targetPort"] not in ports:
                yield f"Service {name}: no port {each['targetPort']}"


def targets_are_headless_services(overlay: Overlay) -> Iterator[str]:
    """Every *_target of every service is set, and is a name that leads to the pods one by one."""
    services = overlay.of("Service")
    for name in overlay.deployments:
        environment = overlay.environment(overlay.container(name))
        prefix = str(settings_of(name).model_config.get("env_prefix", ""))
        for field in settings_of(name).model_fields:
            if not field.endswith("_target"):
                continue
            variable = f"{prefix}{field}".upper()
            match = re.fullmatch(r"dns:///([a-z-]+):(\d+)", environment.get(variable, ""))
            if match is None:
                yield f"{name}: {variable} is not dns:///SERVICE:PORT"
                continue
            host, port = match[1], int(match[2])
            if host != field.removesuffix("_target").replace("_", "-"):
                yield f"{name}: {variable} leads to {host}"
            spec = services.get(host, {"spec": {}})["spec"]
            if spec.get("clusterIP") != "None":
                yield f"{name}: {variable}: Service {host} is not headless"
            # A headless name gives the pods' addresses, so the port is the container's.
            if port not in {p["containerPort"] for p in overlay.container(host)["ports"]}:
                yield f"{name}: {variable}: {host} does not listen on {port}"


def probes_ask_what_exists(overlay: Overlay) -> Iterator[str]:
    """Liveness asks the process alone, readiness its stores, at the names the servers know."""
    for name in overlay.deployments:
        container = overlay.container(name)
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            probed = container.get(probe, {})
            asks_stores = probe == "readinessProbe"
            if name == "gateway":
                path = "/readyz" if asks_stores else "/healthz"
                if probed.get("httpGet") != {"path": path, "port": "http"}:
                    yield f"{name}: {probe} does not ask {path}"
                elif path not in _paths_of_the_gateway():
                    yield f"{name}: there is no {path}"
                continue
            wanted = grpc_services(name) if asks_stores else {LIVENESS}
            if probed.get("grpc", {}).get("service") not in wanted:
                yield f"{name}: {probe} does not ask {' or '.join(sorted(wanted))}"
            if probed.get("grpc", {}).get("port") != ports["grpc"]:
                yield f"{name}: {probe} asks another port"


@cache
def _paths_of_the_gateway() -> frozenset[str]:
    description = ROOT / "clients" / "typescript" / "openapi.json"
    return frozenset(json.loads(description.read_text(encoding="utf-8"))["paths"])


def grpc_services(name: str) -> set[str]:
    """The full names of the gRPC services in a service's contract."""
    short = name.replace("-", "_")
    contract = importlib.import_module(f"dialler.{short}.v1.{short}_pb2")
    return {each.full_name for each in contract.DESCRIPTOR.services_by_name.values()}


def commands_exist(overlay: Overlay) -> Iterator[str]:
    """What containers start can be started, takes the arguments, and is in their image."""
    for each, spec in with_pods(overlay.manifests):
        where = f"{each['kind']} {each['metadata']['name']}"
        for container in spec["containers"]:
            if each["metadata"]["name"] == COLLECTOR:
                continue
            module, *arguments = container["args"]
            service = container["image"].rpartition("/")[2].partition(":")[0].partition("@")[0]
            if not _can_start(module):
                yield f"{where}: there is no python -m {module}"
            elif service == LOCAL_STORES:
                continue
            elif module == "servicekit.migrations":
                if arguments != [module_of(service)]:
                    yield f"{where}: {arguments} is not in the image of {service}"
                elif not (ROOT / arguments[0].replace(".", "/") / "migrations").is_dir():
                    yield f"{where}: {service} has no migrations"
            elif not f"{module}.".startswith(f"{module_of(service)}."):
                yield f"{where}: {module} is not in the image of {service}"
            elif arguments and not _takes(module, tuple(arguments)):
                yield f"{where}: {module} does not take {arguments}"


def _can_start(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    if found is None or found.origin is None:
        return False
    if found.submodule_search_locations is not None:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    return '__name__ == "__main__"' in Path(found.origin).read_text(encoding="utf-8")


@cache
def _takes(module: str, arguments: tuple[str, ...]) -> bool:
    # Arguments are read in order, so a wrong one is refused before help is given.
    command = [sys.executable, "-m", module, *arguments, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def variables_are_settings(overlay: Overlay) -> Iterator[str]:
    """Every variable is one of the service's, every required one is given, and all are valid."""
    for name in overlay.deployments:
        container = overlay.container(name)
        yield from _missing_sources(overlay, name, container)
        environment = overlay.environment(container)
        prefix = str(settings_of(name).model_config.get("env_prefix", ""))
        known = {f"{prefix}{field}".upper() for field in settings_of(name).model_fields}
        for variable in environment.keys() - known - FOREIGN_VARIABLES:
            yield f"{name}: {variable} is no setting"
        try:
            loaded_settings(name, environment)
        except ValidationError as error:
            for each in error.errors(include_input=False, include_url=False):
                yield f"{name}: {prefix}{'.'.join(map(str, each['loc']))}: {each['msg']}".upper()


def _missing_sources(overlay: Overlay, name: str, container: Manifest) -> Iterator[str]:
    for source in container.get("envFrom", ()):
        ((kind, reference),) = source.items()
        known = overlay.of("ConfigMap") if kind == "configMapRef" else overlay.secrets
        if reference["name"] not in known:
            yield f"{name}: there is no {kind} {reference['name']}"


def files_named_are_mounted(overlay: Overlay) -> Iterator[str]:
    """A setting that names a file below /etc/dialler finds it in a volume."""
    for name, manifest in overlay.of("Deployment", "Job").items():
        spec = manifest["spec"]["template"]["spec"]
        [container] = spec["containers"]
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        volumes = {each["name"]: each for each in spec["volumes"]}
        for variable, value in overlay.environment(container).items():
            if not value.startswith("/etc/dialler/"):
                continue
            folder, _, file = value.rpartition("/")
            source = volumes.get(mounts.get(folder, ""), {}).get("configMap", {})
            made_by_overlay = (
                overlay.of("ConfigMap").get(source.get("name", ""), {}).get("data", {})
            )
            listed = {each["path"] for each in source.get("items", ())}
            if file not in listed | made_by_overlay.keys():
                yield f"{name}: {variable}: nothing puts {value} there"


def jobs_get_their_secrets(overlay: Overlay) -> Iterator[str]:
    """Each migration has the address that it looks for."""
    for name, job in overlay.of("Job").items():
        [container] = job["spec"]["template"]["spec"]["containers"]
        service = container["args"][-1].rpartition(".")[2]
        if f"{service.upper()}_POSTGRES_URL" not in overlay.environment(container):
            yield f"Job {name}: {service.upper()}_POSTGRES_URL is not given"


def every_schema_is_migrated(overlay: Overlay) -> Iterator[str]:
    """Each service with a history of migrations has a Job."""
    migrated = {
        job["spec"]["template"]["spec"]["containers"][0]["args"][-1]
        for job in overlay.of("Job").values()
    }
    for folder in sorted((ROOT / "services").glob("*/migrations")):
        if f"services.{folder.parent.name}" not in migrated:
            yield f"services.{folder.parent.name} is not migrated"


def grace_is_long_enough(overlay: Overlay) -> Iterator[str]:
    """Kubernetes waits for preStop, the drain and the closing, with a little to spare."""
    for name, deployment in overlay.deployments.items():
        container = overlay.container(name)
        wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if wait < 1:
            yield f"{name}: nothing waits for clients that have just resolved its name"
        drain = loaded_settings(name, overlay.environment(container)).drain_seconds
        needed = wait + drain + STOP_SLACK_SECONDS + 5
        grace = deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        if grace < needed:
            yield f"{name}: {grace} s of grace, {needed:g} needed"


def one_owner_of_the_number_of_copies(overlay: Overlay) -> Iterator[str]:
    """A Deployment has replicas, an HPA or a ScaledObject, and never two of them."""
    hpas = [each["spec"] for each in overlay.of("HorizontalPodAutoscaler").values()]
    scaled = [each["spec"] for each in overlay.of("ScaledObject").values()]
    owners = [each["scaleTargetRef"]["name"] for each in (*hpas, *scaled)]
    for name in owners:
        if name not in overlay.deployments:
            yield f"there is no {name} to scale"
        elif "replicas" in overlay.deployments[name]["spec"]:
            yield f"{name} has replicas beside its autoscaler"
    for name in {each for each in owners if owners.count(each) > 1}:
        yield f"{name} has two autoscalers"
    for spec in hpas:
        if not 1 <= spec["minReplicas"] <= spec["maxReplicas"]:
            yield f"{spec['scaleTargetRef']['name']}: least and most copies"
    for spec in scaled:
        least, most = spec["minReplicaCount"], spec["maxReplicaCount"]
        if not least <= spec["fallback"]["replicas"] <= most:
            yield f"{spec['scaleTargetRef']['name']}: the fallback is outside {least} to {most}"


def scaling_metrics_exist(overlay: Overlay) -> Iterator[str]:
    """What autoscalers look at is exported, and the queue is the one that is read."""
    for name in ("servicekit.metrics", "gateway.http.edge", "gateway.live.hub"):
        importlib.import_module(name)
    exported = {metric.name for metric in REGISTRY.collect()}
    for name, each in overlay.of("HorizontalPodAutoscaler").items():
        for metric in each["spec"]["metrics"]:
            if metric["type"] == "Pods" and metric["pods"]["metric"]["name"] not in exported:
                yield f"{name}: nothing exports {metric['pods']['metric']['name']}"
    for name, each in overlay.of("ScaledObject").items():
        url = overlay.environment(overlay.container(name)).get("CDC_INGEST_SQS_QUEUE_URL", "")
        for trigger in each["spec"]["triggers"]:
            seen = trigger["metadata"].get("queueURL", url)
            if seen != url or trigger["metadata"].get("dimensionValue", url) not in url:
                yield f"{name}: scaled by another queue than {url}"
            if trigger["authenticationRef"]["name"] not in overlay.of("TriggerAuthentication"):
                yield f"{name}: no such TriggerAuthentication"


def metrics_are_read(overlay: Overlay) -> Iterator[str]:
    """Where autoscalers go by pods' own metrics, those of every pod are read.

    `METRICS_READER=other` of the site says that it is not by the Prometheus operator.
    """
    if not overlay.of("HorizontalPodAutoscaler"):
        return
    if overlay.site.get("METRICS_READER") == "other" and not overlay.of("PodMonitor"):
        return
    monitors = [each["spec"] for each in overlay.of("PodMonitor").values()]
    for name, deployment in overlay.deployments.items():
        ports = {each["name"] for each in overlay.container(name)["ports"]}
        seen = [each for each in monitors if _matches(each["selector"], pod_labels(deployment))]
        if not any(it["port"] in ports for each in seen for it in each["podMetricsEndpoints"]):
            yield f"{name}: no PodMonitor reads its metrics"
        # Rules and dashboards tell services apart by it.
        if any(each.get("jobLabel") != NAME for each in seen):
            yield f"{name}: its metrics have another job than its name"


def _matches(selector: Manifest, labels: dict[str, str]) -> bool:
    keys = [each["key"] for each in selector.get("matchExpressions", ())]
    return selector.get("matchLabels", {}).items() <= labels.items() and labels.keys() >= set(keys)


def connections_fit_the_databases(overlay: Overlay) -> Iterator[str]:
    """All copies with full pools stay within what the databases keep free for them."""
    for store, used in (("POSTGRES", postgres_connections), ("MYSQL", mysql_connections)):
        free = overlay.site.get(f"{store}_CONNECTIONS")
        if free is None:
            continue
        most = sum(overlay.most_copies(n) * used(overlay, n) for n in overlay.deployments)
        most += len(overlay.of("Job")) if store == "POSTGRES" else 0
        if most > int(free):
            yield f"{most} connections to {store}, {free} free"


def postgres_connections(overlay: Overlay, name: str) -> int:
    """Connections to PostgreSQL that one pod opens at most."""
    settings = loaded_settings(name, overlay.environment(overlay.container(name)))
    if not hasattr(settings, "postgres_url"):
        return 0
    if hasattr(settings, "postgres_connections"):
        return int(settings.postgres_connections)
    if hasattr(settings, "postgres_pool_size"):
        return int(settings.postgres_pool_size) + LOCK_CONNECTIONS
    app = importlib.import_module(f"{module_of(name)}.app")
    return int(app.POSTGRES_POOL_SIZE) + LOCK_CONNECTIONS


def mysql_connections(overlay: Overlay, name: str) -> int:
    """Connections to MySQL that one pod opens at most."""
    settings = loaded_settings(name, overlay.environment(overlay.container(name)))
    if not hasattr(settings, "mysql_url"):
        return 0
    if hasattr(settings, "mysql_live_connections"):
        return int(settings.mysql_live_connections + settings.mysql_bulk_connections)
    # The relay: the binlog's stream, and one that asks the server about itself.
    return 2


def pods_are_restricted(overlay: Overlay) -> Iterator[str]:
    """Every pod may do nothing but its work; Services do not leak variables into it."""
    for each, spec in with_pods(overlay.manifests):
        where = f"{each['kind']} {each['metadata']['name']}"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where}: has a token for Kubernetes' API"
        if spec.get("enableServiceLinks") is not False:
            yield f"{where}: a Service called queue would set QUEUE_PORT in it"
        if spec["serviceAccountName"] not in overlay.of("ServiceAccount"):
            yield f"{where}: there is no ServiceAccount {spec['serviceAccountName']}"
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or security.get("runAsUser", 0) < 10_000:
            yield f"{where}: may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where}: may make any system call"
        for container in spec["containers"]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: may become more than it is"
            if not own.get("readOnlyRootFilesystem") or own.get("capabilities") != {
                "drop": ["ALL"]
            }:
                yield f"{where}: may change its image or has capabilities"
            if set(container.get("resources", {})) != {"requests", "limits"}:
                yield f"{where}: has no requests or limits"


def accounts_take_their_roles(overlay: Overlay) -> Iterator[str]:
    """Where there is AWS, each service's account has the role that trusts that account."""
    if not overlay.site:
        return
    text = (ROOT / "deploy" / "aws" / "service-roles.yaml").read_text(encoding="utf-8")
    trusted = set(re.findall(r"system:serviceaccount:\$\{Namespace\}:([a-z-]+)", text))
    named = set(re.findall(r"RoleName: !Sub \"\$\{SuiteName\}-([a-z-]+)\"", text))
    for name in overlay.of("Deployment"):
        account = overlay.of("ServiceAccount")[name]["metadata"].get("annotations", {})
        role = f"arn:aws:iam::{overlay.site['AWS_ACCOUNT']}:role/dialler-{name}"
        if account.get("eks.amazonaws.com/role-arn") != role:
            yield f"ServiceAccount {name} does not take {role}"
        if name not in trusted & named:
            yield f"no role of deploy/aws trusts {name}"


def disruptions_leave_a_copy(overlay: Overlay) -> Iterator[str]:
    """A node can be emptied, and where there are several copies not of all of them at once."""
    for name, each in overlay.of("PodDisruptionBudget").items():
        if each["spec"].get("maxUnavailable") != 1:
            yield f"{name}: nodes cannot be emptied, or lose more than one copy"


# [registry/][path/]name[:tag][@digest]. As the container tools have it, the first part is a
# registry's address when it has a dot or a port, or is localhost.
_IMAGE = re.compile(
    r"(?:((?:[\w-]+\.[\w.-]+|localhost)(?::\d+)?|[\w-]+:\d+)/)?(?:[\w.-]+/)*([\w-]+)"
    r"(?::([\w.-]+))?(?:@(sha256:[0-9a-f]{64}))?"
)


def images_are_ours(overlay: Overlay) -> Iterator[str]:
    """A service and its migration are of one image, by digest or of a release.

    Where there is a site, images come from a registry: a bare name would be looked for elsewhere.
    """
    seen: dict[str, str] = {}
    for each, spec in with_pods(overlay.manifests):
        for container in spec["containers"]:
            image = container["image"]
            match = _IMAGE.fullmatch(image)
            registry, service, tag, digest = match.groups() if match else (None, "", None, None)
            where = f"{each['kind']} {each['metadata']['name']}"
            is_foreign = each["metadata"]["name"] == COLLECTOR
            known = IMAGES if overlay.site else (*IMAGES, LOCAL_STORES)
            if service.replace("-", "_") not in known and not is_foreign:
                yield f"{where}: {image} is none of our images"
            elif overlay.site and registry is None:
                yield f"{where}: {image} names no registry (images/kustomization.yaml, newName)"
            elif is_foreign:
                if digest is None and tag in (None, "latest"):
                    yield f"{where}: {image} is of no version"
            elif digest is None and not re.fullmatch(r"\d+\.\d+\.\d+|local", str(tag)):
                yield f"{where}: {image} is of no release"
            elif seen.setdefault(service, image) != image:
                yield f"{where}: {image} beside {seen[service]}"


RULES: tuple[Rule, ...] = (
    every_service_is_deployed,
    selectors_select,
    ports_are_those_listened_on,
    targets_are_headless_services,
    probes_ask_what_exists,
    commands_exist,
    variables_are_settings,
    files_named_are_mounted,
    jobs_get_their_secrets,
    every_schema_is_migrated,
    network_is_the_call_graph,
    browsers_reach_the_gateway,
    nothing_is_left_to_set,
    grace_is_long_enough,
    one_owner_of_the_number_of_copies,
    scaling_metrics_exist,
    metrics_are_read,
    connections_fit_the_databases,
    pods_are_restricted,
    accounts_take_their_roles,
    disruptions_leave_a_copy,
    images_are_ours,
)
