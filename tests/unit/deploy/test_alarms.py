"""Whatever stops changes on their way raises an alarm, and so does silence where it is one."""

import json
import re
from typing import Any

import pytest
from moto.events.models import EventPattern

from devstack.aws_templates import FOLDER, exported, functions, imports, load, resources
from tests.unit.cdc_ingest.bodies import demand

TASK = "arn:aws:dms:eu-west-2:123456789012:task:dialler-changes"

# Namespace, metric, whether silence is the worst value, the statistic.
EXPECTED = [
    ("AWS/DMS", "CDCLatencySource", "breaching", "Maximum"),
    ("AWS/DMS", "CDCLatencyTarget", "breaching", "Maximum"),
    ("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", "breaching", "Maximum"),
    ("AWS/Kinesis", "WriteProvisionedThroughputExceeded", "notBreaching", "Sum"),
    ("AWS/EventBridge/Pipes", "ExecutionFailed", "notBreaching", "Sum"),
    ("AWS/EventBridge/Pipes", "ExecutionPartiallyFailed", "notBreaching", "Sum"),
    ("AWS/EventBridge/Pipes", "ExecutionThrottled", "notBreaching", "Sum"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "notBreaching", "Maximum"),
]


def _alarms() -> list[dict[str, Any]]:
    return list(resources("AWS::CloudWatch::Alarm").values())


def _of(namespace: str, metric: str) -> list[dict[str, Any]]:
    return [
        each
        for each in _alarms()
        if (each.get("Namespace"), each.get("MetricName")) == (namespace, metric)
    ]


@pytest.mark.parametrize(("namespace", "metric", "missing", "statistic"), EXPECTED)
def test_there_is_an_alarm(namespace: str, metric: str, missing: str, statistic: str) -> None:
    [alarm] = _of(namespace, metric)
    assert alarm["TreatMissingData"] == missing
    assert alarm["Statistic"] == statistic
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"


def test_rules_that_cannot_tell_of_the_task_raise_an_alarm() -> None:
    alarms = _of("AWS/Events", "FailedInvocations")
    watched = {each["Dimensions"][0]["Value"]["Ref"] for each in alarms}
    assert watched == {"TaskChangedState", "TaskLostItsPlace"}
    for each in alarms:
        assert (each["TreatMissingData"], each["Statistic"]) == ("notBreaching", "Sum")


def test_one_dead_letter_is_enough_in_either_queue() -> None:
    alarms = _of("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    assert {name for each in alarms for name in imports(each["Dimensions"])} == {
        "DeadLettersName",
        "PipeDeadLettersName",
    }
    for each in alarms:
        assert (each["Threshold"], each["EvaluationPeriods"]) == (0, 1)


def test_a_queue_without_receivers_is_noticed_while_nothing_is_sent() -> None:
    alarm = resources("AWS::CloudWatch::Alarm")["alarms", "NoReceiver"]
    metrics = {each["MetricStat"]["Metric"]["MetricName"] for each in alarm["Metrics"][1:]}
    assert metrics == {"NumberOfMessagesReceived", "NumberOfEmptyReceives"}
    assert alarm["ComparisonOperator"] == "LessThanThreshold"
    assert alarm["TreatMissingData"] == "breaching"


def test_every_alarm_tells_the_topic_and_says_what_it_means() -> None:
    assert len(_alarms()) >= len(EXPECTED)
    for each in _alarms():
        for actions in (each["AlarmActions"], each["OKActions"]):
            assert "AlarmTopic" in str(actions)
        assert len(each["AlarmDescription"]) > 40


def test_the_runbook_speaks_of_every_alarm_and_of_no_other() -> None:
    names = {
        each["AlarmName"]["Fn::Sub"]
        for (template, _), each in resources("AWS::CloudWatch::Alarm").items()
        # The services' have a page each (test_monitoring.py), the stores' a page of their own.
        if template not in ("service-alarms", "store-alarms")
    }
    names |= {each["Name"]["Fn::Sub"] for each in resources("AWS::Events::Rule").values()}
    runbook = (FOLDER.parent.parent / "docs/runbooks/change-capture-aws.md").read_text("utf-8")
    spoken_of = set(re.findall(r"dialler-[a-z-]+", runbook)) - {"dialler-changes"}
    assert spoken_of == {name.replace("${SuiteName}", "dialler") for name in names}


def test_the_page_of_the_stores_speaks_of_every_alarm_on_them() -> None:
    runbook = (FOLDER.parent.parent / "docs/runbooks/stores-aws.md").read_text("utf-8")
    names = {each["AlarmName"]["Fn::Sub"] for each in _store_alarms().values()}
    spoken_of = set(re.findall(r"^\| `(dialler-[a-z-]+)` \|", runbook, re.MULTILINE))
    assert spoken_of == {name.replace("${SuiteName}", "dialler") for name in names}
    for each in _store_alarms().values():
        assert "docs/runbooks/stores-aws.md" in each["AlarmDescription"]


def test_alarms_on_the_stores_watch_what_runs_out() -> None:
    assert {_store_metric(each) for each in _store_alarms().values()} == {
        ("AWS/RDS", "FreeStorageSpace", ("PostgresInstance",)),
        ("AWS/RDS", "CPUUtilization", ("PostgresInstance",)),
        ("AWS/RDS", "DatabaseConnections", ("PostgresInstance",)),
        ("AWS/RDS", "CPUUtilization", ("MySqlReplicaInstance",)),
        ("AWS/RDS", "DatabaseConnections", ("MySqlReplicaInstance",)),
        ("AWS/RDS", "ReplicaLag", ("MySqlReplicaInstance",)),
        ("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", ("RedisNode", "RedisOtherNode")),
        ("AWS/ElastiCache", "Evictions", ("RedisNode", "RedisOtherNode")),
        ("AWS/ElastiCache", "EngineCPUUtilization", ("RedisNode", "RedisOtherNode")),
    }


