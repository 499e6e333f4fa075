"""Images are pushed into a real registry, are deployed by digest, and can be told by signature."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from devstack.image_push import Signing, images_component, push, pushed_name, write_digests
from devstack.images import IMAGES, Engine, ImageError, image
from devstack.manifest_overlay import Overlay
from devstack.manifests import FOLDER, with_pods
from devstack.processes import HOST, OwnedProcess, free_port, wait_until
from servicekit.version import VERSION

pytestmark = [pytest.mark.images, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Registry:
    """A registry without TLS, and an engine whose images are empty but for their name."""

    name: str
    engine: Engine

    def digest(self, service: str) -> str:
        """Return what the registry has under the version's tag."""
        host, _, path = pushed_name(self.name, service).partition("/")
        kinds = "application/vnd.oci.image.manifest.v1+json"
        url = f"http://{host}/v2/{path}/manifests/{VERSION}"
        answer = httpx.head(url, headers={"accept": kinds}).raise_for_status()
        return str(answer.headers["docker-content-digest"])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dialler-push-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(folder: Path) -> Iterator[Registry]:
    engine = Engine(folder / "images")
    engine.prepare()
    for service in IMAGES:
        (folder / "name").write_text(service)
        container = engine.buildah("from", "scratch")
        engine.buildah("add", "--quiet", container, str(folder / "name"), "/")
        engine.buildah("commit", "--quiet", "--rm", container, image(service))
    port = free_port()
    settings = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": f"{HOST}:{port}", "secret": "for this test"},
        "log": {"level": "warn"},
    }
    (folder / "registry.yaml").write_text(yaml.safe_dump(settings))
    process = OwnedProcess(
        ["docker-registry", "serve", str(folder / "registry.yaml")],
        log=folder / "registry.log",
        environment=dict(os.environ),
        folder=folder,
    )
    wait_until(lambda: _answers(f"http://{HOST}:{port}/v2/"), seconds=30, what="the registry")
    yield Registry(f"{HOST}:{port}/team", engine)
    process.stop(seconds=10)
    engine.discard()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_an_overlay_deploys_what_was_pushed_by_digest(registry: Registry, folder: Path) -> None:
    digests = push(registry.engine, registry.name, tls_verify=False)
    assert digests == {pushed_name(registry.name, it): registry.digest(it) for it in IMAGES}
    assert len(set(digests.values())) == len(IMAGES)
    copy = folder / "deploy" / "k8s"
    shutil.copytree(FOLDER, copy)
    write_digests("production", digests, folder)
    overlay = Overlay.load("production", copy)
    deployed = {
        it["image"] for _, spec in with_pods(overlay.manifests) for it in spec["containers"]
    }
    assert deployed == {f"{name}@{digest}" for name, digest in digests.items()}


def test_without_a_built_image_or_a_registry_nothing_is_pushed(registry: Registry) -> None:
    with pytest.raises(ImageError, match="names no registry"):
        push(registry.engine, "team", tls_verify=False)
    with pytest.raises(ImageError, match="podman push failed"):
        push(registry.engine, f"{HOST}:1/team", tls_verify=False)
    with pytest.raises(ImageError, match="is no digest"):
        images_component("staging", {"registry.example/dialler/queue": ""})


def test_a_node_that_asks_for_signatures_takes_signed_images_only(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(keys))
    key = _key(folder / "ours.gpg")
    _key(folder / "others.gpg")
    signing = Signing(key, folder / "signatures")
    digests = push(registry.engine, registry.name, signing=signing, tls_verify=False)
    for name, digest in digests.items():
        assert _pulled(folder, f"{name}@{digest}", "ours.gpg") == ""
    name, digest = next(iter(digests.items()))
    assert "no signature exists" not in _pulled(folder, f"{name}@{digest}", "others.gpg")
    assert "rejected" in _pulled(folder, f"{name}@{digest}", "others.gpg")
    shutil.rmtree(signing.folder)
    assert "no signature exists" in _pulled(folder, f"{name}@{digest}", "ours.gpg")


def _key(public: Path) -> str:
    """Make a key without a password and return its fingerprint."""
    user = f"{public.stem}@dialler.example"
    made = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", user]
    subprocess.run([*made, "ed25519", "sign", "1d"], check=True, capture_output=True)
    subprocess.run(["gpg", "--output", str(public), "--export", user], check=True)
    listed = ["gpg", "--list-keys", "--with-colons", user]
    lines = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))


def _pulled(folder: Path, name: str, key: str) -> str:
    """Copy an image as a node would that trusts one key; return why it was refused."""
    required = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(folder / key)}
    policy = {"default": [{"type": "reject"}], "transports": {"docker": {"": [required]}}}
    (folder / "policy.json").write_text(json.dumps(policy))
    settings = folder / "registries.d"
    settings.mkdir(exist_ok=True)
    where = f"file://{folder}/signatures"
    (settings / "all.yaml").write_text(
        f"default-docker: {{lookaside: '{where}', sigstore: '{where}'}}\n"
    )
    with tempfile.TemporaryDirectory(prefix="dialler-pull-") as into:
        command = ["skopeo", f"--policy={folder}/policy.json", f"--registries.d={settings}"]
        command += ["copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"dir:{into}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr
