"""Whether NetworkPolicies let through what is called, at both ends, and nothing more.

Calls from browsers included, where an Ingress or a load balancer brings them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import yaml
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT

from devstack.manifest_overlay import COLLECTOR, LOCAL_STORES, NAME, Overlay, loaded_settings
from devstack.manifests import Manifest, pod_labels
from gateway.http.server import KEEP_ALIVE_SECONDS

Call = tuple[str, str, int]
"""Who, whom, and on which port."""


def network_is_the_call_graph(overlay: Overlay) -> Iterator[str]:
    """Policies let through what the settings' addresses call, at both ends, and nothing more."""
    calls = _calls(overlay)
    for end, allowed in (("egress", _egress(overlay)), ("ingress", _ingress(overlay))):
        for call in sorted(calls - allowed):
            yield f"{end}: {call} is called and not allowed"
        for call in sorted(allowed - calls):
            yield f"{end}: {call} is allowed and not called"
    stores = {store for name in overlay.deployments for store in _stores(overlay, name)}
    stores |= {(str(job["spec"]["template"]["metadata"]["labels"][NAME]), 5432)
               for job in overlay.of("Job").values()}  # fmt: skip
    # AWS's APIs.
    stores |= {(name, 443) for name in overlay.of("Deployment") if name == COLLECTOR}
    outside = _egress_outside(overlay)
    for store in sorted(stores ^ outside):
        yield f"egress: {store} is {'not allowed' if store in stores else 'allowed and not used'}"
    closed = overlay.of("NetworkPolicy").get("deny-all", {"spec": {}})["spec"]
    if closed != {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}:
        yield "nothing denies what is not allowed"


def _calls(overlay: Overlay) -> set[Call]:
    calls = set(scraped(overlay))
    for name in overlay.deployments:
        environment = overlay.environment(overlay.container(name))
        for variable, value in environment.items():
            if variable.endswith("_TARGET") and (at := re.fullmatch(r"dns:///(.+):(\d+)", value)):
                calls.add((name, at[1], int(at[2])))
            if variable == OTEL_EXPORTER_OTLP_ENDPOINT:
                address = urlsplit(value)
                calls.add((name, str(address.hostname), address.port or 0))
    for each in overlay.of("CronJob").values():
        labels = pod_labels(each)
        arguments = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
        for value in arguments:
            if at := re.fullmatch(r"--target=dns:///(.+):(\d+)", value):
                calls.add((labels[NAME], at[1], int(at[2])))
    return calls


def scraped(overlay: Overlay) -> Iterator[Call]:
    """Whose metrics the collector reads, and on which port, by its configuration."""
    for name, manifest in overlay.of("ConfigMap").items():
        if name.startswith(f"{COLLECTOR}-") and "collector.yaml" in manifest["data"]:
            receivers = yaml.safe_load(manifest["data"]["collector.yaml"])["receivers"]
            for job in receivers["prometheus"]["config"]["scrape_configs"]:
                for each in job["dns_sd_configs"]:
                    for service in each["names"]:
                        leads_to = overlay.of("Service")[service]["spec"]["selector"][NAME]
                        yield COLLECTOR, leads_to, each["port"]


def _stores(overlay: Overlay, name: str) -> set[tuple[str, int]]:
    found = set()
    for variable, value in overlay.environment(overlay.container(name)).items():
        address = urlsplit(value)
        if variable.endswith("_URL") and address.hostname:
            default = {"https": 443, "http": 80}.get(address.scheme)
            found.add((name, address.port or default or 0))
    return found


def _policies(overlay: Overlay, way: str) -> Iterator[tuple[str, Manifest]]:
    for policy in overlay.of("NetworkPolicy").values():
        if way.capitalize() not in policy["spec"]["policyTypes"]:
            continue
        for name in _selected(policy["spec"]["podSelector"]):
            for rule in policy["spec"].get(way, ()):
                yield name, rule


def _selected(selector: Manifest) -> Iterator[str]:
    name = selector.get("matchLabels", {}).get(NAME)
    if name not in (None, LOCAL_STORES):
        yield name
    for each in selector.get("matchExpressions", ()):
        if (each["key"], each["operator"]) == (NAME, "In"):
            yield from each["values"]


