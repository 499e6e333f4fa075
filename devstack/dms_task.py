"""Writes ``deploy/aws/task.yaml`` from the main app's description, so that it cannot fall behind.

The DMS task takes its table mappings as text in the template: longer than a parameter may be, and
there is no way to include a file.
"""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

from mainapp.description import Description, load

FOLDER = Path(__file__).parent.parent / "deploy" / "aws"
TEMPLATE = FOLDER / "task.yaml"
SETTINGS = FOLDER / "task-settings.json"
SCHEMA = "${MainAppSchema}"
"""Stands for the parameter, which CloudFormation puts in."""

_TEMPLATE = Template("""\
# Written by `make aws` from mainapp/description.yaml and task-settings.json; not to be edited.
AWSTemplateFormatVersion: "2010-09-09"
Description: >-
  The DMS task that follows the main app's described tables and drops the columns that must never
  leave MySQL. After replication.yaml. It is created stopped; the runbook starts it.

Parameters:
  SuiteName:
    Type: String
    Default: dialler
    AllowedPattern: "^[a-z][a-z0-9-]{0,19}$$"
    Description: As in queues.yaml.
  MainAppSchema:
    Type: String
    AllowedPattern: "^[A-Za-z0-9_$$]+$$"
    Description: The main app's database in MySQL.

Resources:
  ChangesTask:
    Type: AWS::DMS::ReplicationTask
    Properties:
      # One name for both: CloudWatch's dimension takes it, whichever of the two it means.
      ReplicationTaskIdentifier: !Sub "$${SuiteName}-changes"
      ResourceIdentifier: !Sub "$${SuiteName}-changes"
      # Changes only. What is there already is the reconciler's to read: DMS would send every row.
      MigrationType: cdc
      ReplicationInstanceArn:
        Fn::ImportValue: !Sub "$${SuiteName}-InstanceArn"
      SourceEndpointArn:
        Fn::ImportValue: !Sub "$${SuiteName}-MainAppEndpointArn"
      TargetEndpointArn:
        Fn::ImportValue: !Sub "$${SuiteName}-ChangesEndpointArn"
      TableMappings: !Sub |
$mappings
      ReplicationTaskSettings: |
$settings

Outputs:
  TaskArn:
    Value: !Ref ChangesTask
    Export: {Name: !Sub "$${SuiteName}-TaskArn"}
""")


def table_mappings(description: Description) -> dict[str, list[dict[str, Any]]]:
    """Return DMS's table mappings: the described tables, without their secret columns."""
    numbers = (str(number) for number in itertools.count(1))
    return {"rules": [{"rule-id": next(numbers), **rule} for rule in _rules(description)]}


def _rules(description: Description) -> Iterator[dict[str, Any]]:
    for table in description.tables:
        yield {
            "rule-type": "selection",
            "rule-name": f"include-{table}",
            "rule-action": "include",
            "object-locator": {"schema-name": SCHEMA, "table-name": table},
        }
    for table, described in description.tables.items():
        for column in sorted(described.secret):
            yield {
                "rule-type": "transformation",
                "rule-target": "column",
                "rule-name": f"drop-{table}-{column}",
                "rule-action": "remove-column",
                "object-locator": {
                    "schema-name": SCHEMA,
                    "table-name": table,
                    "column-name": column,
                },
            }


def template() -> str:
    """Return the whole template."""
    rules = ",\n".join(f"  {json.dumps(rule)}" for rule in table_mappings(load())["rules"])
    return _TEMPLATE.substitute(
        mappings=textwrap.indent(f'{{"rules": [\n{rules}\n]}}', " " * 8),
        settings=textwrap.indent(SETTINGS.read_text(encoding="utf-8").rstrip(), " " * 8),
    )


def main() -> int:
    """Write the template, or with ``--check`` say (1) that it is not current."""
    current = template()
    if "--check" not in sys.argv:
        TEMPLATE.write_text(current, encoding="utf-8")
        return 0
    if not TEMPLATE.exists() or TEMPLATE.read_text(encoding="utf-8") != current:
        sys.stderr.write("deploy/aws/task.yaml is not what the description says; run: make aws\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
