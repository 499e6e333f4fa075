"""The tools of `make aws-check` find mistakes; a check that cannot fail says nothing."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from devstack.aws_templates import FOLDER

ROOT = FOLDER.parent.parent
CFN_LINT = ROOT / ".venv" / "bin" / "cfn-lint"
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"


@pytest.mark.parametrize(
    ("template", "right", "wrong", "rule"),
    [
        ("queues", "MessageRetentionPeriod:", "MessageRetention:", "E3002"),
        ("stream", "BatchSize: 10", "BatchSize: 10001", "E3034"),
        ("stream", "TRIM_HORIZON", "EARLIEST", "E3030"),
        ("replication", "IncludeNullAndEmpty:", "IncludeNulls:", "E3002"),
        ("alarms", "!Ref AlarmTopic\n", "!Ref AlarmTopics\n", "E1020"),
        ("task", "ReplicationInstanceArn:", "InstanceArn:", "E3003"),
    ],
)
def test_cfn_lint_finds_a_mistake(
    tmp_path: Path, template: str, right: str, wrong: str, rule: str
) -> None:
    text = (FOLDER / f"{template}.yaml").read_text(encoding="utf-8")
    assert right in text
    copy = tmp_path / f"{template}.yaml"
    copy.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    command = [str(CFN_LINT), "--regions", "eu-west-2", "--format", "json", "--", str(copy)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert rule in {each["Rule"]["Id"] for each in json.loads(result.stdout)}


PLANTED = {
    "CKV_AWS_27": ("queues", "      KmsMasterKeyId: !GetAtt MessagesKey.Arn\n", ""),
    "CKV_AWS_7": ("queues", "EnableKeyRotation: true", "EnableKeyRotation: false"),
    "CKV_AWS_43": (
        "stream",
        "      StreamEncryption:\n        EncryptionType: KMS\n        KeyId:\n"
        '          Fn::ImportValue: !Sub "${SuiteName}-MessagesKeyArn"\n',
        "",
    ),
    "CKV_AWS_89": ("replication", "PubliclyAccessible: false", "PubliclyAccessible: true"),
    "CKV_AWS_111": (
        "stream",
        '                Action: "sqs:SendMessage"\n                Resource:\n'
        '                  - Fn::ImportValue: !Sub "${SuiteName}-ChangeQueueArn"\n'
        "                  - !GetAtt PipeDeadLetters.Arn\n",
        '                Action: "sqs:*"\n                Resource: "*"\n',
    ),
}
"""By policy: the template, and what is put in place of what to break it."""


NOTHING_TO_CHECK = {"task", "replication-alarms", "service-alarms", "store-alarms"}
"""Templates of whose resources no policy speaks."""


def test_checkov_finds_each_mistake(tmp_path: Path) -> None:
    if not CHECKOV.exists():
        pytest.fail("checkov is not installed; run: make aws-check")
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        for template, right, wrong in PLANTED.values():
            if template == path.stem:
                assert right in text
                text = text.replace(right, wrong, 1)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    command = [str(CHECKOV), "--directory", str(tmp_path), "--framework", "cloudformation"]
    command += ["--skip-download", "--output", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    failed = {each["check_id"] for each in report["results"]["failed_checks"]}
    assert failed >= PLANTED.keys()
    # A template it cannot read it would pass over.
    assert report["summary"]["parsing_errors"] == 0
    read = {Path(each["file_path"]).stem for each in _checks(report)}
    assert read == {path.stem for path in FOLDER.glob("*.yaml")} - NOTHING_TO_CHECK


def _checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    results: dict[str, list[dict[str, Any]]] = report["results"]
    return [each for kind in ("passed_checks", "failed_checks") for each in results[kind]]