def _egress(overlay: Overlay) -> set[Call]:
    return {
        (name, peer["podSelector"]["matchLabels"][NAME], port["port"])
        for name, rule in _policies(overlay, "egress")
        for peer in rule["to"]
        if "podSelector" in peer
        for port in rule["ports"]
    }


def _ingress(overlay: Overlay) -> set[Call]:
    return {
        (peer["podSelector"]["matchLabels"][NAME], name, _port(overlay, name, port["port"]))
        for name, rule in _policies(overlay, "ingress")
        for peer in rule["from"]
        if "podSelector" in peer
        for port in rule["ports"]
    }


def _port(overlay: Overlay, name: str, port: str | int) -> int:
    ports = {each["name"]: int(each["containerPort"]) for each in overlay.container(name)["ports"]}
    return port if isinstance(port, int) else ports.get(port, 0)


def _egress_outside(overlay: Overlay) -> set[tuple[str, int]]:
    return {
        (name, port["port"])
        for name, rule in _policies(overlay, "egress")
        for peer in rule["to"]
        if "ipBlock" in peer
        for port in rule["ports"]
    }


_ALB = "alb.ingress.kubernetes.io"


def browsers_reach_the_gateway(overlay: Overlay) -> Iterator[str]:
    """What brings browsers leads to a Service, is trusted as a proxy, and holds event streams."""
    settings = loaded_settings("gateway", overlay.environment(overlay.container("gateway")))
    for name, ingress in overlay.of("Ingress").items():
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                yield from _backend_errors(overlay, f"Ingress {name}", path["backend"]["service"])
        if not settings.trusted_proxies:
            yield f"Ingress {name}: GATEWAY_TRUSTED_PROXIES is 0: all clients have one address"
        if ingress["spec"]["ingressClassName"] == "alb":
            yield from _load_balancer_errors(overlay, ingress, settings.events_heartbeat_seconds)


def _backend_errors(overlay: Overlay, where: str, backend: Manifest) -> Iterator[str]:
    service = overlay.of("Service").get(backend["name"], {"spec": {"ports": ()}})
    if backend["port"]["name"] not in {port["name"] for port in service["spec"]["ports"]}:
        yield f"{where}: no port {backend['port']['name']} of a Service {backend['name']}"


def _load_balancer_errors(
    overlay: Overlay, ingress: Manifest, heartbeat_seconds: float
) -> Iterator[str]:
    annotations = ingress["metadata"]["annotations"]
    probes = overlay.container("gateway")
    if annotations[f"{_ALB}/healthcheck-path"] != probes["livenessProbe"]["httpGet"]["path"]:
        yield "the load balancer's health check is not the liveness probe"
    idle = _attribute(annotations, "load-balancer-attributes", "idle_timeout.timeout_seconds")
    if not 2 * heartbeat_seconds < idle < KEEP_ALIVE_SECONDS:
        yield f"idle time {idle:g} s: heartbeats {heartbeat_seconds:g} s, {KEEP_ALIVE_SECONDS} s"
    delay = _attribute(
        annotations, "target-group-attributes", "deregistration_delay.timeout_seconds"
    )
    if delay >= probes["lifecycle"]["preStop"]["sleep"]["seconds"]:
        yield f"a pod may be sent requests for {delay:g} s, longer than it waits in preStop"
    entries = [
        peer
        for policy in overlay.of("NetworkPolicy").values()
        if policy["spec"]["podSelector"].get("matchLabels") == {NAME: "gateway"}
        for rule in policy["spec"].get("ingress", ())
        if {"port": "http"} in rule["ports"]
        for peer in rule["from"]
    ]
    if not any("ipBlock" in peer for peer in entries):
        yield "no policy lets the load balancer's subnets in"


def _attribute(annotations: dict[str, str], kind: str, name: str) -> float:
    """Return the value of one of a comma-separated list; AWS's default is not good enough."""
    values = dict(it.split("=", 1) for it in annotations[f"{_ALB}/{kind}"].split(","))
    return float(values[name])


def nothing_is_left_to_set(overlay: Overlay) -> Iterator[str]:
    """What the components leave to the overlay's `site` has been filled in."""
    for each in overlay.manifests:
        if "set-by-overlay" in json.dumps(each):
            yield f"{each['kind']} {each['metadata']['name']}: something is still set-by-overlay"
