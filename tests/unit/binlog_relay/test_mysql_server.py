"""Which servers are refused, and how their address is read."""

import pytest

from services.binlog_relay.binlog.server import (
    MySqlSource,
    wrong_filters,
    wrong_settings,
    wrong_updates,
)

MYSQL = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "binlog_row_value_options": "",
    "binlog_transaction_compression": "OFF",
}
MARIADB = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL",
    "log_bin_compress": "OFF",
}


@pytest.mark.parametrize("variables", [MYSQL, MARIADB])
def test_a_server_that_logs_everything_is_accepted(variables: dict[str, str]) -> None:
    assert wrong_settings(variables) == []


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        (MYSQL, "log_bin", "OFF"),
        (MYSQL, "binlog_format", "STATEMENT"),
        (MYSQL, "binlog_row_image", "NOBLOB"),
        (MYSQL, "binlog_row_metadata", "MINIMAL"),
        (MYSQL, "binlog_row_value_options", "PARTIAL_JSON"),
        (MYSQL, "binlog_transaction_compression", "ON"),
        (MARIADB, "binlog_row_image", "FULL_NODUP"),
        (MARIADB, "log_bin_compress", "ON"),
        (MYSQL, "lower_case_table_names", "2"),
    ],
)
def test_anything_less_is_refused_by_name(variables: dict[str, str], name: str, value: str) -> None:
    (wrong,) = wrong_settings(variables | {name: value})
    assert wrong.startswith(f"{name} is {value}: ")


def test_every_wrong_setting_is_named_at_once() -> None:
    wrong = {"binlog_format": "MIXED", "binlog_row_image": "MINIMAL"}
    found = wrong_settings(MYSQL | wrong)
    assert all(any(name in each for each in found) for name in wrong)


def test_a_server_too_old_to_log_metadata_is_refused() -> None:
    old = {name: value for name, value in MYSQL.items() if name != "binlog_row_metadata"}
    (wrong,) = wrong_settings(old)
    assert wrong.startswith("binlog_row_metadata is not there")


@pytest.mark.parametrize("name", ["log_replica_updates", "log_slave_updates"])
def test_a_replica_that_does_not_log_what_it_applies_is_refused_by_name(name: str) -> None:
    (wrong,) = wrong_updates({name: "OFF"}, is_replica=True)
    assert wrong.startswith(f"{name} is OFF on a replica")
    assert wrong_updates({name: "ON"}, is_replica=True) == []
    assert wrong_updates({name: "OFF"}, is_replica=False) == []


@pytest.mark.parametrize(
    ("does", "ignores", "case", "expected"),
    [
        ("", "", "0", []),
        ("app", "", "0", []),
        ("other, app", "mysql", "0", []),
        ("other", "", "0", ["Binlog_Do_DB is other"]),
        ("", "mysql,app", "0", ["Binlog_Ignore_DB is mysql,app"]),
        ("", "App", "0", []),
        ("", "App", "1", ["Binlog_Ignore_DB is App"]),
        ("App", "", "0", ["Binlog_Do_DB is App"]),
        ("App", "", "1", []),
    ],
)
def test_a_filter_that_hides_the_schema_is_named(
    does: str, ignores: str, case: str, expected: list[str]
) -> None:
    found = wrong_filters("app", does, ignores, {"lower_case_table_names": case})
    assert [each.partition(":")[0] for each in found] == expected


def test_an_address_is_read_with_its_escapes() -> None:
    source = MySqlSource.parse(
        "mysql://re%40lay:p%2Fw@db.example:3307/main%20app?ssl_ca=/etc/ca.pem"
    )
    assert source == MySqlSource("db.example", 3307, "re@lay", "p/w", "main app", "/etc/ca.pem")


@pytest.mark.parametrize("url", ["mysql://host", "mysql:///database", "nonsense"])
def test_an_incomplete_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="host and a database"):
        MySqlSource.parse(url)
