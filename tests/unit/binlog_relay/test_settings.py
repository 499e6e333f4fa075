"""Settings that the relay refuses."""

import pytest
from pydantic import ValidationError

from services.binlog_relay.settings import BinlogRelaySettings


def settings(queue_url: str) -> BinlogRelaySettings:
    values = {
        "mysql_url": "mysql://host/app",
        "postgres_url": "postgresql://host/db",
        "reconciler_target": "host:1",
        "sqs_queue_url": queue_url,
    }
    return BinlogRelaySettings.model_validate(values)


def test_a_fifo_queue_is_refused_naming_the_setting() -> None:
    with pytest.raises(ValidationError, match=r"sqs_queue_url\n.*FIFO queue"):
        settings("https://sqs.eu-west-2.amazonaws.com/1/changes.fifo")


def test_a_standard_queue_is_taken() -> None:
    url = "https://sqs.eu-west-2.amazonaws.com/1/changes"
    assert settings(url).sqs_queue_url == url
