"""The manifests fit the code, the cluster's rules and each other; each check can fail."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import manifest_rules as rules
from devstack.manifest_check import all_schema_errors, schema_errors
from devstack.manifest_network import (
    browsers_reach_the_gateway,
    network_is_the_call_graph,
    nothing_is_left_to_set,
)
from devstack.manifest_overlay import NAME, Overlay, loaded_settings
from devstack.manifest_rules import RULES, Rule
from devstack.manifests import FOLDER, OVERLAYS, of_kind, rendered_text
from devstack.rules import write_rules
from servicekit import server


@cache
def _loaded(name: str) -> Overlay:
    return Overlay.load(name)


def _overlay(name: str) -> Overlay:
    found = _loaded(name)
    return Overlay(name, copy.deepcopy(found.manifests), dict(found.site))


@pytest.mark.timeout(240)
def test_every_overlay_is_what_kubernetes_takes() -> None:
    assert list(all_schema_errors()) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
@pytest.mark.parametrize("name", OVERLAYS)
def test_rule_holds(name: str, rule: Rule) -> None:
    assert list(rule(_overlay(name))) == []


Change = Callable[[Overlay], object]


def _pod(overlay: Overlay, name: str, kind: str = "Deployment") -> Any:
    return overlay.of(kind)[name]["spec"]["template"]["spec"]


def _first(overlay: Overlay, name: str = "queue") -> Any:
    return _pod(overlay, name)["containers"][0]


def _migration(overlay: Overlay) -> Any:
    return _pod(overlay, "migrate-queue", "Job")["containers"][0]


def _hpa(overlay: Overlay) -> Any:
    return overlay.of("HorizontalPodAutoscaler")["queue"]["spec"]


def _scaled(overlay: Overlay) -> Any:
    return overlay.of("ScaledObject")["cdc-ingest"]["spec"]


def _monitor(overlay: Overlay) -> Any:
    return overlay.of("PodMonitor")["dialler"]["spec"]


def _variable(overlay: Overlay, service: str, variable: str, value: str | None) -> None:
    [name] = [each for each in overlay.of("ConfigMap") if each.startswith(f"{service}-")]
    data = overlay.of("ConfigMap")[name]["data"]
    if value is None:
        del data[variable]
    else:
        data[variable] = value


def _policy(overlay: Overlay, name: str) -> Any:
    return overlay.of("NetworkPolicy")[name]["spec"]


def _without(overlay: Overlay, kind: str, name: str) -> None:
    overlay.manifests.remove(overlay.of(kind)[name])


def _load_balancer(overlay: Overlay) -> Any:
    """Add components/alb and return its Ingress, which as it stands is good."""
    folder = FOLDER / "components" / "alb"
    for file in ("ingress.yaml", "network.yaml"):
        overlay.manifests.append(yaml.safe_load((folder / file).read_text(encoding="utf-8")))
    _variable(overlay, "gateway", "GATEWAY_TRUSTED_PROXIES", "1")
    _first(overlay, "gateway")["lifecycle"]["preStop"]["sleep"]["seconds"] = 20
    assert list(browsers_reach_the_gateway(overlay)) == []
    return overlay.of("Ingress")["gateway"]


def _untrusted(overlay: Overlay) -> None:
    _load_balancer(overlay)
    _variable(overlay, "gateway", "GATEWAY_TRUSTED_PROXIES", None)


def _shut_out(overlay: Overlay) -> None:
    _load_balancer(overlay)
    _without(overlay, "NetworkPolicy", "gateway-from-alb")


def _annotated(overlay: Overlay, name: str, value: str) -> None:
    annotations = _load_balancer(overlay)["metadata"]["annotations"]
    annotations[f"alb.ingress.kubernetes.io/{name}"] = value


BROKEN: list[tuple[Rule, str, Change]] = [
    (
        browsers_reach_the_gateway,
        "a port that is none",
        lambda o: _load_balancer(o)["spec"]["rules"][0]["http"]["paths"][0]["backend"][
            "service"
        ].update(port={"name": "grpc"}),
    ),
    (
        browsers_reach_the_gateway,
        "all clients have the load balancer's address",
        _untrusted,
    ),
    (
        browsers_reach_the_gateway,
        "a health check that no store may fail",
        lambda o: _annotated(o, "healthcheck-path", "/readyz"),
    ),
    (
        browsers_reach_the_gateway,
        "event streams cut between heartbeats",
        lambda o: _annotated(o, "load-balancer-attributes", "idle_timeout.timeout_seconds=20"),
    ),
    (
        browsers_reach_the_gateway,
        "connections that the gateway closes first",
        lambda o: _annotated(o, "load-balancer-attributes", "idle_timeout.timeout_seconds=300"),
    ),
    (
        browsers_reach_the_gateway,
        "requests to a pod that has gone",
        lambda o: _annotated(
            o, "target-group-attributes", "deregistration_delay.timeout_seconds=60"
        ),
    ),
    (
        browsers_reach_the_gateway,
        "no way in for the load balancer",
        _shut_out,
    ),
    (nothing_is_left_to_set, "a host that is not filled in", lambda o: _load_balancer(o)),
    (
        rules.every_service_is_deployed,
        "a service is gone",
        lambda o: _without(o, "PodDisruptionBudget", "queue"),
    ),
    (
        rules.selectors_select,
        "a Service leads nowhere",
        lambda o: o.of("Service")["queue"]["spec"]["selector"].update({NAME: "queues"}),
    ),
    (
        rules.selectors_select,
        "a budget protects no pod",
        lambda o: o.of("PodDisruptionBudget")["queue"]["spec"]["selector"]["matchLabels"].update(
            a="b"
        ),
    ),
    (
        rules.selectors_select,
        "an arrow from no pod",
        lambda o: _policy(o, "queue")["ingress"][0]["from"][0]["podSelector"]["matchLabels"].update(
            a="b"
        ),
    ),
    (
        rules.selectors_select,
        "a Deployment without its pods",
        lambda o: o.deployments["queue"]["spec"]["selector"]["matchLabels"].update(a="b"),
    ),
    (
        rules.ports_are_those_listened_on,
        "another gRPC port",
        lambda o: _variable(o, "queue", "QUEUE_GRPC_PORT", "50059"),
    ),
    (
        rules.ports_are_those_listened_on,
        "loopback only",
        lambda o: _variable(o, "queue", "QUEUE_BIND_HOST", None),
    ),
    (
        rules.ports_are_those_listened_on,
        "a Service's port that is none",
        lambda o: o.of("Service")["gateway"]["spec"]["ports"][0].update(targetPort="web"),
    ),
    (
        rules.targets_are_headless_services,
        "one address for all pods",
        lambda o: o.of("Service")["queue"]["spec"].pop("clusterIP"),
    ),
    (
        rules.targets_are_headless_services,
        "no round robin",
        lambda o: _variable(o, "gateway", "GATEWAY_QUEUE_TARGET", "queue:50052"),
    ),
    (
        rules.targets_are_headless_services,
        "another service's port",
        lambda o: _variable(o, "gateway", "GATEWAY_QUEUE_TARGET", "dns:///queue:50051"),
    ),
    (
        rules.targets_are_headless_services,
        "another service",
        lambda o: _variable(o, "gateway", "GATEWAY_QUEUE_TARGET", "dns:///user-context:50051"),
    ),
    (
        rules.probes_ask_what_exists,
        "liveness depends on stores",
        lambda o: _first(o)["livenessProbe"]["grpc"].pop("service"),
    ),
    (
        rules.probes_ask_what_exists,
        "a service that is in no contract",
        lambda o: _first(o)["readinessProbe"]["grpc"].update(service="queue"),
    ),
    (
        rules.probes_ask_what_exists,
        "another port",
        lambda o: _first(o)["readinessProbe"]["grpc"].update(port=50051),
    ),
    (
        rules.probes_ask_what_exists,
        "the gateway lives by its services",
        lambda o: _first(o, "gateway")["livenessProbe"]["httpGet"].update(path="/readyz"),
    ),
    (
        rules.commands_exist,
        "a module that is none",
        lambda o: _first(o).update(args=["services.queues"]),
    ),
    (
        rules.commands_exist,
        "a module that does nothing when started",
        lambda o: _first(o).update(args=["services.queue.app"]),
    ),
    (
        rules.commands_exist,
        "another image's module",
        lambda o: _first(o).update(args=["services.reconciler"]),
    ),
    (
        rules.commands_exist,
        "migrations of another image",
        lambda o: _migration(o).update(args=["servicekit.migrations", "services.reconciler"]),
    ),
    (
        rules.commands_exist,
        "an argument it does not take",
        lambda o: _first(o, "reconciler").update(
            args=["services.reconciler.reconcile", "--target=x", "--kind=weekly"]
        ),
    ),
    (
        rules.variables_are_settings,
        "a slip of the pen",
        lambda o: _variable(o, "queue", "QUEUE_GRPC_PROT", "1"),
    ),
    (
        rules.variables_are_settings,
        "a required one is missing",
        lambda o: _variable(o, "queue", "QUEUE_USER_CONTEXT_TARGET", None),
    ),
    (
        rules.variables_are_settings,
        "an impossible value",
        lambda o: _variable(o, "queue", "QUEUE_DRAIN_SECONDS", "-1"),
    ),
    (rules.variables_are_settings, "no secrets", lambda o: _first(o)["envFrom"].pop()),
    (
        rules.variables_are_settings,
        "a ConfigMap that is none",
        lambda o: _first(o)["envFrom"][0]["configMapRef"].update(name="q"),
    ),
    (
        rules.files_named_are_mounted,
        "certificates that are not mounted",
        lambda o: _first(o, "user-context")["volumeMounts"].pop(),
    ),
    (
        rules.files_named_are_mounted,
        "certificates under another name",
        lambda o: _variable(
            o, "user-context", "USER_CONTEXT_MYSQL_TLS_CA_FILE", "/etc/dialler/mysql/c.pem"
        ),
    ),
    (
        rules.jobs_get_their_secrets,
        "a key that the secret does not have",
        lambda o: _migration(o)["env"][0]["valueFrom"]["secretKeyRef"].update(key="POSTGRES_URL"),
    ),
    (
        rules.every_schema_is_migrated,
        "a Job is gone",
        lambda o: _without(o, "Job", "migrate-queue"),
    ),
    (
        network_is_the_call_graph,
        "an arrow too few on the way out",
        lambda o: _policy(o, "gateway")["egress"].pop(0),
    ),
    (
        network_is_the_call_graph,
        "an arrow too few on the way in",
        lambda o: _policy(o, "queue")["ingress"][0]["from"].pop(),
    ),
    (
        network_is_the_call_graph,
        "an arrow too many",
        lambda o: _policy(o, "queue")["egress"].append(
            {"to": [{"podSelector": {"matchLabels": {NAME: "gateway"}}}], "ports": [{"port": 8080}]}
        ),
    ),
    (
        network_is_the_call_graph,
        "a store too many",
        lambda o: _policy(o, "queue-stores")["egress"].append(
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 3306}]}
        ),
    ),
    (
        network_is_the_call_graph,
        "a store too few",
        lambda o: _policy(o, "user-context-stores")["egress"].pop(),
    ),
    (
        network_is_the_call_graph,
        "open by default",
        lambda o: _policy(o, "deny-all")["policyTypes"].pop(),
    ),
    (
        rules.grace_is_long_enough,
        "killed in mid drain",
        lambda o: _variable(o, "queue", "QUEUE_DRAIN_SECONDS", "25"),
    ),
    (rules.grace_is_long_enough, "gone before its name", lambda o: _first(o).pop("lifecycle")),
    (
        rules.one_owner_of_the_number_of_copies,
        "replicas beside an autoscaler",
        lambda o: o.deployments["queue"]["spec"].update(replicas=3),
    ),
    (
        rules.one_owner_of_the_number_of_copies,
        "two autoscalers",
        lambda o: _scaled(o)["scaleTargetRef"].update(name="queue"),
    ),
    (
        rules.one_owner_of_the_number_of_copies,
        "no Deployment to scale",
        lambda o: _hpa(o)["scaleTargetRef"].update(name="x"),
    ),
    (
        rules.one_owner_of_the_number_of_copies,
        "a fallback out of range",
        lambda o: _scaled(o)["fallback"].update(replicas=99),
    ),
    (
        rules.scaling_metrics_exist,
        "a metric that nothing exports",
        lambda o: _hpa(o)["metrics"][1]["pods"]["metric"].update(name="grpc_in_flight"),
    ),
    (
        rules.scaling_metrics_exist,
        "another queue's backlog",
        lambda o: _scaled(o)["triggers"][0]["metadata"].update(queueURL="https://other"),
    ),
    (
        rules.scaling_metrics_exist,
        "another queue's age",
        lambda o: _scaled(o)["triggers"][1]["metadata"].update(dimensionValue="other"),
    ),
    (
        rules.metrics_are_read,
        "no monitor reads them",
        lambda o: _without(o, "PodMonitor", "dialler"),
    ),
    (
        rules.metrics_are_read,
        "pods that are not looked for",
        lambda o: _monitor(o)["selector"].update(matchLabels={NAME: "queue"}),
    ),
    (
        rules.metrics_are_read,
        "a port of another name",
        lambda o: _monitor(o)["podMetricsEndpoints"][0].update(port="prometheus"),
    ),
    (
        rules.metrics_are_read,
        "all services one job",
        lambda o: _monitor(o).pop("jobLabel"),
    ),
    (
        rules.connections_fit_the_databases,
        "more copies than PostgreSQL has room for",
        lambda o: _hpa(o).update(maxReplicas=30),
    ),
    (
        rules.connections_fit_the_databases,
        "wider pools than MySQL has room for",
        lambda o: _variable(o, "user-context", "USER_CONTEXT_MYSQL_BULK_CONNECTIONS", "40"),
    ),
    (
        rules.pods_are_restricted,
        "Services leak variables",
        lambda o: _pod(o, "gateway").pop("enableServiceLinks"),
    ),
    (
        rules.pods_are_restricted,
        "a token",
        lambda o: _pod(o, "gateway").update(automountServiceAccountToken=True),
    ),
    (
        rules.pods_are_restricted,
        "a root that can be written to",
        lambda o: _migration(o)["securityContext"].pop("readOnlyRootFilesystem"),
    ),
    (rules.pods_are_restricted, "no limits", lambda o: _first(o)["resources"].pop("limits")),
    (
        rules.accounts_take_their_roles,
        "another's role",
        lambda o: o.of("ServiceAccount")["queue"]["metadata"]["annotations"].update(
            {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/dialler-gateway"}
        ),
    ),
    (
        rules.disruptions_leave_a_copy,
        "a node that can never be emptied",
        lambda o: o.of("PodDisruptionBudget")["queue"]["spec"].update(maxUnavailable=0),
    ),
    (
        rules.images_are_ours,
        "whatever is latest",
        lambda o: _first(o).update(image="dialler/queue:latest"),
    ),
    (
        rules.images_are_ours,
        "a migration of another version",
        lambda o: _migration(o).update(image="other/queue:0.1.0"),
    ),
]


@pytest.mark.parametrize(
    ("rule", "change"),
    [pytest.param(rule, change, id=f"{rule.__name__}: {told}") for rule, told, change in BROKEN],
)
def test_rule_finds(rule: Rule, change: Change) -> None:
    overlay = _overlay("production")
    change(overlay)
    assert list(rule(overlay))


def test_every_rule_is_shown_to_find_something() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", lambda each: each["spec"].update(replica=3)),
        ("HorizontalPodAutoscaler", lambda each: each["spec"].update(maxReplicas="many")),
        ("ScaledObject", lambda each: each["spec"].update(maxReplicas=3)),
        (
            "ScaledObject",
            lambda each: each["spec"]["triggers"][0]["metadata"].update(queueLenght="1"),
        ),
        ("ScaledObject", lambda each: each["spec"]["triggers"][1]["metadata"].pop("awsRegion")),
        ("TriggerAuthentication", lambda each: each["spec"]["podIdentity"].update(provider="eks")),
        ("PodMonitor", lambda each: each["spec"].update(podMetricsEndpoint=[])),
        ("PrometheusRule", lambda each: each["spec"]["groups"][-1]["rules"][0].pop("alert")),
        ("ExternalSecret", lambda each: each["spec"]["data"][0].pop("remoteRef")),
        ("ExternalSecret", lambda each: each.update(kind="ExternalSecrets")),
    ],
)
def test_schemas_find(kind: str, change: Callable[[Any], object]) -> None:
    overlay = _overlay("production")
    manifest = next(iter(overlay.of(kind).values()))
    assert list(schema_errors(manifest)) == []
    change(manifest)
    assert list(schema_errors(manifest))


def _with_cron_jobs(folder: Path) -> Overlay:
    """Production as if it listed the component that is off."""
    services = FOLDER / "overlays" / "production" / "services"
    told = yaml.safe_load((services / "kustomization.yaml").read_text(encoding="utf-8"))
    # Above the images, so that its own are named too.
    told["components"].insert(-1, "../../../components/reconciler-cron")
    for key in ("resources", "components"):
        told[key] = [os.path.relpath((services / each).resolve(), folder) for each in told[key]]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    changed = [each for each in yaml.safe_load_all(rendered_text(folder)) if each]
    known = _overlay("production")
    seen = {(each["kind"], each["metadata"]["name"]) for each in changed}
    # What the services' step gave before is replaced; the other steps' stay.
    kept = [
        e
        for e in known.manifests
        if e["kind"] in ("Namespace", "ExternalSecret", "Job")
        or e["metadata"]["name"] in ("deny-all", "names", "migrations", "migrations-stores")
    ]
    kept = [each for each in kept if (each["kind"], each["metadata"]["name"]) not in seen]
    return Overlay("production", kept + changed, known.site)


# Each command is started once to see that it takes its arguments.
@pytest.mark.timeout(240)
def test_cron_jobs_instead_of_the_reconcilers_own_clock(tmp_path: Path) -> None:
    overlay = _with_cron_jobs(tmp_path)
    for rule in RULES:
        assert list(rule(overlay)) == [], rule.__name__
    for each in overlay.of("CronJob").values():
        assert list(schema_errors(each)) == []
    schedules = {name: each["spec"]["schedule"] for name, each in overlay.of("CronJob").items()}
    assert schedules == {
        "reconcile-changed": "*/15 * * * *",
        "reconcile-warming": "5 * * * *",
        "reconcile-full": "20 */6 * * *",
        "reconcile-housekeeping": "40 3 * * *",
    }
    settings = loaded_settings("reconciler", overlay.environment(overlay.container("reconciler")))
    for kind in ("full", "changed", "warming", "housekeeping"):
        assert getattr(settings, f"{kind}_every_seconds") == 0


@pytest.mark.parametrize("name", OVERLAYS)
def test_without_that_component_the_reconciler_keeps_its_clock(name: str) -> None:
    overlay = _overlay(name)
    assert overlay.of("CronJob") == {}
    settings = loaded_settings("reconciler", overlay.environment(overlay.container("reconciler")))
    assert settings.full_every_seconds == 6 * 3_600


def test_the_local_rules_are_those_of_the_local_stack(tmp_path: Path) -> None:
    there = FOLDER / "overlays" / "local" / "services" / "rules.yaml"
    assert there.read_text() == write_rules(tmp_path / "rules.yaml").read_text()


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_site_itself_is_not_sent_to_the_cluster(name: str) -> None:
    assert of_kind(_overlay(name).manifests, "ConfigMap").keys().isdisjoint({"site"})


@pytest.mark.parametrize("path", sorted((FOLDER / "examples").iterdir()), ids=lambda it: it.name)
def test_an_example_is_what_its_operator_takes(path: Path) -> None:
    example = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(schema_errors(example)) == []
    example["spec"]["provider"]["aws"]["servise"] = example["spec"]["provider"]["aws"].pop(
        "service"
    )
    assert list(schema_errors(example))


def test_external_secrets_name_the_store_of_the_example() -> None:
    example = yaml.safe_load((FOLDER / "examples/cluster-secret-store.yaml").read_text())
    stores = {
        (it["spec"]["secretStoreRef"]["kind"], it["spec"]["secretStoreRef"]["name"])
        for it in _overlay("production").of("ExternalSecret").values()
    }
    assert stores == {(example["kind"], example["metadata"]["name"])}


def test_the_adapter_of_the_page_serves_what_autoscalers_ask_for() -> None:
    page = (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(rules:.+?)```", page, re.DOTALL)
    [rule] = yaml.safe_load(block)["rules"]
    [served] = re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    hpas = _overlay("production").of("HorizontalPodAutoscaler").values()
    metrics = [each for hpa in hpas for each in hpa["spec"]["metrics"] if each["type"] == "Pods"]
    assert len(metrics) == 4
    for each in metrics:
        assert re.fullmatch(served, each["pods"]["metric"]["name"])


def test_callers_find_new_pods_as_soon_as_the_page_says() -> None:
    page = (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    seconds = dict(server.OPTIONS)["grpc.max_connection_age_ms"] // 1000
    assert f"Callers find new pods within {seconds} s" in page
