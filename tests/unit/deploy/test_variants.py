"""Each variant of an overlay that the documents describe is built, and passes every check."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.manifest_check import schema_errors
from devstack.manifest_overlay import Overlay
from devstack.manifest_rules import RULES
from devstack.manifests import FOLDER

DIGEST = "sha256:" + "0123456789abcdef" * 4
PRODUCTION = "overlays/production"


def _edit(path: Path, pattern: str, replacement: str) -> None:
    before = path.read_text(encoding="utf-8")
    after = re.sub(pattern, replacement, before, flags=re.MULTILINE)
    assert after != before, path
    path.write_text(after, encoding="utf-8")


def _images_by_digest(folder: Path) -> None:
    _edit(folder / "images/kustomization.yaml", r"newTag: [\w.]+", f"digest: {DIGEST}")


def _images_by_tag_and_digest(folder: Path) -> None:
    _edit(folder / "images/kustomization.yaml", r"(newTag: [\w.]+)", rf"\1, digest: {DIGEST}")


def _registry_with_a_port_and_a_path(folder: Path) -> None:
    _edit(folder / "images/kustomization.yaml", "registry.example/", "registry:5000/team/a/")


def _without_the_prometheus_operator(folder: Path) -> None:
    _edit(folder / "services/kustomization.yaml", r"^.*components/prometheus\n", "")
    _edit(folder / "site/site.env", r"\Z", "METRICS_READER=other\n")


def _key_set_by_address_and_no_key(folder: Path) -> None:
    _key_set_by_address(folder)
    _edit(
        folder / "foundation/kustomization.yaml",
        r"^components:\n(.*\n)",
        r"components:\n\1  - ../../../components/jwks/foundation\n",
    )


def _key_set_by_address(folder: Path) -> None:
    _edit(
        folder / "services/kustomization.yaml",
        r"^components:\n",
        "components:\n  - ../../../components/jwks\n",
    )
    _edit(
        folder / "site/site.env",
        r"\Z",
        "JWKS_URL=https://id.example/keys.json\nJWKS_CIDR=203.0.113.0/24\n",
    )


def _listed(folder: Path, step: str, *components: str) -> None:
    """List components among those of a step, before the images."""
    lines = "".join(f"  - ../../../components/{it}\n" for it in components)
    _edit(folder / step / "kustomization.yaml", r"(^  - \.\./images\n)", rf"{lines}\1")


def _postgres_over_tls(folder: Path) -> None:
    for step in ("services", "migrations"):
        _listed(folder, step, "postgres-tls")


def _redis_over_tls(folder: Path) -> None:
    _edit(
        folder / "services/kustomization.yaml",
        r"^  - \.\./images\n",
        "  - ../../../components/redis-tls\n  - ../images\n",
    )


def _cron_jobs(folder: Path) -> None:
    _listed(folder, "services", "reconciler-cron")


def _collector(folder: Path) -> None:
    _listed(folder, "services", "collector")


def _changes_by_dms(folder: Path) -> None:
    _listed(folder, "services", "dms")


def _no_change_capture(folder: Path) -> None:
    _listed(folder, "services", "batch")


def _ingress_controller(folder: Path) -> None:
    _listed(folder, "services", "ingress")
    _edit(folder / "site/site.env", r"\Z", "PUBLIC_HOST=dialler.example\nINGRESS_CLASS=traefik\n")


def _load_balancer(folder: Path) -> None:
    _listed(folder, "services", "alb")
    _edit(
        folder / "foundation/kustomization.yaml",
        r"\Z",
        "  - ../../../components/alb/foundation\n",
    )
    certificate = "arn:aws:acm:eu-west-2:123456789012:certificate/1"
    values = f"PUBLIC_HOST=dialler.example\nALB_CERTIFICATE_ARN={certificate}\n"
    _edit(folder / "site/site.env", r"\Z", f"{values}ALB_CIDR=10.40.16.0/20\n")


VARIANTS: list[Callable[[Path], None]] = [
    _images_by_digest,
    _images_by_tag_and_digest,
    _registry_with_a_port_and_a_path,
    _without_the_prometheus_operator,
    _key_set_by_address,
    _key_set_by_address_and_no_key,
    _postgres_over_tls,
    _redis_over_tls,
    _cron_jobs,
    _collector,
    _changes_by_dms,
    _no_change_capture,
    _ingress_controller,
    _load_balancer,
]


def _built(tmp_path: Path, change: Callable[[Path], None]) -> Overlay:
    folder = tmp_path / "k8s"
    shutil.copytree(FOLDER, folder)
    change(folder / PRODUCTION)
    return Overlay.load("production", folder)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("change", VARIANTS, ids=lambda it: str(it.__name__).strip("_"))
def test_a_variant_passes_every_check(tmp_path: Path, change: Callable[[Path], None]) -> None:
    overlay = _built(tmp_path, change)
    errors = [each for manifest in overlay.manifests for each in schema_errors(manifest)]
    errors += [f"{rule.__name__}: {each}" for rule in RULES for each in rule(overlay)]
    assert errors == []


def _bare_images(folder: Path) -> None:
    _edit(folder / "images/kustomization.yaml", "registry.example/", "")


def _operator_left_out_alone(folder: Path) -> None:
    _edit(folder / "services/kustomization.yaml", r"^.*components/prometheus\n", "")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("change", "said"),
    [(_bare_images, "names no registry"), (_operator_left_out_alone, "no PodMonitor reads")],
)
def test_what_would_fail_in_the_cluster_fails_here(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    overlay = _built(tmp_path, change)
    assert said in " ".join(each for rule in RULES for each in rule(overlay))
