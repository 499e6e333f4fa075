"""The look at real messages before anything consumes them finds secrets however they are packed."""

import base64
import io
import json

import pytest

from devstack import secrets_seen

SECRET = frozenset({"password", "google_drive_link"})
CLEAN = {"data": {"id": 7, "status": None}, "before-image": {"id": 7}, "metadata": {}}
LEAKING = CLEAN | {"before-image": {"id": 7, "password": "canary"}}


def _kinesis(*records: object) -> str:
    data = [base64.b64encode(json.dumps(each).encode()).decode() for each in records]
    return json.dumps({"Records": [{"Data": each, "PartitionKey": "1"} for each in data]})


def _sqs(record: object) -> str:
    piped = {
        "eventSource": "aws:kinesis",
        "data": base64.b64encode(json.dumps(record).encode()).decode(),
    }
    return json.dumps({"Messages": [{"MessageId": "1", "Body": json.dumps(piped)}]})


@pytest.mark.parametrize(
    "text",
    [_kinesis(CLEAN, LEAKING), _sqs(LEAKING), f"{json.dumps(CLEAN)}\n{json.dumps(LEAKING)}\n"],
    ids=["kinesis", "sqs behind a pipe", "lines"],
)
def test_a_secret_column_is_found(text: str) -> None:
    assert secrets_seen.look(text, SECRET).secret == {"password"}


@pytest.mark.parametrize("text", [_kinesis(CLEAN), _sqs(CLEAN), json.dumps(CLEAN)])
def test_clean_messages_are_clean(text: str) -> None:
    assert secrets_seen.look(text, SECRET) == secrets_seen.Sight(frozenset(), 1)


@pytest.mark.parametrize(
    ("text", "code"),
    [(_kinesis(LEAKING), 1), (_kinesis(CLEAN), 0), (_kinesis({"data": {"id": 7}}), 2), ("", 2)],
)
def test_the_exit_code_says_what_is_proven(
    text: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert secrets_seen.main() == code
    # The values are what must not be seen.
    assert "canary" not in capsys.readouterr().out
