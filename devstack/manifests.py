"""The manifests of deploy/k8s as kubectl renders them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from devstack.images import ROOT

FOLDER = ROOT / "deploy" / "k8s"
KUBECTL = ROOT / ".venv" / "bin" / "kubectl"
OVERLAYS = ("local", "staging", "production")
STEPS = ("foundation", "migrations", "services")
"""In the order in which they are applied."""

Manifest = dict[str, Any]


class RenderError(Exception):
    """Kustomize refuses a folder; the text is what it says."""


@cache
def rendered_text(folder: Path) -> str:
    """Return what `kubectl kustomize` makes of a folder; raises `RenderError`."""
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RenderError(done.stderr.strip())
    return done.stdout


def rendered(overlay: str, step: str, folder: Path = FOLDER) -> list[Manifest]:
    """Return the objects of one step of an overlay, as a copy of the caller's own.

    `folder` holds what deploy/k8s does.
    """
    text = rendered_text(folder / "overlays" / overlay / step)
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Return those of the given kinds, by name."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def pod_spec(manifest: Manifest) -> Manifest | None:
    """Return the specification of the pods that an object makes, if it makes any."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template") if isinstance(spec, dict) else None
    return template["spec"] if isinstance(template, dict) and "spec" in template else None


def pod_labels(manifest: Manifest) -> dict[str, str]:
    """Return the labels of the pods that an object makes."""
    spec = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return dict(spec["template"]["metadata"]["labels"])


def with_pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield each object that makes pods, with their specification."""
    for each in manifests:
        spec = pod_spec(each)
        if spec is not None:
            yield each, spec
