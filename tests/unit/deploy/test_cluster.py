"""Deploying step by step, with a kubectl that writes down what it is asked."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from devstack import cluster as module
from devstack.cluster import Cluster, DeployError, deploy, problems, start_capture, stop_capture
from devstack.cluster_versions import ClusterFacts, version_problems
from devstack.manifest_overlay import Overlay

# Answers from answers.json by the longest beginning of what it is asked; a list gives one answer
# after the other. An answer is its output, or null for a failure.
KUBECTL = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
asked = " ".join(it for it in sys.argv[1:] if not it.startswith("--namespace"))
with (folder / "asked.txt").open("a") as log:
    log.write(asked + "\\n")
answers = json.loads((folder / "answers.json").read_text())
fitting = [it for it in answers if asked.startswith(it)]
answer = answers[max(fitting, key=len)] if fitting else ""
if isinstance(answer, list):
    first, *rest = answer
    answers[max(fitting, key=len)] = rest or [first]
    (folder / "answers.json").write_text(json.dumps(answers))
    answer = first
if answer is None:
    sys.exit("it failed")
print(answer if isinstance(answer, str) else json.dumps(answer))
"""


APIS = (
    "apps/v1",
    "custom.metrics.k8s.io/v1beta2",
    "external-secrets.io/v1",
    "keda.sh/v1alpha1",
    "metrics.k8s.io/v1beta1",
    "monitoring.coreos.com/v1",
)


