"""Which role may do what in AWS: none more than it needs."""

import re
from pathlib import Path

import pytest

from devstack.aws_templates import (
    FOLDER,
    Statement,
    exported,
    functions,
    load,
    resources,
    statements,
)
from devstack.stack import SERVICES

ROOT = FOLDER.parent.parent
EVERY_SERVICE = (*SERVICES, "gateway")

# Where an asterisk stands, and only there; each has its reason in a comment above it.
EXPLAINED = {
    ("queues", "AccountDecidesByIam"),
    ("queues", "AlarmsPublish"),
    ("queues", "RulesPublish"),
    ("queues", "LogsOfThePipe"),
    ("queues", "DenyPlainHttp"),
    ("stream", "DenyPlainHttp"),
    ("service-roles", "ReadChangeFiles"),
    ("service-roles", "SendTraces"),
    ("service-roles", "SendMetrics"),
}

# By role: each action and the exports it is allowed on.
ALLOWED: dict[str, dict[str, set[str]]] = {
    "CdcIngestRole": {
        "sqs:ReceiveMessage": {"ChangeQueueArn", "DeadLettersArn"},
        "sqs:DeleteMessage": {"ChangeQueueArn", "DeadLettersArn"},
        "sqs:ChangeMessageVisibility": {"ChangeQueueArn", "DeadLettersArn"},
        "sqs:GetQueueAttributes": {"ChangeQueueArn", "DeadLettersArn"},
        "sqs:SendMessage": {"ChangeQueueArn", "DeadLettersArn"},
        "sqs:ListQueueTags": {"ChangeQueueArn"},
        "sqs:TagQueue": {"ChangeQueueArn"},
        "sqs:UntagQueue": {"ChangeQueueArn"},
        "kms:Decrypt": {"MessagesKeyArn"},
        "kms:GenerateDataKey": {"MessagesKeyArn"},
    },
    "BinlogRelayRole": {
        "sqs:SendMessage": {"ChangeQueueArn"},
        "kms:Decrypt": {"MessagesKeyArn"},
        "kms:GenerateDataKey": {"MessagesKeyArn"},
    },
    "UserContextRole": {},
    "QueueRole": {},
    "ReconcilerRole": {},
    "GatewayRole": {},
    # To none of the suite's own resources.
    "CollectorRole": {
        "xray:PutTraceSegments": set(),
        "xray:PutTelemetryRecords": set(),
        "logs:CreateLogGroup": set(),
        "logs:CreateLogStream": set(),
        "logs:DescribeLogStreams": set(),
        "logs:PutLogEvents": set(),
        "logs:PutRetentionPolicy": set(),
    },
}


def _has_asterisk(statement: Statement) -> bool:
    named = [*statement.actions, *map(str, statement.resources), str(statement.principal)]
    return any("*" in each for each in named)


def test_asterisks_stand_only_where_they_are_explained() -> None:
    found = {(each.template, each.sid) for each in statements() if _has_asterisk(each)}
    assert found == EXPLAINED


@pytest.mark.parametrize(("template", "sid"), sorted(EXPLAINED))
def test_each_asterisk_has_a_comment(template: str, sid: str) -> None:
    lines = (FOLDER / f"{template}.yaml").read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if f"- Sid: {sid}" in line)
    assert lines[at - 1].lstrip().startswith("# ")


def test_only_the_account_may_do_everything_with_the_key() -> None:
    [statement] = [each for each in statements() if "kms:*" in each.actions]
    assert statement.principal == {
        "AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}
    }


def test_statements_for_every_principal_only_deny() -> None:
    for_every_principal = [each for each in statements() if each.principal in ("*", {"AWS": "*"})]
    assert for_every_principal
    assert {each.effect for each in for_every_principal} == {"Deny"}


def _trusted(statement: Statement) -> list[str]:
    if not isinstance(statement.principal, dict):
        return []
    service = statement.principal.get("Service", [])
    return [str(each) for each in (service if isinstance(service, list) else [service])]


def test_every_service_of_aws_that_is_trusted_is_tied_to_this_account() -> None:
    trusting = [each for each in statements() if _trusted(each)]
    assert trusting
    for each in trusting:
        if _trusted(each) != ["events.amazonaws.com"]:
            assert "AWS::AccountId" in str(each.condition), each


