"""`make release VERSION=0.2.0`: what is in the tree becomes a release, as a commit and its tag.

The version goes from `servicekit/version.py` to the gateway's description, `dialler_build_info`,
traces and the images' labels by themselves; the files that cannot ask it are written here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHANGELOG = Path("CHANGELOG.md")
UPGRADING = Path("docs/upgrading.md")
VERSION_FILE = Path("servicekit/version.py")
API = Path("clients/typescript/openapi.json")
RELEASED_API = Path("clients/typescript/released-openapi.json")
RELEASED_PROTOS = Path("protos/released.binpb")
_NPM = (Path("clients/typescript/package.json"), Path("package-lock.json"))
_HEADING = "## Unreleased\n"


class ReleaseError(Exception):
    """There cannot be such a release; the text says why in a sentence."""


def npm_version(version: str) -> str:
    """Return a version as npm spells it: 0.3.0.dev0 is 0.3.0-dev.0."""
    return re.sub(r"\.dev(\d+)$", r"-dev.\1", version)


def unreleased(changelog: str) -> str:
    """Return what the changelog says of the next release; empty if nothing."""
    found = re.search(rf"^{_HEADING}(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ReleaseError(f"{CHANGELOG} has no section Unreleased.")
    return found[1].strip()


def released_versions(changelog: str) -> list[str]:
    """Return the versions that the changelog has a section of, the latest first."""
    return re.findall(r"^## (\d+\.\d+\.\d+) \(", changelog, re.MULTILINE)


def with_section(changelog: str, version: str, day: date) -> str:
    """Return the changelog with what was unreleased under the version."""
    return changelog.replace(_HEADING, f"{_HEADING}\n## {version} ({day.isoformat()})\n", 1)


def check(root: Path, version: str) -> None:
    """Raise `ReleaseError` when the tree at `root` cannot be released as `version`."""
    if re.fullmatch(r"\d+\.\d+\.\d+", version) is None:
        raise ReleaseError(f"{version} is no version such as 0.2.0.")
    if changes := _run(root, "git", "status", "--porcelain", "--untracked-files=no"):
        raise ReleaseError(f"The tree has changes that are not committed:\n{changes}")
    changelog = (root / CHANGELOG).read_text(encoding="utf-8")
    if not unreleased(changelog):
        raise ReleaseError(f"{CHANGELOG} has nothing under Unreleased.")
    for other in released_versions(changelog):
        if _numbers(version) <= _numbers(other):
            raise ReleaseError(f"{other} is released, so {version} is none that follows.")
    if _run(root, "git", "tag", "--list", f"v{version}"):
        raise ReleaseError(f"There is a tag v{version}.")
    upgrading = (root / UPGRADING).read_text(encoding="utf-8")
    if f"\n## To {version}\n" not in upgrading:
        raise ReleaseError(f'{UPGRADING} has no section "To {version}".')
    # As `make check` does, without what is no matter of compatibility.
    binaries = Path(sys.executable).parent
    _run(root, str(binaries / "buf"), "breaking", "--against", str(RELEASED_PROTOS))
    _run(root, sys.executable, "-m", "devstack.openapi_file", "--check")
    _run(root, sys.executable, "-m", "devstack.api_compatibility")


def write(root: Path, version: str, day: date) -> None:
    """Write the version, the changelog's section and what later releases are held against."""
    _replace(root / VERSION_FILE, r'(?m)^(VERSION = ")[^"]+', version)
    for path in _NPM:
        _replace(
            root / path, r'("name": "@dialler/client",\s+"version": ")[^"]+', npm_version(version)
        )
    changelog = root / CHANGELOG
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(with_section(text, version, day), encoding="utf-8")
    _run(root, sys.executable, "-m", "devstack.openapi_file")
    (root / RELEASED_API).write_bytes((root / API).read_bytes())
    buf = str(Path(sys.executable).parent / "buf")
    _run(root, buf, "build", "-o", str(RELEASED_PROTOS))


def commit(root: Path, version: str) -> None:
    """Commit what was written, and tag it with the changelog's section as the message."""
    changelog = (root / CHANGELOG).read_text(encoding="utf-8")
    section = changelog.split(f"## {version} ", 1)[1].split("\n## ", 1)[0].partition("\n")[2]
    _run(root, "git", "add", "--update")
    _run(root, "git", "add", str(RELEASED_API))
    _run(root, "git", "commit", "-q", "-m", f"Release {version}")
    message = f"dialler {version}\n\n{section.strip()}\n"
    _run(root, "git", "tag", "--annotate", "--cleanup=verbatim", "-m", message, f"v{version}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _replace(path: Path, pattern: str, value: str) -> None:
    text, count = re.subn(pattern, rf"\g<1>{value}", path.read_text(encoding="utf-8"))
    if count != 1:
        raise ReleaseError(f"{path.name} has {count} places for the version, not one.")
    path.write_text(text, encoding="utf-8")


def _run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}".strip())
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.release", description=__doc__)
    parser.add_argument("version", help="such as 0.2.0")
    version = parser.parse_args().version
    try:
        check(ROOT, version)
        write(ROOT, version, datetime.now(UTC).date())
        commit(ROOT, version)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\nNothing is tagged. `git status` shows what was written.\n")
        return 1
    print(f"v{version} is committed and tagged; push both: git push --follow-tags")
    return 0


if __name__ == "__main__":
    sys.exit(main())
