"""The templates fit each other, and the services that are configured from them."""

import pytest

from devstack.aws_templates import (
    FOLDER,
    ORDER,
    exported,
    functions,
    imports,
    load,
    load_all,
    resources,
)
from devstack.configuration_page import settings_class
from services.cdc_ingest.settings import CdcIngestSettings

README = (FOLDER / "README.md").read_text(encoding="utf-8")


def _default(name: str) -> int:
    return int(CdcIngestSettings.model_fields[name].default)


def test_the_order_names_every_template_once() -> None:
    assert sorted(ORDER) == sorted(load_all())


def test_every_import_is_exported_before() -> None:
    known: set[str] = set()
    for name in ORDER:
        template = load(name)
        missing = set(imports(template)) - known
        assert not missing, f"{name} imports {missing}"
        for output in template.get("Outputs", {}).values():
            if "Export" in output:
                known.add(exported(output["Export"]["Name"]))


def test_every_export_is_imported() -> None:
    exports = {
        exported(output["Export"]["Name"])
        for template in load_all().values()
        for output in template.get("Outputs", {}).values()
        if "Export" in output
    }
    assert exports == {name for template in load_all().values() for name in imports(template)}


def test_everything_a_template_needs_is_in_the_readme_with_its_order() -> None:
    places = [README.index(f"`{name}.yaml`") for name in ORDER]
    assert places == sorted(places)
    for template in load_all().values():
        for name, parameter in template.get("Parameters", {}).items():
            assert parameter.get("Description"), name
            if "Default" not in parameter:
                assert f"`{name}`" in README


def test_suite_names_are_written_alike_everywhere() -> None:
    parameters = [
        template["Parameters"]["SuiteName"]
        for template in load_all().values()
        if "SuiteName" in template.get("Parameters", {})
    ]
    assert len(parameters) == len(ORDER) - 1
    for each in parameters:
        assert each["AllowedPattern"] == parameters[0]["AllowedPattern"]
        assert each["Default"] == parameters[0]["Default"]


@pytest.mark.parametrize("service", ["cdc_ingest", "binlog_relay"])
def test_outputs_feed_the_settings_that_are_about_aws(service: str) -> None:
    fed = {
        variable
        for output in load("queues")["Outputs"].values()
        for variable in output.get("Description", "").split()
        if variable.startswith(f"{service.upper()}_")
    }
    fields = settings_class(f"services.{service}.settings").model_fields
    about_aws = {
        f"{service.upper()}_{name.upper()}"
        for name in fields
        # The endpoint is for local stacks; in AWS the region has one.
        if name.startswith(("sqs_", "aws_")) and name != "sqs_endpoint_url"
    }
    assert fed == about_aws


def test_sqs_gives_a_message_up_well_after_the_consumer_would() -> None:
    queue = resources("AWS::SQS::Queue")["queues", "ChangeQueue"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 2 * _default("max_receives")
    assert queue["VisibilityTimeout"] == _default("visibility_seconds")


def test_dead_letters_outlive_what_they_were() -> None:
    queues = resources("AWS::SQS::Queue")
    change, dead = queues["queues", "ChangeQueue"], queues["queues", "DeadLetters"]
    assert dead["MessageRetentionPeriod"] > change["MessageRetentionPeriod"]


def test_everything_that_holds_changes_is_encrypted_with_our_key() -> None:
    kinds = {
        "AWS::SQS::Queue": "KmsMasterKeyId",
        "AWS::SNS::Topic": "KmsMasterKeyId",
        "AWS::Logs::LogGroup": "KmsKeyId",
        "AWS::DMS::ReplicationInstance": "KmsKeyId",
        "AWS::Kinesis::Stream": "StreamEncryption",
    }
    for kind, key in kinds.items():
        found = resources(kind)
        assert found, kind
        for name, properties in found.items():
            assert "MessagesKey" in str(properties[key]), name


def test_the_pipe_hands_over_what_sqs_takes_and_never_gets_stuck() -> None:
    [pipe] = resources("AWS::Pipes::Pipe").values()
    source = pipe["SourceParameters"]["KinesisStreamParameters"]
    assert source["BatchSize"] <= 10
    assert source["StartingPosition"] == "TRIM_HORIZON"
    assert source["OnPartialBatchItemFailure"] == "AUTOMATIC_BISECT"
    assert 0 < source["MaximumRetryAttempts"] < 1_000
    assert source["DeadLetterConfig"]["Arn"] == {"Fn::GetAtt": "PipeDeadLetters.Arn"}
    assert set(imports(pipe["Target"])) == {"ChangeQueueArn"}


def test_the_pipe_logs_no_data() -> None:
    [pipe] = resources("AWS::Pipes::Pipe").values()
    assert "IncludeExecutionData" not in pipe["LogConfiguration"]


def test_names_of_dms_resources_are_short_enough() -> None:
    longest_suite = "x" * 20
    for kind in ("AWS::DMS::ReplicationInstance", "AWS::DMS::ReplicationTask"):
        for properties in resources(kind).values():
            [name] = functions("Fn::Sub", properties["ResourceIdentifier"])
            assert len(name.replace("${SuiteName}", longest_suite)) <= 31
