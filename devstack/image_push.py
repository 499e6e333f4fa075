"""`make image-push REGISTRY=…`: the images into a registry, and their digests into an overlay.

`make deploy ENV=…` then deploys exactly what was pushed. With `--sign-by` each image has a
signature of GnuPG's, for clusters whose nodes check those; what others check: docs/kubernetes.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.images import IMAGES, ROOT, Engine, ImageError, default_engine, image, require_tools
from servicekit.version import VERSION

OVERLAYS = ("staging", "production")
_REGISTRY = re.compile(r"(?P<host>[\w-]+(\.[\w-]+)+(:\d+)?|[\w-]+:\d+|localhost)(/[\w.-]+)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEAD = """\
# Which images are deployed. Written by `make image-push REGISTRY=… ENV={overlay}`.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
"""


@dataclass(frozen=True)
class Signing:
    """A key of GnuPG's keyring, and the folder that gets the signatures: nodes read it by HTTP."""

    key: str
    folder: Path


def checked_registry(registry: str) -> str:
    """Return `HOST[:PORT][/PATH]` if it is one, else raise `ImageError`."""
    if _REGISTRY.fullmatch(registry):
        return registry
    raise ImageError(
        f"REGISTRY={registry} names no registry: HOST[:PORT][/PATH], the host with a dot or port."
    )


def pushed_name(registry: str, service: str) -> str:
    """Return the name that a service's image has in the registry, without its tag."""
    return f"{registry}/dialler/{service.replace('_', '-')}"


def push(
    engine: Engine,
    registry: str,
    *,
    signing: Signing | None = None,
    tls_verify: bool = True,
) -> dict[str, str]:
    """Push every image, signed if `signing` is given; return the digest of each by its name there.

    Raises `ImageError` when an image has not been built or the registry refuses it.
    """
    checked_registry(registry)
    digests = {}
    for service in IMAGES:
        name = pushed_name(registry, service)
        with tempfile.TemporaryDirectory(prefix="dialler-push-") as folder:
            digest = Path(folder) / "digest"
            engine.podman(
                "push",
                "--quiet",
                f"--tls-verify={str(tls_verify).lower()}",
                f"--digestfile={digest}",
                *([f"--sign-by={signing.key}"] if signing else []),
                image(service),
                f"{name}:{VERSION}",
                environment=_signature_environment(Path(folder), signing) if signing else {},
            )
            digests[name] = digest.read_text(encoding="utf-8").strip()
        print(f"{name}:{VERSION}@{digests[name]}", flush=True)
    return digests


def _signature_environment(home: Path, signing: Signing) -> dict[str, str]:
    """Return the variables by which podman puts signatures into their folder: a home of its own."""
    settings = home / ".config" / "containers" / "registries.d" / "signatures.yaml"
    settings.parent.mkdir(parents=True)
    # The second name is that of podman before version 4.4.
    staging = f"file://{signing.folder}"
    text = f"default-docker: {{lookaside-staging: '{staging}', sigstore-staging: '{staging}'}}\n"
    settings.write_text(text, encoding="utf-8")
    before = Path.home()
    # What `docker login` has written; podman's own is elsewhere.
    (home / ".docker").symlink_to(before / ".docker")
    keys = os.environ.get("GNUPGHOME", str(before / ".gnupg"))
    return {"HOME": str(home), "GNUPGHOME": keys}


def images_component(overlay: str, digests: Mapping[str, str]) -> str:
    """Return the overlay's `images/kustomization.yaml`: each image by its digest alone."""
    lines = []
    for name, digest in digests.items():
        if not _DIGEST.fullmatch(digest):
            raise ImageError(f"{name}: {digest!r} is no digest")
        service = name.rpartition("/")[2]
        lines.append(f"  - {{name: dialler/{service}, newName: {name}, digest: {digest}}}\n")
    return _HEAD.format(overlay=overlay) + "".join(lines)


def write_digests(overlay: str, digests: Mapping[str, str], folder: Path = ROOT) -> Path:
    """Write the digests into an overlay of deploy/k8s and return the file."""
    path = folder / "deploy" / "k8s" / "overlays" / overlay / "images" / "kustomization.yaml"
    path.write_text(images_component(overlay, digests), encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Push, and write what was pushed into an overlay; 1 and the reason when it failed."""
    parser = argparse.ArgumentParser(prog="python -m devstack.image_push", description=__doc__)
    parser.add_argument("registry", help="HOST[:PORT][/PATH]; log in before with podman login")
    parser.add_argument("--overlay", choices=OVERLAYS, help="gets the digests")
    parser.add_argument("--sign-by", metavar="KEY", help="fingerprint of the key to sign with")
    parser.add_argument("--signatures", type=Path, default=ROOT / "dist" / "signatures")
    parser.add_argument("--insecure", action="store_true", help="the registry has no TLS")
    options = parser.parse_args(arguments)
    key, folder = options.sign_by, options.signatures.resolve()
    signing = Signing(key, folder) if key else None
    try:
        require_tools()
        engine = default_engine()
        engine.prepare()
        digests = push(engine, options.registry, signing=signing, tls_verify=not options.insecure)
        if options.overlay:
            path = write_digests(options.overlay, digests)
            print(f"{path.relative_to(ROOT)} names them; make deploy ENV={options.overlay}")
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