def test_a_replica_that_follows_no_more_is_one_that_lags() -> None:
    """RDS gives its lag as -1, which is above no threshold."""
    alarm = _store_alarms()["ReplicaLags"]
    [reckoned] = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
    assert reckoned == "IF(lag < 0, 86400, lag)"
    longest = load("store-alarms")["Parameters"]["ReplicaLagSeconds"]["Default"]
    assert longest < 86400
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    assert alarm["TreatMissingData"] == "breaching"


def test_storage_that_runs_out_is_below_its_threshold_in_the_unit_of_the_parameter() -> None:
    alarm = _store_alarms()["PostgresStorageLow"]
    [reckoned] = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
    assert reckoned == f"free / {1024**3}"
    assert alarm["ComparisonOperator"] == "LessThanThreshold"
    above = [each for name, each in _store_alarms().items() if name != "PostgresStorageLow"]
    assert {each["ComparisonOperator"] for each in above} == {"GreaterThanThreshold"}


def _store_alarms() -> dict[str, dict[str, Any]]:
    alarms = resources("AWS::CloudWatch::Alarm").items()
    return {name: each for (template, name), each in alarms if template == "store-alarms"}


def _store_metric(alarm: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return namespace, metric and the parameters that say of what."""
    stats = [it["MetricStat"]["Metric"] for it in alarm.get("Metrics", ()) if "MetricStat" in it]
    asked = stats or [alarm]
    [(namespace, name)] = {(it["Namespace"], it["MetricName"]) for it in asked}
    return namespace, name, tuple(it["Dimensions"][0]["Value"]["Ref"] for it in asked)


def test_dms_alarms_are_on_our_task_by_the_name_that_ends_its_arn() -> None:
    task = load("task")["Resources"]["ChangesTask"]["Properties"]
    instance = load("replication")["Resources"]["Instance"]["Properties"]
    for metric in ("CDCLatencySource", "CDCLatencyTarget"):
        [alarm] = _of("AWS/DMS", metric)
        dimensions = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
        assert dimensions == {
            "ReplicationInstanceIdentifier": instance["ReplicationInstanceIdentifier"],
            "ReplicationTaskIdentifier": task["ResourceIdentifier"],
        }
    assert task["ResourceIdentifier"] == task["ReplicationTaskIdentifier"]
    assert instance["ResourceIdentifier"] == instance["ReplicationInstanceIdentifier"]


@pytest.mark.parametrize(
    ("event_type", "task", "is_told"),
    [
        ("REPLICATION_TASK_STOPPED", TASK, True),
        ("REPLICATION_TASK_FAILED", TASK, True),
        ("REPLICATION_TASK_DELETED", TASK, True),
        ("REPLICATION_TASK_STARTED", TASK, False),
        ("REPLICATION_TASK_STOPPED", TASK + "-of-others", False),
    ],
)
def test_the_rule_tells_of_a_task_that_stops(event_type: str, task: str, is_told: bool) -> None:
    assert (
        _pattern("TaskChangedState", TASK).matches_event(
            {
                "source": "aws.dms",
                "detail-type": "DMS Replication Task State Change",
                "resources": [task],
                "detail": {
                    "type": "ReplicationTask",
                    "category": "StateChange",
                    "eventType": event_type,
                },
            }
        )
        is is_told
    )


def _pattern(rule: str, arn: str) -> Any:
    pattern = load("replication-alarms")["Resources"][rule]["Properties"]["EventPattern"]
    [imported] = functions("Fn::ImportValue", pattern)
    assert exported(imported) == "TaskArn"
    text = json.dumps(pattern).replace(json.dumps({"Fn::ImportValue": imported}), json.dumps(arn))
    return EventPattern.load(text)


@pytest.mark.parametrize(
    ("kind", "is_told"),
    [
        ("REPLICATION_TASK_FAILED", True),
        ("REPLICATION_TASK_STOPPED", True),
        ("REPLICATION_TASK_STARTED", True),
        ("REPLICATION_TASK_CREATED", False),
    ],
)
def test_the_ingest_is_told_when_the_task_may_have_lost_its_place(kind: str, is_told: bool) -> None:
    event = {
        "source": "aws.dms",
        "detail-type": "DMS Replication Task State Change",
        "resources": [TASK],
        "detail": {"eventType": kind},
    }
    assert _pattern("TaskLostItsPlace", TASK).matches_event(event) is is_told
    lost = demand(event).lost_track is not None
    assert lost is is_told, "whatever is sent is understood"


def test_rules_tell_whom_they_may() -> None:
    rules = resources("AWS::Events::Rule")
    told = {name: set(imports(rule["Targets"])) for (_, name), rule in rules.items()}
    assert told.pop("TaskLostItsPlace") == {"ChangeQueueArn"}
    assert set(map(frozenset, told.values())) == {frozenset({"AlarmTopicArn"})}
    [topic] = resources("AWS::SNS::TopicPolicy").values()
    allowed = {each["Principal"]["Service"] for each in topic["PolicyDocument"]["Statement"]}
    assert allowed == {"cloudwatch.amazonaws.com", "events.amazonaws.com"}
