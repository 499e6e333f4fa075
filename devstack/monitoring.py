"""Dashboards and rules as code: what is under deploy/monitoring is written from here.

`python -m devstack.monitoring` writes, `--check` says (1) what is not current.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from devstack.alerting import rules
from devstack.dashboards import DASHBOARDS, dashboard_json
from devstack.packages import PackageMissing, require_program

FOLDER = Path(__file__).parent.parent / "deploy" / "monitoring"
# The same rules as an object, since a Prometheus of the operator reads no other.
OBJECT = FOLDER.parent / "k8s" / "components" / "prometheus" / "rules.yaml"


def files() -> dict[Path, str]:
    """Return what is to be under deploy/monitoring, and the object with the rules."""
    head = (
        "# Written by `make monitoring`; to change them change devstack/alerting.py.\n"
        "# Burn-rate windows and factors are the SRE Workbook's; both of a pair must burn.\n"
    )
    written = yaml.safe_dump(rules(), sort_keys=False, width=100)
    made = {FOLDER / "rules.yaml": head + written}
    made[OBJECT] = head + yaml.safe_dump(_rules_object(), sort_keys=False, width=100)
    made |= {FOLDER / "dashboards" / f"{name}.json": dashboard_json(name) for name in DASHBOARDS}
    return made


def _rules_object() -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dialler", "labels": {"app.kubernetes.io/part-of": "dialler"}},
        "spec": rules(),
    }


def expressions() -> list[str]:
    """Return every expression of every dashboard."""
    return [
        line[0] for _, panels in DASHBOARDS.values() for panel in panels for line in panel.lines
    ]


def main() -> int:
    """Write the files, or with ``--check`` say (1) what is not current or not right."""
    wanted = files()
    stale = [
        path for path in wanted if not path.exists() or path.read_text("utf-8") != wanted[path]
    ]
    if "--check" not in sys.argv:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path.name} is not current; run: make monitoring\n")
    try:
        return 1 if stale else _checked_by_promtool()
    except PackageMissing as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _checked_by_promtool() -> int:
    """Have Prometheus's own tool read the rules and every dashboard's expressions, and test."""
    promtool = require_program("promtool")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as shown:
        recorded = [{"record": f"panel:{n}", "expr": it} for n, it in enumerate(expressions())]
        yaml.safe_dump({"groups": [{"name": "dashboards", "rules": recorded}]}, shown)
        shown.flush()
        commands = (
            ["check", "rules", str(FOLDER / "rules.yaml"), shown.name],
            ["test", "rules", *map(str, sorted((FOLDER / "tests").glob("*.yaml")))],
        )
        for command in commands:
            done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.stderr.write(done.stdout + done.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
