"""Sees that the generated stubs are those of the committed contracts."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def outdated(root: Path = ROOT) -> list[str]:
    """Return the files under ``gen/`` that differ from what ``protos/`` generates."""
    with tempfile.TemporaryDirectory() as folder:
        _generate(root, Path(folder))
        fresh = {path.relative_to(folder) for path in Path(folder).rglob("*.py*")}
        kept = {
            path.relative_to(root / "gen")
            for path in (root / "gen").rglob("*.py*")
            if "__pycache__" not in path.parts
        }
        changed = {
            path
            for path in fresh & kept
            if not filecmp.cmp(Path(folder) / path, root / "gen" / path, shallow=False)
        }
        return sorted(str(path) for path in (fresh ^ kept) | changed)


def _generate(root: Path, target: Path) -> None:
    protos = sorted(str(path) for path in (root / "protos").rglob("*.proto"))
    binaries = Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{root / 'protos'}"),
            f"--plugin=protoc-gen-mypy={binaries / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={binaries / 'protoc-gen-mypy_grpc'}",
            f"--python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--grpc_python_out={target}",
            f"--mypy_grpc_out=quiet:{target}",
            *protos,
        ],
        check=True,
    )


def main() -> int:
    """Print what is out of date; 1 if anything is."""
    files = outdated()
    for name in files:
        sys.stderr.write(f"gen/{name} is not what protos/ generates; run: make proto\n")
    return 1 if files else 0


if __name__ == "__main__":
    sys.exit(main())
