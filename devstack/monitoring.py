"""Dashboards and rules as code: what is under deploy/monitoring is written from here.

`python -m devstack.monitoring` writes, `--check` says (1) what is not current.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from devstack.alerting import rules
from devstack.dashboards import DASHBOARDS
from devstack.grafana import dashboard_json
from devstack.grafana import expressions as panel_expressions
from devstack.packages import PackageMissing, require_program

FOLDER = Path(__file__).parent.parent / "deploy" / "monitoring"
# The same rules as an object, since a Prometheus of the operator reads no other.
OBJECT = FOLDER.parent / "k8s" / "components" / "prometheus" / "rules.yaml"

_NO_NAME = re.compile(r"[^a-z0-9]+")
_VARIABLE = re.compile(r"\$(?:cluster|namespace|service)\b")


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
    return [rule["expr"] for rule in _panels()]


def _panels() -> list[dict[str, str]]:
    """Return every panel's expressions as rules, so that promtool can read and test them."""
    return [
        {"record": f"panel:{name}:{_NO_NAME.sub('_', title.lower())}:{number}", "expr": expression}
        for name in DASHBOARDS
        for title, lines in panel_expressions(name)
        for number, expression in enumerate(lines)
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
    with tempfile.TemporaryDirectory() as folder:
        rules_file, panels, tests = (Path(folder) / it for it in ("rules.yaml", "panels.yaml", "t"))
        shutil.copy(FOLDER / "rules.yaml", rules_file)
        # As Grafana asks while nothing is chosen.
        recorded = [it | {"expr": _VARIABLE.sub(".*", it["expr"])} for it in _panels()]
        with panels.open("w", encoding="utf-8") as file:
            yaml.safe_dump({"groups": [{"name": "dashboards", "rules": recorded}]}, file)
        shutil.copytree(FOLDER / "tests", tests)
        commands = (
            ["check", "rules", str(rules_file), str(panels)],
            ["test", "rules", *map(str, sorted(tests.glob("*.yaml")))],
        )
        for command in commands:
            done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.stderr.write(done.stdout + done.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
