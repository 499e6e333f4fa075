"""`make k8s-check`: whether the manifests fit Kubernetes, the code and the scanners' policies.

Every step of every overlay is rendered and held against the schemas of Kubernetes; kinds that it
does not know, which validators pass over, against our own excerpts in deploy/k8s/schemas.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from devstack.images import ROOT
from devstack.manifest_overlay import Overlay
from devstack.manifest_rules import RULES
from devstack.manifests import FOLDER, OVERLAYS, STEPS, Manifest, RenderError, rendered

KUBERNETES = "1.32"
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"


@cache
def _own_schemas() -> dict[str, Draft202012Validator]:
    schemas = [
        yaml.load(path.read_text(), yaml.CSafeLoader)
        for path in sorted((FOLDER / "schemas").iterdir())
    ]
    return {each["properties"]["kind"]["const"]: Draft202012Validator(each) for each in schemas}


def schema_errors(manifest: Manifest) -> Iterator[str]:
    """Yield what Kubernetes, or the operator whose kind it is, would refuse."""
    where = f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        schema = _own_schemas().get(str(manifest.get("kind")))
        if schema is None:
            yield f"{where}: no schema in deploy/k8s/schemas"
            return
        for error in schema.iter_errors(manifest):
            yield f"{where}: {error.json_path}: {error.message}"
    except kubernetes_validate.ValidationError as error:
        yield f"{where}: {error.message}"


def all_schema_errors() -> Iterator[str]:
    """Yield the errors of every step of every overlay."""
    for overlay in OVERLAYS:
        for step in STEPS:
            try:
                manifests = rendered(overlay, step)
            except RenderError as error:
                yield f"{overlay}/{step}: {error}"
                continue
            if not manifests:
                yield f"{overlay}/{step}: nothing came of it"
            for manifest in manifests:
                yield from (f"{overlay}/{step}: {each}" for each in schema_errors(manifest))


def all_rule_errors() -> Iterator[str]:
    """Yield where an overlay does not fit the code that it starts."""
    for name in OVERLAYS:
        overlay = Overlay.load(name)
        for rule in RULES:
            yield from (f"{name}: {rule.__name__}: {each}" for each in rule(overlay))


def scanned(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run checkov's policies for Kubernetes on the manifests in a folder."""
    command = [str(CHECKOV), f"--directory={folder}", "--framework=kubernetes"]
    command += ["--skip-download", "--compact", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_rendered(folder: Path) -> None:
    """Write each step of each overlay into a file of its own."""
    for overlay in OVERLAYS:
        for step in STEPS:
            text = yaml.safe_dump_all(rendered(overlay, step))
            (folder / f"{overlay}-{step}.yaml").write_text(text, encoding="utf-8")


def scanned_dockerfile(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run checkov's policies for Dockerfiles."""
    command = [str(CHECKOV), f"--file={path}", "--framework=dockerfile"]
    command += ["--skip-download", "--compact", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    errors = list(all_schema_errors()) or list(all_rule_errors())
    for error in errors:
        sys.stderr.write(f"{error}\n")
    if errors:
        return 1
    with tempfile.TemporaryDirectory(prefix="dialler-manifests-") as name:
        write_rendered(Path(name))
        scans = (
            scanned(Path(name), "--quiet"),
            scanned_dockerfile(ROOT / "deploy" / "Dockerfile", "--quiet"),
        )
    for scan in scans:
        if scan.returncode != 0:
            sys.stderr.write(scan.stdout + scan.stderr)
            return 1
    count = len(OVERLAYS) * len(STEPS)
    print(f"{count} renderings fit Kubernetes {KUBERNETES}, the code and the policies.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
