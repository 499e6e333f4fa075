"""`make deploy ENV=production`: an overlay into a cluster, step by step, and back if it fails.

`make stop-capture` and `make start-capture` stop and start change capture in it: KEDA would undo a
scaling by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devstack.cluster_versions import ClusterFacts, version_problems
from devstack.manifest_check import schema_errors
from devstack.manifest_overlay import Overlay
from devstack.manifest_rules import RULES
from devstack.manifests import FOLDER, KUBECTL, OVERLAYS, RenderError, with_pods

NAMESPACE = "dialler"
PLACEHOLDERS = re.compile(r"\bregistry\.example\b|\b111122223333\b|\b444455556666\b")
PAUSED = "autoscaling.keda.sh/paused-replicas"
_POLL_SECONDS = 2.0
_MIGRATIONS_SECONDS = 900.0
_ROLL_OUT_SECONDS = 600
# What the gateway's own container asks itself: no network policy is in the way.
_SMOKE_TEST = (
    "import urllib.request; "
    "print(urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=10).read().decode())"
)


class DeployError(Exception):
    """A step failed; the text says which, and what the cluster runs now."""


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that kubectl, or one of its contexts, leads to."""

    context: str | None = None
    kubectl: str = str(KUBECTL)

    def run(self, *arguments: str) -> str:
        """Return what kubectl prints; raises `DeployError` with what it complains of."""
        done = self._done(*arguments)
        if done.returncode != 0:
            raise DeployError(f"kubectl {' '.join(arguments[:3])}: {done.stderr.strip()}")
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Run kubectl and show what it prints."""
        done = self._done(*arguments)
        print((done.stdout + done.stderr).strip(), flush=True)
        return done.returncode == 0

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` finds."""
        return list(json.loads(self.run("get", *arguments, "-o", "json"))["items"])

    def facts(self) -> ClusterFacts:
        """Return the versions that the cluster has; raises `DeployError`."""
        server = json.loads(self.run("version", "-o", "json"))["serverVersion"]["gitVersion"]
        apis = frozenset(self.run("api-versions").split())
        try:
            deployments = self.items("deployments", "--all-namespaces")
        except DeployError as error:
            # An account that may deploy into one namespace may not look at the others.
            print(f"the operators' versions are not seen: {error}", flush=True)
            deployments = []
        specs = [each["spec"]["template"]["spec"] for each in deployments]
        images = [container["image"] for spec in specs for container in spec["containers"]]
        return ClusterFacts(server, apis, images)

    def _done(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        context = [f"--context={self.context}"] if self.context else []
        command = [self.kubectl, *context, f"--namespace={NAMESPACE}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def problems(name: str) -> Iterator[str]:
    """Yield why an overlay cannot be deployed: it does not fit, or is not filled in."""
    try:
        overlay = Overlay.load(name)
    except RenderError as error:
        yield str(error)
        return
    for manifest in overlay.manifests:
        yield from schema_errors(manifest)
    for rule in RULES:
        yield from rule(overlay)
    images = (it["image"] for _, spec in with_pods(overlay.manifests) for it in spec["containers"])
    for value in sorted({*images, *overlay.site.values()}):
        if PLACEHOLDERS.search(value):
            yield f"{value} is a placeholder: fill in images/kustomization.yaml and site/site.env"


def deploy(cluster: Cluster, name: str) -> None:
    """Apply all steps of an overlay; raises `DeployError`, with the services as they were.

    Migrations are not undone: the code before runs on the schema after.
    """
    _refuse(problems(name))
    overlay = Overlay.load(name)
    _refuse(version_problems(overlay, cluster.facts()))
    folder = FOLDER / "overlays" / name
    print("foundation ...", flush=True)
    cluster.run("apply", "-k", str(folder / "foundation"))
    for stores in overlay.of("StatefulSet"):
        cluster.run("rollout", "status", f"statefulset/{stores}", f"--timeout={_ROLL_OUT_SECONDS}s")
    if cluster.items("externalsecrets") if name != "local" else ():
        cluster.run("wait", "--for=condition=Ready", "externalsecret", "--all", "--timeout=120s")
    print("migrations ...", flush=True)
    label = "app.kubernetes.io/name=migrations"
    cluster.run("delete", "job", "-l", label, "--ignore-not-found")
    cluster.run("apply", "-k", str(folder / "migrations"))
    wait_for_jobs(cluster, label)
    before = _revisions(cluster)
    print("services ...", flush=True)
    is_applied = cluster.succeeds("apply", "-k", str(folder / "services"))
    if not is_applied or not _is_rolled_out(cluster) or not _is_ready(cluster):
        changed = {it for it, revision in _revisions(cluster).items() if before.get(it) != revision}
        undone = sorted(changed & before.keys())
        for deployment in undone:
            cluster.succeeds("rollout", "undo", f"deployment/{deployment}")
        was = f"{', '.join(undone)} went back" if undone else "nothing to go back to"
        raise DeployError(f"the roll-out failed; {was}")


def _refuse(problems_found: Iterator[str]) -> None:
    found = list(problems_found)
    if found:
        raise DeployError("not deployed:\n  " + "\n  ".join(found))


def wait_for_jobs(cluster: Cluster, label: str) -> None:
    """Return when every Job is complete; raises `DeployError` as soon as one has failed.

    `kubectl wait` waits for one condition: for a Job that has failed it would wait in vain.
    """
    deadline = time.monotonic() + _MIGRATIONS_SECONDS
    while time.monotonic() < deadline:
        states = {
            it["metadata"]["name"]: _conditions(it) for it in cluster.items("jobs", "-l", label)
        }
        failed = sorted(job for job, conditions in states.items() if "Failed" in conditions)
        for job in failed:
            cluster.succeeds("logs", f"job/{job}", "--tail=20")
        if failed:
            raise DeployError(f"{', '.join(failed)} failed; the services are as they were")
        if states and all("Complete" in conditions for conditions in states.values()):
            return
        time.sleep(_POLL_SECONDS)
    raise DeployError("the migrations did not end in time; the services are as they were")


def _conditions(manifest: dict[str, Any]) -> set[str]:
    conditions = manifest.get("status", {}).get("conditions", ())
    return {it["type"] for it in conditions if it["status"] == "True"}


def _revisions(cluster: Cluster) -> dict[str, str]:
    """The revision of each Deployment's pods that is wanted now."""
    key = "deployment.kubernetes.io/revision"
    found = cluster.items("deployments")
    return {it["metadata"]["name"]: it["metadata"]["annotations"].get(key, "") for it in found}


def _is_rolled_out(cluster: Cluster) -> bool:
    limit = f"--timeout={_ROLL_OUT_SECONDS}s"
    return cluster.succeeds("rollout", "status", "deployment", limit)


def _is_ready(cluster: Cluster) -> bool:
    return cluster.succeeds("exec", "deployment/gateway", "--", "python", "-c", _SMOKE_TEST)


def stop_capture(cluster: Cluster) -> None:
    """Have no copy of cdc_ingest and binlog_relay; they finish what they hold.

    Where KEDA scales, its own annotation says how many: it would undo a scaling by hand.
    """
    if _is_scaled_by_keda(cluster):
        cluster.run("annotate", "--overwrite", "scaledobject/cdc-ingest", f"{PAUSED}=0")
    else:
        cluster.run("scale", "deployment/cdc-ingest", "--replicas=0")
    cluster.run("scale", "deployment/binlog-relay", "--replicas=0")
    for name in ("cdc-ingest", "binlog-relay"):
        pods = f"app.kubernetes.io/name={name}"
        cluster.run("wait", "--for=delete", "pod", "-l", pods, "--timeout=120s")


def start_capture(cluster: Cluster, name: str) -> None:
    """Have as many copies again as the overlay says."""
    deployments = Overlay.load(name).deployments
    scaled = ["cdc-ingest", "binlog-relay"]
    if _is_scaled_by_keda(cluster):
        cluster.run("annotate", "scaledobject/cdc-ingest", f"{PAUSED}-")
        scaled.remove("cdc-ingest")
    for each in scaled:
        copies = deployments[each]["spec"].get("replicas", 1)
        cluster.run("scale", f"deployment/{each}", f"--replicas={copies}")


def _is_scaled_by_keda(cluster: Cluster) -> bool:
    # A cluster without KEDA does not know the kind.
    known = cluster.run("api-resources", "--api-group=keda.sh", "-o", "name")
    return "scaledobjects" in known and bool(cluster.items("scaledobjects"))


def main() -> int:
    """Do what was asked; 1 and the reason when it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("deploy", "stop-capture", "start-capture"))
    parser.add_argument("overlay", choices=OVERLAYS, help="which environment")
    parser.add_argument("--context", help="kubectl's context; its current one by default")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.context)
    try:
        if arguments.command == "deploy":
            deploy(cluster, arguments.overlay)
            print(f"{arguments.overlay} is deployed; every service is ready.")
        elif arguments.command == "stop-capture":
            stop_capture(cluster)
            print("Change capture has stopped; changes wait in SQS. make start-capture starts it.")
        else:
            start_capture(cluster, arguments.overlay)
            print("Change capture starts; GET /v1/pipeline shows the backlog shrink.")
    except DeployError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
