"""`make vendor`: fetch the wallboard's chart library as pinned and keep it in the tree.

A new version: change `VERSION` and `INTEGRITY`, run it, look at the wallboard, commit.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NAME = "uplot"
VERSION = "1.6.32"
INTEGRITY = "sha512-" + (
    "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=="
)
LICENCE = "MIT"
FILES = {
    "package/dist/uPlot.iife.min.js": "uplot.js",
    "package/dist/uPlot.min.css": "uplot.css",
    "package/LICENSE": "uplot-licence.txt",
}
FOLDER = Path(__file__).parent.parent / "gateway" / "wallboard_page" / "vendor"
MANIFEST = "vendor.json"


def main() -> int:
    """Write the files and their hashes; 1 when what npm brings is not what is pinned."""
    with tempfile.TemporaryDirectory() as folder:
        packed = _packed(Path(folder))
        digest = hashlib.sha512(packed.read_bytes()).digest()
        if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
            print(f"{NAME} {VERSION} is not the pinned package", file=sys.stderr)
            return 1
        hashes = _unpack(packed)
    manifest = {
        "name": NAME,
        "version": VERSION,
        "licence": LICENCE,
        "integrity": INTEGRITY,
        "sha256": hashes,
    }
    (FOLDER / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return 0


def _packed(folder: Path) -> Path:
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{NAME}@{VERSION}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (found,) = folder.glob("*.tgz")
    return found


def _unpack(packed: Path) -> dict[str, str]:
    hashes = {}
    with tarfile.open(packed) as archive:
        for inside, name in FILES.items():
            member = archive.extractfile(inside)
            if member is None:
                raise ValueError(f"{inside} is not a file")
            content = member.read()
            (FOLDER / name).write_bytes(content)
            hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


if __name__ == "__main__":
    sys.exit(main())
