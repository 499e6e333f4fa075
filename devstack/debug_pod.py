"""`make debug-pod ENV=production S=queue`: a pod with the clients of the stores, for an hour.

Printed for `kubectl apply -f -`. It is the service's own pod with another image: its account, its
addresses and secrets, its certificates, its restrictions, and a NetworkPolicy to the same stores.
No Service leads to it.
"""

from __future__ import annotations

import argparse
import sys
from copy import deepcopy

import yaml

from devstack.images import IMAGES
from devstack.manifest_overlay import NAME, Overlay
from devstack.manifests import FOLDER, OVERLAYS, Manifest, RenderError

IMAGE = "dialler/debug"
LABEL = "debug"
SECONDS = 3600


def manifests(overlay: Overlay, service: str, image: str) -> list[Manifest]:
    """Return the Job that runs the pod, and the policy that lets it reach the stores."""
    spec = deepcopy(overlay.deployments[service]["spec"]["template"]["spec"])
    [container] = spec["containers"]
    for key in ("ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        container.pop(key, None)
    container |= {
        "image": image,
        "command": ["sleep", str(SECONDS)],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "256Mi"},
        },
    }
    container.pop("args", None)
    spec.pop("topologySpreadConstraints", None)
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    # Of one service at a time: policies add up, so two would share what each may reach.
    labels = {NAME: f"{LABEL}-{service}", "app.kubernetes.io/component": LABEL}
    namespace = overlay.deployments[service]["metadata"]["namespace"]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": labels[NAME], "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": SECONDS,
            "ttlSecondsAfterFinished": 60,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    stores = overlay.of("NetworkPolicy")[f"{service}-stores"]["spec"]["egress"]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": labels[NAME], "namespace": namespace, "labels": labels},
        "spec": {
            "podSelector": {"matchLabels": {NAME: labels[NAME]}},
            "policyTypes": ["Egress"],
            "egress": stores,
        },
    }
    return [policy, job]


def image_of(name: str) -> str:
    """Return the image that an overlay names for it."""
    path = FOLDER / "overlays" / name / "images" / "kustomization.yaml"
    for each in yaml.safe_load(path.read_text(encoding="utf-8"))["images"]:
        if each["name"] == IMAGE:
            mark = f"@{each['digest']}" if "digest" in each else f":{each['newTag']}"
            return f"{each.get('newName', IMAGE)}{mark}"
    raise LookupError(f"{path} names no image for {IMAGE}")


def main() -> int:
    """Print the manifests; 1 when the overlay cannot be rendered or names no image."""
    parser = argparse.ArgumentParser(prog="python -m devstack.debug_pod", description=__doc__)
    parser.add_argument("overlay", choices=OVERLAYS)
    parser.add_argument("service", choices=[each.replace("_", "-") for each in IMAGES])
    arguments = parser.parse_args()
    try:
        overlay = Overlay.load(arguments.overlay)
        made = manifests(overlay, arguments.service, image_of(arguments.overlay))
    except (LookupError, RenderError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(yaml.safe_dump_all(made, sort_keys=False), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