class StubCluster:
    """A cluster whose kubectl is a script in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        script = folder / "kubectl"
        script.write_text(KUBECTL.format(python=sys.executable))
        script.chmod(0o755)
        self.cluster = Cluster(kubectl=str(script))
        self.answer(
            {
                "get externalsecrets": {"items": []},
                "get jobs": {"items": [_job("migrate-queue", "Complete")]},
                "get deployments": [
                    _deployments(queue=1, gateway=1),
                    _deployments(queue=2, gateway=1),
                ],
                "get scaledobjects": {"items": [{}]},
                "get deployments --all-namespaces": _running(
                    "registry.example:5000/mirror/kedacore/keda:2.15.1",
                    "registry.example/external-secrets/external-secrets:v0.17.0@sha256:abc",
                    "registry.example/eks/aws-load-balancer-controller:v2.4.0",
                    "other/keda:1.0",
                ),
                "version -o json": {"serverVersion": {"gitVersion": "v1.33.1-eks-1"}},
                "api-versions": "\n".join(APIS),
                "api-resources": "scaledobjects.keda.sh",
            }
        )

    def answer(self, answers: dict[str, Any]) -> None:
        file = self._folder / "answers.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | answers))

    @property
    def asked(self) -> list[str]:
        return (self._folder / "asked.txt").read_text().splitlines()

    @property
    def changed(self) -> list[str]:
        """What was asked that changes the cluster."""
        reads = (
            "get ",
            "wait ",
            "api-resources",
            "api-versions",
            "version ",
            "logs ",
            "rollout status",
            "exec ",
        )
        return [it for it in self.asked if not it.startswith(reads)]


def _job(name: str, *conditions: str) -> dict[str, Any]:
    status = {"conditions": [{"type": it, "status": "True"} for it in conditions]}
    return {"metadata": {"name": name}, "status": status}


def _running(*images: str) -> dict[str, Any]:
    pods = [{"spec": {"containers": [{"image": image}]}} for image in images]
    return {"items": [{"spec": {"template": pod}} for pod in pods]}


def _deployments(**revisions: int) -> dict[str, Any]:
    key = "deployment.kubernetes.io/revision"
    return {
        "items": [
            {"metadata": {"name": name, "annotations": {key: str(revision)}}}
            for name, revision in revisions.items()
        ]
    }


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubCluster:
    monkeypatch.setattr(module, "problems", lambda name: iter(()))
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    return StubCluster(tmp_path)


def _steps(asked: list[str]) -> list[str]:
    return [it.rpartition("/")[2] for it in asked if it.startswith("apply")]


def test_the_steps_are_applied_in_order(stub: StubCluster) -> None:
    stub.answer({"get jobs": [{"items": [_job("a")]}, {"items": [_job("a", "Complete")]}]})
    deploy(stub.cluster, "staging")
    assert _steps(stub.asked) == ["foundation", "migrations", "services"]
    assert not any("undo" in it for it in stub.asked)


def test_migrations_wait_for_stores_that_are_in_the_cluster(stub: StubCluster) -> None:
    deploy(stub.cluster, "local")
    waited = stub.asked.index("rollout status statefulset/stores --timeout=600s")
    applied = [at for at, it in enumerate(stub.asked) if it.startswith("apply")]
    assert applied[0] < waited < applied[1]


def test_a_failed_migration_ends_it_at_once_and_leaves_the_services(
    stub: StubCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = {"items": [_job("migrate-queue", "Failed"), _job("migrate-reconciler")]}
    stub.answer({"get jobs": jobs, "logs job/migrate-queue": "lock not available"})
    with pytest.raises(DeployError, match="migrate-queue failed"):
        deploy(stub.cluster, "staging")
    assert _steps(stub.asked) == ["foundation", "migrations"]
    assert "lock not available" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["apply -k", "rollout status", "exec deployment/gateway"])
def test_a_failed_roll_out_takes_back_what_it_changed(stub: StubCluster, step: str) -> None:
    # The third apply is that of the services.
    stub.answer({step: ["", "", None] if step == "apply -k" else None})
    with pytest.raises(DeployError, match="queue went back"):
        deploy(stub.cluster, "staging")
    assert [it for it in stub.asked if "undo" in it] == ["rollout undo deployment/queue"]


def test_a_first_roll_out_that_fails_has_nothing_to_go_back_to(stub: StubCluster) -> None:
    stub.answer(
        {"rollout status": None, "get deployments": [_deployments(), _deployments(queue=1)]}
    )
    with pytest.raises(DeployError, match="nothing to go back to"):
        deploy(stub.cluster, "staging")
    assert not any("undo" in it for it in stub.asked)


def _without(api: str) -> dict[str, Any]:
    return {"api-versions": "\n".join(it for it in APIS if it != api)}


def _with(image: str) -> dict[str, Any]:
    return {"get deployments --all-namespaces": _running("registry.example/other:1", image)}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"version -o json": {"serverVersion": {"gitVersion": "v1.29.9"}}}, "Kubernetes is 1.29"),
        (_without("keda.sh/v1alpha1"), "does not serve keda.sh/v1alpha1: install KEDA 2.13"),
        (_without("external-secrets.io/v1"), "install External Secrets 0.16"),
        (_without("metrics.k8s.io/v1beta1"), "install metrics-server"),
        (_without("custom.metrics.k8s.io/v1beta2"), "custom.metrics.k8s.io: install an adapter"),
        (_with("registry.example:5000/kedacore/keda:2.9.3"), "KEDA is 2.9.3; 2.13 is needed"),
        (_with("external-secrets/external-secrets:v0.15.1-ubi"), "External Secrets is 0.15.1"),
        (_with("prometheus-operator/prometheus-operator:v0.55.1@sha256:abc"), "operator is 0.55.1"),
    ],
)
def test_a_cluster_that_lacks_something_is_left_as_it_is(
    stub: StubCluster, answers: dict[str, Any], said: str
) -> None:
    stub.answer(answers)
    with pytest.raises(DeployError, match=re.escape(said)):
        deploy(stub.cluster, "staging")
    assert stub.changed == []


def test_what_an_overlay_does_not_need_may_be_missing(stub: StubCluster) -> None:
    stub.answer({"api-versions": "apps/v1"})
    deploy(stub.cluster, "local")
    assert "services" in _steps(stub.asked)


def test_an_account_of_one_namespace_deploys(
    stub: StubCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer({"get deployments --all-namespaces": None})
    deploy(stub.cluster, "staging")
    assert "the operators' versions are not seen" in capsys.readouterr().out


def test_a_load_balancer_needs_its_controller() -> None:
    overlay = Overlay.load("local")
    overlay.manifests.append(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "gateway"},
            "spec": {"ingressClassName": "alb"},
        }
    )
    facts = ClusterFacts("v1.36.0", frozenset({"apps/v1"}), ())
    [problem] = version_problems(overlay, facts)
    assert "install AWS Load Balancer Controller 2.4" in problem


def test_an_overlay_that_is_not_filled_in_is_not_deployed() -> None:
    for name in ("staging", "production"):
        found = list(problems(name))
        assert all("is a placeholder" in it for it in found)
        # Six images, the account, two queues.
        assert len(found) == 9
    assert list(problems("local")) == []


def test_capture_is_stopped_by_the_annotation_that_keda_obeys(stub: StubCluster) -> None:
    stop_capture(stub.cluster)
    assert stub.changed == [
        "annotate --overwrite scaledobject/cdc-ingest autoscaling.keda.sh/paused-replicas=0",
        "scale deployment/binlog-relay --replicas=0",
    ]


def test_capture_starts_again_as_the_overlay_says(stub: StubCluster) -> None:
    start_capture(stub.cluster, "production")
    assert stub.changed == [
        "annotate scaledobject/cdc-ingest autoscaling.keda.sh/paused-replicas-",
        "scale deployment/binlog-relay --replicas=2",
    ]


def test_without_keda_capture_is_scaled(stub: StubCluster) -> None:
    stub.answer({"api-resources": ""})
    stop_capture(stub.cluster)
    start_capture(stub.cluster, "local")
    assert stub.changed == [
        "scale deployment/cdc-ingest --replicas=0",
        "scale deployment/binlog-relay --replicas=0",
        "scale deployment/cdc-ingest --replicas=1",
        "scale deployment/binlog-relay --replicas=1",
    ]


def test_a_context_is_handed_on(stub: StubCluster) -> None:
    Cluster("other", stub.cluster.kubectl).run("get", "pods")
    assert stub.asked == ["--context=other get pods"]
