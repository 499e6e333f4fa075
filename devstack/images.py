"""`make image S=queue`: the services' images, built without a daemon and without a public base.

The base is made here from Debian's packages, by mmdebstrap, since no registry may be reachable.
A real one is given as BASE, by digest. Everything built is kept under `.stack/images`.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from devstack.packages import Package, advice, install, missing
from devstack.stack import SERVICES, default_folder
from servicekit.version import VERSION

ROOT = Path(__file__).parents[1]
IMAGES = (*SERVICES, "gateway")
STORES = "stores"
"""The image of the local stores, for kind and minikube; not one of the suite's."""
TAG = "local"
LOCAL_BASE = "localhost/dialler/base"

TOOLS = (
    Package("mmdebstrap", "mmdebstrap"),
    Package("buildah", "buildah"),
    Package("podman", "podman"),
    # crun, which podman would rather have, cannot set up control groups of the first version.
    Package("runc", "runc"),
    Package("catatonit", "catatonit"),
    Package("iproute2", "ip"),
)
_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "tzdata", "libstdc++6")
_STORES_PACKAGES = ("mariadb-server", "postgresql", "redis-server", "passwd")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")

# Limits of our own: a container may not raise those that its parent has lowered.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
base_hosts_file = "{hosts}"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{state}/libpod"
"""


class ImageError(Exception):
    """An image cannot be built or started; the text says why in a sentence."""


def image(service: str) -> str:
    """Name of a service's image as the manifests have it."""
    return f"localhost/dialler/{service.replace('_', '-')}:{TAG}"


