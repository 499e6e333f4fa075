"""`make image-load INTO=kind`: every image, the stores' included, into a local cluster."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from devstack.images import IMAGES, STORES, Engine, ImageError, build, default_engine, image

COMMANDS = {
    "kind": ("kind", "load", "image-archive"),
    "minikube": ("minikube", "image", "load"),
}
"""What takes an archive of images, by the program that made the cluster."""


def archive(engine: Engine, path: Path) -> None:
    """Write all images that have been built into one archive."""
    names = [image(service) for service in (*IMAGES, STORES)]
    engine.podman("save", "--quiet", "--multi-image-archive", f"--output={path}", *names)


def load(engine: Engine, into: str, *options: str) -> None:
    """Hand the images to the cluster that `into` has made; raises `ImageError`."""
    program = shutil.which(COMMANDS[into][0])
    if program is None:
        raise ImageError(f"{into} is not installed here")
    with tempfile.TemporaryDirectory(prefix="dialler-archive-") as folder:
        path = Path(folder) / "images.tar"
        archive(engine, path)
        command = [program, *COMMANDS[into][1:], str(path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"{into} does not take them: {(done.stdout + done.stderr).strip()}")


def main() -> int:
    """Build what there is to build and load it; 1 and the reason when it failed."""
    parser = argparse.ArgumentParser(prog="python -m devstack.image_load", description=__doc__)
    parser.add_argument("into", choices=COMMANDS)
    parser.add_argument("--base", help="a base named by digest; else one is made from Debian")
    arguments, options = parser.parse_known_args()
    try:
        engine = default_engine()
        build(engine, (*IMAGES, STORES), arguments.base)
        load(engine, arguments.into, *options)
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(f"{arguments.into} has the images; make deploy ENV=local")
    return 0


if __name__ == "__main__":
    sys.exit(main())
