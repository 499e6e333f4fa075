"""Whether a cluster has what an overlay needs: deploy/k8s/versions.yaml against its answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from devstack.manifest_overlay import Overlay
from devstack.manifests import FOLDER

# [registry/][path/]name:tag[@digest], the tag a version.
_IMAGE = re.compile(r"(?P<name>[^@]+):v?(?P<version>\d+(?:\.\d+)*)[\w.-]*(?:@.+)?")


@dataclass(frozen=True)
class ClusterFacts:
    """What a cluster says of itself; `images` are those of every Deployment that may be seen."""

    kubernetes: str
    apis: frozenset[str]
    images: Collection[str]


@cache
def _wanted() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "versions.yaml").read_text(encoding="utf-8")))


def version_problems(overlay: Overlay, facts: ClusterFacts) -> Iterator[str]:
    """Yield what the cluster lacks of what the overlay needs, or has in too old a version.

    An operator whose image names no version, or may not be seen, passes if it serves its API.
    """
    kubernetes = _wanted()["kubernetes"]
    numbers = re.sub(r"^v(\d+\.\d+).*", r"\1", facts.kubernetes)
    if _version(numbers) < _version(kubernetes["minimum"]):
        yield _too_old("Kubernetes", numbers, kubernetes)
    for api, operator in _operators(overlay):
        if api not in facts.apis:
            wanted = f"{operator['name']} {operator['minimum']} or later"
            yield f"the cluster does not serve {api}: install {wanted}"
        for found in filter(None, map(_IMAGE.fullmatch, facts.images)):
            is_its = f"/{found['name']}".endswith(f"/{operator['image']}")
            if is_its and _version(found["version"]) < _version(operator["minimum"]):
                yield _too_old(operator["name"], found["version"], operator)
    groups = {api.partition("/")[0] for api in facts.apis}
    for group, server in _wanted()["adapters"].items():
        if overlay.of("HorizontalPodAutoscaler") and group not in groups:
            yield f"the cluster does not serve {group}: install {server}"


def _operators(overlay: Overlay) -> Iterator[tuple[str, dict[str, str]]]:
    used = {str(each["apiVersion"]) for each in overlay.manifests}
    classes = {it["spec"]["ingressClassName"] for it in overlay.of("Ingress").values()}
    for api, operator in _wanted()["operators"].items():
        if api in used or operator.get("ingress_class") in classes:
            yield api, operator


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def _too_old(name: str, version: str, wanted: dict[str, str]) -> str:
    return f"{name} is {version}; {wanted['minimum']} is needed ({wanted['because']})"
