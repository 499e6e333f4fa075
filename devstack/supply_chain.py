"""`make sbom` and `make audit`: what the images are made of, and what is known against it.

Both read the lock files that the images are built from. Neither takes silence for good news: a bill
of materials must name every pinned package, and an audit that could not look a package up fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.images import IMAGES, ROOT

LOCKS = ROOT / "deploy" / "locks"
BIN = Path(sys.executable).parent
NO_DATA = 2


class NoMaterials(Exception):
    """A bill of materials is not what the lock file says."""


def pinned(lock: Path) -> set[str]:
    """Names and versions in a lock file, as NAME==VERSION."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return {
        match[0].lower() for line in lines if (match := re.match(r"[A-Za-z0-9._-]+==\S+", line))
    }


def write_bill(service: str, folder: Path) -> Path:
    """Write a service's CycloneDX bill of materials; raises `NoMaterials` if it is incomplete."""
    lock, path = LOCKS / f"{service}.lock", folder / f"{service}.cdx.json"
    command = [str(BIN / "cyclonedx-py"), "requirements", str(lock)]
    command += ["--output-format=JSON", f"--output-file={path}", "--output-reproducible"]
    subprocess.run(command, check=True, capture_output=True)
    bill = json.loads(path.read_text(encoding="utf-8"))
    named = {f"{each['name']}=={each['version']}".lower() for each in bill.get("components", ())}
    if missing := pinned(lock) - named:
        raise NoMaterials(f"{path.name} leaves out {', '.join(sorted(missing))}")
    return path


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of some packages, and of which nothing could be learnt."""

    looked_up: int
    not_looked_up: tuple[str, ...]
    vulnerable: tuple[str, ...]

    @classmethod
    def read(cls, report: str) -> Audit:
        """Read pip-audit's JSON, in which a package that it skipped is no finding."""
        entries = json.loads(report)["dependencies"]
        return cls(
            looked_up=sum("vulns" in each for each in entries),
            not_looked_up=tuple(each["name"] for each in entries if "vulns" not in each),
            vulnerable=tuple(
                f"{each['name']} {each['version']}: {found['id']}"
                f" (fixed in {', '.join(found['fix_versions']) or 'no version yet'})"
                for each in entries
                for found in each.get("vulns", ())
            ),
        )

    def verdict(self) -> tuple[int, str]:
        """The exit code and what to tell."""
        skipped = ", ".join(self.not_looked_up)
        if not self.looked_up:
            return NO_DATA, (
                f"NO DATA: none of {len(self.not_looked_up)} packages could be looked up, so"
                " nothing is known of them, good or bad. The index reached from here serves no"
                " vulnerabilities; run this where it does."
            )
        if self.vulnerable:
            return 1, "\n".join(self.vulnerable)
        if self.not_looked_up:
            return NO_DATA, f"Nothing is known of: {skipped}"
        return 0, f"{self.looked_up} packages looked up, nothing is known against them."


def audit() -> Audit:
    """Look every package of every image up."""
    requirements = ROOT / "requirements.lock"
    command = [str(BIN / "pip-audit"), "--disable-pip", "--require-hashes", "--format=json"]
    command += ["--progress-spinner=off", f"--requirement={requirements}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise NoMaterials(f"pip-audit gave no report: {done.stderr.strip()[-500:]}")
    return Audit.read(done.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.supply_chain", description=__doc__)
    parser.add_argument("what", choices=("sbom", "audit"))
    options = parser.parse_args(arguments)
    try:
        if options.what == "audit":
            code, report = audit().verdict()
            print(report)
            return code
        folder = ROOT / "dist" / "sbom"
        folder.mkdir(parents=True, exist_ok=True)
        for service in IMAGES:
            path = write_bill(service, folder)
            print(f"{path.relative_to(ROOT)}: {len(pinned(LOCKS / f'{service}.lock'))} packages")
    except NoMaterials as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print("Python packages only; what Debian packages the base holds is its maker's to say.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
