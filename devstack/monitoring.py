"""Dashboards and rules as code: what is under deploy/monitoring is written from here.

`python -m devstack.monitoring` writes, `--check` says (1) what is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from devstack.alerting import rules
from devstack.dashboards import DASHBOARDS, dashboard_json

FOLDER = Path(__file__).parent.parent / "deploy" / "monitoring"


def files() -> dict[Path, str]:
    """Return what is to be under deploy/monitoring."""
    head = (
        "# Written by `make monitoring`; to change them change devstack/alerting.py.\n"
        "# Burn-rate windows and factors are the SRE Workbook's; both of a pair must burn.\n"
    )
    written = yaml.safe_dump(rules(), sort_keys=False, width=100)
    made = {FOLDER / "rules.yaml": head + written}
    made |= {FOLDER / "dashboards" / f"{name}.json": dashboard_json(name) for name in DASHBOARDS}
    return made


def main() -> int:
    """Write the files, or with ``--check`` say (1) which are not current."""
    stale = [
        path
        for path, text in files().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    if "--check" not in sys.argv:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path.name} is not current; run: make monitoring\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
