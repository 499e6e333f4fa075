"""What dashboards, rules and alarms name exists, and every alert has its page."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import gateway
import servicekit
import services
from devstack import grafana, monitoring
from devstack.alerting import (
    ALERTS,
    ALWAYS_THERE,
    JOB_HOURS,
    JOBS,
    OBJECTIVES,
    RUNBOOKS_URL,
    alert_names,
    rules,
)
from devstack.aws_templates import load, resources
from devstack.dashboards import DASHBOARDS
from devstack.images import IMAGES

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "docs" / "runbooks"
# The name of an alert, where other pages are named otherwise.
_ALERT_PAGE = "Dialler*.md"
_METRIC = re.compile(r"\b(?:dialler|process)_[a-z0-9_]+\b")
# Their first increase may go unseen: heartbeats come every few seconds, and of failures several
# are asked for.
_SEEN_SOON = {
    "dialler_cdc_ingest_records_total",
    "dialler_grpc_server_seconds_count",
    "dialler_http_server_seconds_count",
}
_AGGREGATION = re.compile(
    r"\b(?:sum|min|max|avg|count|group|topk|quantile)\b(?! by \(cluster, namespace)"
)
_SELECTOR = re.compile(r"(?:\b(?:dialler|process)_[a-z0-9_]+|\bdialler:[a-z0-9_:]+)(\{[^}]*\})?")


def _modules(package: ModuleType) -> Iterator[str]:
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not re.search(r"__main__|\.testing|\.migrations|\.env$", each.name):
            yield each.name


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Every time series any service has."""
    for package in (servicekit, services, gateway):
        for module in _modules(package):
            importlib.import_module(module)
    known: set[str] = set()
    for family in REGISTRY.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        known |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return known


def test_every_metric_of_a_rule_exists(names: set[str]) -> None:
    expressions = [rule["expr"] for group in rules()["groups"] for rule in group["rules"]]
    used = {name for each in expressions for name in _METRIC.findall(each)}
    assert len(used) > 15
    assert used <= names


def test_what_an_alert_sees_rise_is_there_before_it_does(names: set[str]) -> None:
    rising = {
        name
        for each in ALERTS
        for name in re.findall(r"\bincrease\((\w+)", each.expression)
        if name not in _SEEN_SOON
    }
    assert len(rising) > 2
    assert rising <= names
    assert rising <= _begun()


def test_whose_absence_is_told_is_there_from_the_start(names: set[str]) -> None:
    assert set(ALWAYS_THERE.values()) <= names & _begun()
    assert ALWAYS_THERE.keys() == set(IMAGES) - {"binlog_relay"}


def _begun() -> set[str]:
    return {sample.name for family in REGISTRY.collect() for sample in family.samples}


def test_every_metric_of_a_dashboard_exists(names: set[str]) -> None:
    used = {name for each in monitoring.expressions() for name in _METRIC.findall(each)}
    assert len(used) > 30
    assert used <= names


def test_every_recorded_series_of_a_dashboard_is_a_rules() -> None:
    recorded = {r["record"] for g in rules()["groups"] for r in g["rules"] if "record" in r}
    used = set(re.findall(r"dialler:[a-z0-9_:]+", " ".join(monitoring.expressions())))
    assert used
    assert used <= recorded


def _expressions() -> dict[str, str]:
    every = [rule for group in rules()["groups"] for rule in group["rules"]]
    return {rule.get("alert") or rule["record"]: rule["expr"] for rule in every}


def test_every_rule_keeps_cluster_and_namespace() -> None:
    for name, expression in _expressions().items():
        assert not _AGGREGATION.search(expression), name
        assert "without" not in expression, name
        for matched in re.findall(r"\b(?:on|ignoring) \(([^)]*)\)", expression):
            assert matched.startswith("cluster, namespace"), name


def test_a_burn_and_a_share_are_told_of_several_events_only() -> None:
    burning = next(each for each in rules()["groups"] if each["name"] == "dialler-burn")["rules"]
    assert burning
    shares = [_expressions()[name] for name in ("DiallerGatewayFailing", "DiallerServiceFailing")]
    for each in [rule["expr"] for rule in burning] + shares:
        (least,) = re.findall(r" and [^>]+ >= (\d+)$", each)
        assert int(least) > 1, each


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_series_of_a_dashboard_is_what_its_variables_choose(name: str) -> None:
    shown = json.loads(grafana.dashboard_json(name))
    chosen = [it["name"] for it in shown["templating"]["list"] if it["type"] == "query"]
    assert chosen == ["cluster", "namespace", *(["service"] if name == "service" else [])]
    labels = {"service": "job"}
    wanted = [f'{labels.get(it, it)}=~"${it}"' for it in chosen]
    for target in (it for panel in shown["panels"] for it in panel["targets"]):
        confined = _SELECTOR.findall(target["expr"])
        assert confined
        for each in confined:
            assert set(wanted) <= set(each.strip("{}").split(",")), target["expr"]


