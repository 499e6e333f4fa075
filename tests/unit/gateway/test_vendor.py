"""The vendored chart library is the one that is pinned."""

import hashlib
import json

from devstack.vendor import FILES, FOLDER, INTEGRITY, MANIFEST, VERSION


def test_vendored_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((FOLDER / MANIFEST).read_text(encoding="utf-8"))
    assert (manifest["version"], manifest["integrity"]) == (VERSION, INTEGRITY)
    found = {
        name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in FILES.values()
    }
    assert manifest["sha256"] == found
    assert "MIT" in (FOLDER / "uplot-licence.txt").read_text(encoding="utf-8")