def test_rules_publish_without_a_condition_which_would_drop_their_messages() -> None:
    """EventBridge fills in no condition on its way to SNS and its key, as AWS documents."""
    trusting = [each for each in statements() if "events.amazonaws.com" in _trusted(each)]
    rules = [each for each in trusting if "sqs:SendMessage" not in each.actions]
    assert {(each.template, each.kind) for each in rules} == {
        ("queues", "KeyPolicy"),
        ("alarms", "PolicyDocument"),
    }
    assert all(each.condition == {} for each in rules)


def test_only_the_rule_about_the_task_may_send_to_the_change_queue() -> None:
    """To SQS it does say for which rule."""
    [sending] = [
        each for each in statements() if _trusted(each) and "sqs:SendMessage" in each.actions
    ]
    name = load("replication-alarms")["Resources"]["TaskLostItsPlace"]["Properties"]["Name"]
    [source] = sending.condition["ArnEquals"].values()
    assert source["Fn::Sub"].endswith(f":${{AWS::AccountId}}:rule/{name['Fn::Sub']}")
    assert "ChangeQueue" in str(sending.resources)


def test_every_service_has_a_role_for_its_own_service_account() -> None:
    roles = {
        logical for template, logical in resources("AWS::IAM::Role") if template == "service-roles"
    }
    expected = {
        "".join(part.title() for part in name.split("_")) + "Role"
        for name in (*EVERY_SERVICE, "collector")
    }
    assert roles == expected == set(ALLOWED)


@pytest.mark.parametrize("service", [*EVERY_SERVICE, "collector"])
def test_a_role_is_taken_by_one_service_account_of_one_namespace(service: str) -> None:
    role = "".join(part.title() for part in service.split("_")) + "Role"
    [trust] = [
        each
        for each in statements()
        if each.resource == role and each.kind == "AssumeRolePolicyDocument"
    ]
    account = f"system:serviceaccount:${{Namespace}}:{service.replace('_', '-')}"
    assert trust.actions == ("sts:AssumeRoleWithWebIdentity",)
    assert trust.condition == {
        "StringEquals": {
            "${OidcIssuer}:aud": "sts.amazonaws.com",
            "${OidcIssuer}:sub": account,
        }
    }


@pytest.mark.parametrize("role", sorted(ALLOWED))
def test_a_role_may_do_exactly_what_its_service_does(role: str) -> None:
    allowed: dict[str, set[str]] = {}
    for each in statements():
        if each.resource == role and each.kind == "PolicyDocument":
            for action in each.actions:
                names = allowed.setdefault(action, set())
                for resource in each.resources:
                    names.update(map(exported, functions("Fn::ImportValue", resource)))
    assert allowed == ALLOWED[role]


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_whatever_a_service_asks_of_aws_is_allowed(service: str) -> None:
    """Read from the code, so that a new call without a permission is found here."""
    folder = ROOT / ("gateway" if service == "gateway" else f"services/{service}")
    role = "".join(part.title() for part in service.split("_")) + "Role"
    allowed = {action.partition(":")[2] for action in ALLOWED[role]}
    if service == "cdc_ingest":
        allowed |= {"GetObject"}  # CdcIngestReadsChangeFiles
    assert _calls(folder) <= allowed


def test_the_reading_of_calls_from_code_finds_them() -> None:
    assert {"ReceiveMessage", "SendMessage"} <= _calls(ROOT / "services/cdc_ingest")
    assert _calls(ROOT / "services/binlog_relay") == {"SendMessage"}


def _calls(folder: Path) -> set[str]:
    """IAM's names for what the modules that use boto3 call on their clients."""
    methods: set[str] = set()
    for path in folder.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        if "boto3" in code:
            methods.update(re.findall(r"client\.(\w+)\(", code))
    # A batch is allowed by the action of its single form.
    singles = {method.removesuffix("_batch") for method in methods - {"close", "client"}}
    return {"".join(part.title() for part in method.split("_")) for method in singles}


def test_change_files_are_read_only_where_there_are_any() -> None:
    [(key, policy)] = resources("AWS::IAM::RolePolicy").items()
    assert key == ("service-roles", "CdcIngestReadsChangeFiles")
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert statement["Resource"] == {"Fn::Sub": "${ChangeFilesArn}/*"}
    resource = load("service-roles")["Resources"]["CdcIngestReadsChangeFiles"]
    assert resource["Condition"] == "ReadsChangeFiles"