def test_an_alert_names_the_address_of_its_page() -> None:
    every = [rule for group in rules()["groups"] for rule in group["rules"] if "alert" in rule]
    for rule in every:
        assert rule["annotations"].keys() == {"summary", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS_URL}/{rule['alert']}.md"
    assert RUNBOOKS_URL.startswith("https://")
    assert not RUNBOOKS_URL.endswith("/")


def test_the_jobs_that_are_watched_are_those_of_the_manifests() -> None:
    jobs = {
        it["metadata"]["name"]: it["spec"].get("jobTemplate", it)["spec"]
        for path in ("base/migrations/jobs.yaml", "components/reconciler-cron/cron-jobs.yaml")
        for it in yaml.safe_load_all((ROOT / "deploy" / "k8s" / path).read_text("utf-8"))
    }
    assert len(jobs) > 4
    assert all(re.fullmatch(JOBS, name) for name in jobs)
    longest_seconds = max(it["activeDeadlineSeconds"] for it in jobs.values())
    assert longest_seconds < (JOB_HOURS - 1) * 3600, "it fails at its deadline, and is still told"


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob(_ALERT_PAGE)} == set(alert_names())
    for path in RUNBOOKS.glob(_ALERT_PAGE):
        text = path.read_text("utf-8")
        for part in ("**Meaning.**", "**Impact.**", "**First look**", "**Fix**"):
            assert part in text, path.name
        for linked in re.findall(r"\]\(([^)]+)\)", text):
            assert (RUNBOOKS / linked.partition("#")[0]).exists(), f"{path.name}: {linked}"


def test_every_alert_has_been_seen_to_fire() -> None:
    paths = (monitoring.FOLDER / "tests").glob("*.yaml")
    tests = [it for each in paths for it in yaml.safe_load(each.read_text("utf-8"))["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fired == set(alert_names())


def test_what_is_committed_is_what_the_code_says() -> None:
    for path, text in monitoring.files().items():
        assert path.read_text("utf-8") == text, path.name


def test_burn_rates_are_of_the_slos() -> None:
    assert {each.name: each.target for each in OBJECTIVES} == {
        "change_visible": 0.99,
        "claim_answered": 0.999,
    }
    assert next(each for each in ALERTS if each.name == "DiallerWrongCall").severity == "page"


def test_cloudwatch_watches_the_same_slos() -> None:
    alarms = resources("AWS::CloudWatch::Alarm")
    for name, objective in (("ChangesLate", OBJECTIVES[0]), ("ClaimsSlow", OBJECTIVES[1])):
        alarm = alarms["service-alarms", name]
        assert alarm["Threshold"] == pytest.approx(14.4 * 100 * (1 - objective.target))
        assert objective.alert in alarm["AlarmDescription"]


def _collector() -> dict[str, Any]:
    path = ROOT / "deploy/k8s/components/collector/collector.yaml"
    return dict(yaml.safe_load(path.read_text("utf-8")))


def test_cloudwatch_alarms_are_on_metrics_the_collector_brings(names: set[str]) -> None:
    config = _collector()
    [job] = config["receivers"]["prometheus"]["config"]["scrape_configs"]
    [kept] = [each["regex"] for each in job["metric_relabel_configs"]]
    brought = {name for name in names if re.fullmatch(kept, name)}
    labels = {each["target_label"]: each["replacement"] for each in job["relabel_configs"]}
    exporter = config["exporters"]["awsemf"]
    [declared] = exporter["metric_declarations"]
    template = load("service-alarms")["Parameters"]
    assert exporter["namespace"] == template["MetricsNamespace"]["Default"]
    assert labels == {"suite": template["SuiteName"]["Default"]}
    for alternative in kept.split("|dialler"):
        pattern = f"dialler{alternative.removeprefix('dialler')}"
        assert any(re.fullmatch(pattern, name) for name in names), f"{pattern} is no metric"
    alarms = {
        name: each
        for (template, name), each in resources("AWS::CloudWatch::Alarm").items()
        if template == "service-alarms"
    }
    assert alarms
    for each in alarms.values():
        stats = [it["MetricStat"] for it in each.get("Metrics", ()) if "MetricStat" in it]
        asked = {it["Metric"]["MetricName"] for it in stats} or {each["MetricName"]}
        assert asked <= brought
        dimensions = [it["Metric"]["Dimensions"] for it in stats] or [each["Dimensions"]]
        assert all([it["Name"] for it in of] in declared["dimensions"] for of in dimensions)
        (page,) = re.findall(r"docs/runbooks/\w+\.md", each["AlarmDescription"])
        assert (ROOT / page).exists()
