"""The Debian packages the local stack needs, and how they get onto this machine.

`python -m devstack.packages` installs what is missing when it runs as root and otherwise ends
with the command to run. The distribution's own services are not started by the installation.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.processes import find_program

POLICY = Path("/usr/sbin/policy-rc.d")
# Debian asks this file before it starts a service; 101 forbids it.
_FORBID_STARTS = "#!/bin/sh\nexit 101\n"


class PackageMissing(Exception):
    """A program is not installed; the text is one sentence with the command that helps."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package, known to be there by one of its programs (a path may be a pattern)."""

    name: str
    program: str

    @property
    def is_installed(self) -> bool:
        if self.program.startswith("/"):
            return any(Path("/").glob(self.program.removeprefix("/")))
        return find_program(self.program) is not None


SERVERS = (
    Package("mariadb-server", "mariadbd"),
    Package("postgresql", "/usr/lib/postgresql/*/bin/postgres"),
    Package("redis-server", "redis-server"),
    Package("util-linux", "setpriv"),
)
# For `make monitoring-check` alone: nothing that runs needs it.
MONITORING = (Package("prometheus", "promtool"),)
# What the tests in a browser need besides.
BROWSER = (
    Package("chromium", "chromium"),
    Package("npm", "npm"),
)
# For the tests of `make image-push`: a registry, and what reads from one as a node would.
REGISTRY = (
    Package("docker-registry", "docker-registry"),
    Package("skopeo", "skopeo"),
    Package("gnupg", "gpg"),
)
_PROVIDERS = {
    "promtool": "prometheus",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "psql": "postgresql",
    "postgres": "postgresql",
    "initdb": "postgresql",
    "redis-server": "redis-server",
}


def missing(packages: Sequence[Package] = SERVERS) -> list[str]:
    """Names of those not installed."""
    return [package.name for package in packages if not package.is_installed]


def advice(names: Sequence[str]) -> str:
    """One sentence: what is missing and the command that installs it."""
    listed = " ".join(names)
    return (
        f"These Debian packages are missing: {', '.join(names)}. Run: sudo apt-get update &&"
        f" sudo apt-get install --no-install-recommends {listed}"
    )


def require_program(name: str) -> str:
    """Path of a program; raises `PackageMissing`."""
    path = find_program(name)
    if path is None:
        raise PackageMissing(advice([_PROVIDERS.get(name, name)]))
    return path


def install(names: Sequence[str], *, policy: Path = POLICY, apt: str = "apt-get") -> None:
    """Installs packages as root without starting their services.

    Raises `subprocess.CalledProcessError` when apt fails.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _without_service_starts(policy):
        subprocess.run([apt, "-qq", "update"], env=environment, check=True)
        command = [apt, "-qq", "-y", "--no-install-recommends", "install", *names]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _without_service_starts(policy: Path) -> Iterator[None]:
    if policy.exists():  # the administrator's own policy, as in most container images
        yield
        return
    policy.write_text(_FORBID_STARTS)
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.packages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="say what is missing, install nothing")
    parser.add_argument("--monitoring", action="store_true", help="promtool instead of servers")
    parser.add_argument("--registry", action="store_true", help="a registry instead of servers")
    parser.add_argument("--browser", action="store_true", help="also what tests in a browser need")
    options = parser.parse_args(arguments)
    wanted: Sequence[Package] = (*SERVERS, *BROWSER) if options.browser else SERVERS
    if options.monitoring:
        wanted = MONITORING
    if options.registry:
        wanted = REGISTRY
    names = missing(wanted)
    if not names:
        return
    if options.check or os.geteuid() != 0 or find_program("apt-get") is None:
        sys.exit(advice(names))
    print(f"Installing {', '.join(names)} ...", flush=True)
    try:
        install(names)
    except subprocess.CalledProcessError as error:
        sys.exit(f"apt-get failed with code {error.returncode}. {advice(names)}")
    if left := missing(wanted):
        sys.exit(advice(left))


if __name__ == "__main__":
    main()
