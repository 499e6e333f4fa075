"""The overlay `local` on kind or minikube: it fits, finds its stores, and images get in."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from devstack import image_load, stores
from devstack.images import IMAGES, STORES, Engine, ImageError, image
from devstack.manifest_overlay import LOCAL_STORES, NAME, Overlay
from devstack.manifests import rendered, with_pods

# What kind's own pods ask for on a node with everything: API server 250, controller manager 200,
# scheduler 100, etcd 100, CoreDNS 2 x 100, network 100 thousandths of a CPU.
KIND_MILLICPUS = 950


def _millicpus(spec: dict[str, Any]) -> int:
    asked = [it["resources"]["requests"]["cpu"] for it in spec["containers"]]
    return sum(int(it[:-1]) if it.endswith("m") else int(float(it) * 1000) for it in asked)


def test_all_of_it_and_a_roll_out_fit_two_cpus() -> None:
    foundation = sum(_millicpus(spec) for _, spec in with_pods(rendered("local", "foundation")))
    jobs = sum(_millicpus(spec) for _, spec in with_pods(rendered("local", "migrations")))
    services = 0
    for each, spec in with_pods(rendered("local", "services")):
        surge = each["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
        services += (each["spec"].get("replicas", 1) + surge) * _millicpus(spec)
    assert services > 0
    assert jobs > 0
    assert KIND_MILLICPUS + foundation + max(jobs, services) <= 2000


def test_each_store_is_found_by_its_name_and_port() -> None:
    overlay = Overlay.load("local")
    leading = {
        name: each["spec"]["ports"][0]["port"]
        for name, each in overlay.of("Service").items()
        if each["spec"]["selector"] == {NAME: LOCAL_STORES}
    }
    assert leading == stores.PORTS
    [container] = overlay.of("StatefulSet")["stores"]["spec"]["template"]["spec"]["containers"]
    assert {it["name"]: it["containerPort"] for it in container["ports"]} == stores.PORTS
    assert container["image"] == image(STORES)
    for name in overlay.deployments:
        for value in overlay.environment(overlay.container(name)).values():
            if at := re.fullmatch(
                r"(?:mysql|postgresql|redis|http)://(?:\S+@)?(\w+):(\d+)\S*", value
            ):
                assert stores.PORTS[at[1]] == int(at[2]), value


@pytest.mark.parametrize(
    ("into", "asked"), [("kind", "load image-archive"), ("minikube", "image load")]
)
def test_a_cluster_gets_every_image(
    into: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []

    def podman(engine: Engine, *arguments: str) -> str:
        saved.extend(arguments)
        [output] = [it for it in arguments if it.startswith("--output=")]
        Path(output.removeprefix("--output=")).write_text("images")
        return ""

    monkeypatch.setattr(Engine, "podman", podman)
    program = tmp_path / into
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        "if pathlib.Path(sys.argv[3]).read_text() != 'images': sys.exit('no archive')\n"
        f"pathlib.Path('{tmp_path}/asked').write_text(' '.join(sys.argv[1:3] + sys.argv[4:]))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    image_load.load(Engine(tmp_path), into, "--name=other")
    assert (tmp_path / "asked").read_text() == f"{asked} --name=other"
    assert {image(it) for it in (*IMAGES, STORES)} <= set(saved)


def test_without_the_program_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="kind is not installed"):
        image_load.load(Engine(tmp_path), "kind")
