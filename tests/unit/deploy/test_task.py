"""What DMS is told: nothing secret leaves, nothing we need is missing, and how it must write."""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape, StructureShape
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from devstack import dms_task
from devstack.aws_templates import FOLDER, load, resources
from mainapp import description

SCHEMA_FILE = FOLDER.parent.parent / "devstack" / "mainapp_schema.sql"
MAIN_APP = description.load()


def _task() -> dict[str, Any]:
    properties: dict[str, Any] = load("task")["Resources"]["ChangesTask"]["Properties"]
    return properties


def _rules() -> list[dict[str, Any]]:
    text = _task()["TableMappings"]["Fn::Sub"].replace("${MainAppSchema}", "mainapp")
    rules: list[dict[str, Any]] = json.loads(text)["rules"]
    return rules


def _columns() -> dict[str, set[str]]:
    """Every column of the main app, by table, as its own schema has them."""
    tables = {}
    sql = SCHEMA_FILE.read_text(encoding="utf-8")
    for name, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", sql, re.DOTALL):
        lines = re.findall(r"^  ([a-z]\w*) ", body, re.MULTILINE)
        tables[name] = set(lines)
    return tables


def _matches(locator: dict[str, str], **names: str) -> bool:
    # DMS writes % where the shell writes *.
    return all(
        fnmatchcase(names[kind], locator[f"{kind}-name"].replace("%", "*")) for kind in names
    )


def _leaving(rules: list[dict[str, Any]], table: str, columns: set[str]) -> set[str]:
    """The columns that DMS sends of a table under these rules."""
    chosen = [
        rule
        for rule in rules
        if rule["rule-type"] == "selection"
        and rule["rule-action"] == "include"
        and _matches(rule["object-locator"], schema="mainapp", table=table)
    ]
    removals = [rule for rule in rules if rule["rule-action"] == "remove-column"]
    return {
        column
        for column in columns
        if chosen
        and not any(
            _matches(rule["object-locator"], schema="mainapp", table=table, column=column)
            for rule in removals
        )
    }


def test_no_secret_column_leaves_and_every_column_we_read_does() -> None:
    for table, columns in _columns().items():
        described = MAIN_APP.tables.get(table)
        leaving = _leaving(_rules(), table, columns)
        if described is None:
            assert leaving == set(), table
            continue
        assert not leaving & described.secret
        assert described.secret <= columns
        assert leaving >= described.columns.keys()


def test_a_missing_removal_would_be_seen() -> None:
    rules = [rule for rule in _rules() if "password" not in str(rule)]
    assert "password" in _leaving(rules, "users", _columns()["users"])


def test_rules_have_numbers_and_names_of_their_own() -> None:
    rules = _rules()
    assert len({rule["rule-id"] for rule in rules}) == len(rules)
    assert len({rule["rule-name"] for rule in rules}) == len(rules)


def test_a_template_behind_its_description_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dms_task", "--check"])
    assert dms_task.main() == 0
    old = tmp_path / "task.yaml"
    old.write_text(dms_task.template().replace("remove-column", "add-column"), encoding="utf-8")
    monkeypatch.setattr(dms_task, "TEMPLATE", old)
    assert dms_task.main() == 1
    assert "make aws" in capsys.readouterr().err


def test_the_task_writes_before_images_of_all_columns() -> None:
    settings = json.loads(_task()["ReplicationTaskSettings"])
    assert settings["BeforeImageSettings"] == {
        "EnableBeforeImage": True,
        # The name cdc_ingest looks for.
        "FieldName": "before-image",
        "ColumnFilter": "all",
    }


def test_the_task_stops_rather_than_leave_out_a_table_in_silence() -> None:
    settings = json.loads(_task()["ReplicationTaskSettings"])
    behaviour = settings["ErrorBehavior"]
    for policy in ("DataErrorEscalationPolicy", "TableErrorPolicy", "TableErrorEscalationPolicy"):
        assert behaviour[policy] == "STOP_TASK"
    assert behaviour["FailOnNoTablesCaptured"] is True
    assert settings["Logging"]["EnableLogging"] is True


def test_the_task_sends_changes_only() -> None:
    assert _task()["MigrationType"] == "cdc"


def test_the_stream_gets_what_cdc_ingest_relies_on() -> None:
    settings = resources("AWS::DMS::Endpoint")["replication", "Changes"]["KinesisSettings"]
    wanted = {
        "MessageFormat": "json-unformatted",
        "IncludeNullAndEmpty": True,
        "IncludeTransactionDetails": True,
        "IncludeTableAlterOperations": True,
        "PartitionIncludeSchemaTable": True,
    }
    assert {name: settings[name] for name in wanted} == wanted


def test_what_cloudformation_cannot_say_is_a_setting_dms_knows() -> None:
    path = FOLDER / "kinesis-endpoint-settings.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    assert settings == {"UseLargeIntegerValue": True}
    assert _kinesis_members()["UseLargeIntegerValue"].type_name == "boolean"


def test_the_endpoint_settings_are_values_dms_knows() -> None:
    """cfn-lint leaves these texts alone."""
    settings = resources("AWS::DMS::Endpoint")["replication", "Changes"]["KinesisSettings"]
    members = _kinesis_members()
    assert settings.keys() <= members.keys()
    assert settings["MessageFormat"] in members["MessageFormat"].metadata["enum"]


def _kinesis_members() -> dict[str, Shape]:
    shape = botocore.session.get_session().get_service_model("dms").shape_for("KinesisSettings")
    assert isinstance(shape, StructureShape)
    return dict(shape.members)


def test_cloudformation_still_cannot_say_it() -> None:
    """Once it can, the setting belongs in replication.yaml and a step of the runbook is over."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-west-2", "AWS::DMS::Endpoint").schema
    assert "UseLargeIntegerValue" not in schema["definitions"]["KinesisSettings"]["properties"]


def test_mysql_is_read_over_tls_without_a_password_in_the_template() -> None:
    main_app = resources("AWS::DMS::Endpoint")["replication", "MainApp"]
    assert main_app["SslMode"] == "verify-full"
    assert not {"Username", "Password"} & main_app.keys()
    assert main_app["MySqlSettings"]["SecretsManagerSecretId"] == {"Ref": "MySqlSecretArn"}