@dataclass(frozen=True, slots=True)
class Engine:
    """buildah and podman with storage, locks and settings of their own; `folder` is absolute."""

    folder: Path

    @property
    def _state(self) -> Path:
        """What must be gone after a restart of the machine, for podman to know that it was one."""
        return Path("/run") / f"dialler-{sha256(str(self.folder).encode()).hexdigest()[:12]}"

    def prepare(self, hosts: str = "127.0.0.1 localhost\n") -> None:
        """Write the settings; `hosts` is what containers have in /etc/hosts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "hosts").write_text(hosts, encoding="utf-8")
        text = _CONTAINERS_CONF.format(hosts=self.folder / "hosts", state=self._state)
        (self.folder / "containers.conf").write_text(text, encoding="utf-8")

    def podman(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run podman and return what it prints; raises `ImageError` with what it complains of.

        `environment` has variables that it gets besides.
        """
        return self._run("podman", *arguments, environment=environment or {})

    def buildah(self, *arguments: str) -> str:
        """Run buildah and return what it prints; raises `ImageError` with what it complains of."""
        return self._run("buildah", *arguments, environment={})

    def has(self, name: str) -> bool:
        """Whether there is such an image."""
        return bool(self.buildah("images", "--quiet", "--filter", f"reference={name}"))

    def build(self, service: str, base: str) -> None:
        """Build a service's image on `base`."""
        with _secrets() as secrets:
            options = [f"--secret=id={name},src={path}" for name, path in secrets.items()]
            self.buildah(
                "bud",
                "--isolation=chroot",
                "--layers",
                "--quiet",
                *options,
                f"--build-arg=BASE={base}",
                f"--build-arg=SERVICE={service}",
                f"--build-arg=VERSION={VERSION}",
                f"--build-arg=REVISION={_revision()}",
                f"--file=deploy/{'stores.' if service == STORES else ''}Dockerfile",
                f"--tag={image(service)}",
                str(ROOT),
            )

    def discard(self) -> None:
        """Remove all images, whatever a build that was killed has left mounted included."""
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        mounted = [Path(line.split()[1]) for line in lines]
        ours = {self.folder, self._state}
        for path in reversed([each for each in mounted if ours & set(each.parents)]):
            subprocess.run(["umount", str(path)], check=True)
        for folder in (self._state, self.folder):
            if folder.exists():
                shutil.rmtree(folder)

    def _run(self, program: str, *arguments: str, environment: Mapping[str, str]) -> str:
        storage = (f"--root={self.folder / 'root'}", f"--runroot={self._state}")
        settings = {"CONTAINERS_CONF": str(self.folder / "containers.conf")}
        done = subprocess.run(
            [program, *storage, *arguments],
            env={**os.environ, **settings, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
            raise ImageError(f"{program} {arguments[0]} failed:\n{end}")
        return done.stdout.strip()


def require_tools() -> None:
    """Install what is missing; raises `ImageError` with the command that does when it cannot."""
    if platform.system() != "Linux":
        raise ImageError("Images are built with Debian's buildah and podman; this is no Linux.")
    names = missing(TOOLS)
    if os.geteuid() != 0:
        raise ImageError("Images are built and started as root here. Run it with sudo.")
    if not names:
        return
    try:
        install(names)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImageError(f"{advice(names)} ({error})") from None
    if left := missing(TOOLS):
        raise ImageError(advice(left))


def checked_base(base: str) -> str:
    """Return `base` if it is one that cannot change behind our back, else raise `ImageError`."""
    if base.startswith(LOCAL_BASE) or _PINNED.fullmatch(base):
        return base
    raise ImageError(
        f"BASE={base} names no digest (NAME@sha256:...), so it may be another tomorrow."
    )


def local_base(engine: Engine, more: Sequence[str] = ()) -> str:
    """Return the base made from this machine's Debian packages; makes it the first time.

    `more` are packages that the image needs besides: the base has no apt.
    """
    packages = (*_BASE_PACKAGES, *more)
    recipe = sha256(repr((packages, _LEFT_OUT, _release())).encode()).hexdigest()[:12]
    name = f"{LOCAL_BASE}:{recipe}"
    if engine.has(name):
        return name
    with tempfile.TemporaryDirectory(prefix="dialler-base-") as folder:
        archive = Path(folder) / "base.tar"
        command = ["mmdebstrap", "--quiet", "--variant=essential"]
        command += [f"--include={','.join(packages)}"]
        command += [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
        # Whatever mirror this machine uses.
        command += [_release(), str(archive), *map(str, _apt_sources())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ImageError(f"mmdebstrap failed:\n{done.stderr.strip()[-2000:]}")
        container = engine.buildah("from", "scratch")
        engine.buildah("add", "--quiet", container, str(archive), "/")
        engine.buildah("commit", "--quiet", "--rm", container, name)
    return name


def _revision() -> str:
    """The commit of the sources, marked when they differ from it; "unknown" outside Git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--match=", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _release() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")


def _apt_sources() -> list[Path]:
    folder = Path("/etc/apt")
    names = ("sources.list", "sources.list.d/debian.sources")
    return [folder / name for name in names if (folder / name).exists()]


@contextmanager
def _secrets() -> Iterator[Mapping[str, Path]]:
    """Where this machine's pip gets its packages and whom it trusts, for the build alone."""
    with tempfile.TemporaryDirectory(prefix="dialler-secrets-") as folder:
        found: dict[str, Path] = {}
        index = _pip_index()
        if index:
            found["pip.conf"] = Path(folder) / "pip.conf"
            found["pip.conf"].write_text("[global]\n" + index, encoding="utf-8")
        certificates = os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
        if Path(certificates).exists():
            found["ca.crt"] = Path(certificates)
        yield found


def _pip_index() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = re.compile(r"(?:global|:env:)\.(index-url|trusted-host|proxy)='(.*)'")
    lines = map(wanted.fullmatch, done.stdout.splitlines())
    found = {match[1]: match[2] for match in lines if match}
    return "".join(f"{key} = {value}\n" for key, value in found.items())


def build(engine: Engine, names: Sequence[str], base: str | None = None) -> None:
    """Build the images of `names`; on the local base unless another is given."""
    require_tools()
    engine.prepare()
    for name in names:
        print(f"Building {image(name)} ...", flush=True)
        more = _STORES_PACKAGES if name == STORES else ()
        engine.build(name, checked_base(base) if base else local_base(engine, more))
        size = engine.buildah("images", "--format", "{{.Size}}", image(name))
        print(f"  {size} with its base", flush=True)


def default_engine() -> Engine:
    """The engine whose images `make image` builds."""
    return Engine((default_folder() / "images").resolve())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.images", description=__doc__)
    parser.add_argument("service", choices=(*IMAGES, STORES, "all"))
    parser.add_argument("--base", help="a base named by digest; else one is made from Debian")
    options = parser.parse_args(arguments)
    names = (*IMAGES, STORES) if options.service == "all" else (options.service,)
    try:
        build(default_engine(), names, options.base)
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
