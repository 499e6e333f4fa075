"""Which servers are refused, and how their address is read."""

import pytest

from servicekit.errors import FailedPrecondition
from services.binlog_relay.mysql_server import Source, check_settings

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
    check_settings(variables)


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
    ],
)
def test_anything_less_is_refused_by_name(variables: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        check_settings(variables | {name: value})
    assert refusal.value.message.startswith(f"{name} is {value}: ")


def test_every_wrong_setting_is_named_at_once() -> None:
    wrong = {"binlog_format": "MIXED", "binlog_row_image": "MINIMAL"}
    with pytest.raises(FailedPrecondition) as refusal:
        check_settings(MYSQL | wrong)
    assert all(name in refusal.value.message for name in wrong)


def test_a_server_too_old_to_log_metadata_is_refused() -> None:
    old = {name: value for name, value in MYSQL.items() if name != "binlog_row_metadata"}
    with pytest.raises(FailedPrecondition, match="binlog_row_metadata is not there"):
        check_settings(old)


def test_an_address_is_read_with_its_escapes() -> None:
    source = Source.parse("mysql://re%40lay:p%2Fw@db.example:3307/main%20app?ssl_ca=/etc/ca.pem")
    assert source == Source("db.example", 3307, "re@lay", "p/w", "main app", "/etc/ca.pem")


@pytest.mark.parametrize("url", ["mysql://host", "mysql:///database", "nonsense"])
def test_an_incomplete_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="host and a database"):
        Source.parse(url)
