"""The example of a telephony bridge: signatures, and what it tells the dialler."""

import pytest

from examples.telephony_bridge.core import SignatureError, request_of
from examples.telephony_bridge.twilio import signature_of, update_of

URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
TOKEN = "12345"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}


def test_the_signature_is_the_one_that_the_provider_has_published() -> None:
    assert signature_of(URL, FORM, TOKEN) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_a_webhook_that_was_changed_is_refused() -> None:
    signature = signature_of(URL, FORM, TOKEN)
    for url, form in ((URL + "1", FORM), (URL, FORM | {"Digits": "4321"})):
        with pytest.raises(SignatureError):
            update_of(url, form, signature, TOKEN)


def _request(url: str, **form: str) -> object:
    form = {"CallSid": "CA1", "Timestamp": "Mon, 02 Jun 2025 09:00:00 +0000"} | form
    update = update_of(url, form, signature_of(url, form, TOKEN), TOKEN)
    return None if update is None else request_of(update)


@pytest.mark.parametrize(
    ("status", "answered_by", "kind"),
    [
        ("initiated", "", "dialled"),
        ("in-progress", "human", "answered"),
        ("in-progress", "machine_start", "voicemail"),
        ("no-answer", "", "ended"),
    ],
)
def test_a_status_of_an_assignments_call_is_an_event(
    status: str, answered_by: str, kind: str
) -> None:
    url = "https://bridge.example.com/twilio?assignment_id=a1"
    assert _request(url, CallStatus=status, AnsweredBy=answered_by, CallDuration="61") == (
        "/v1/assignments/a1/events",
        {
            "kind": kind,
            "at": "2025-06-02T09:00:00+00:00",
            "duration_seconds": 61.0,
            "provider": "twilio",
            "provider_call_id": "CA1",
            "recording_reference": "",
        },
    )


def test_a_call_that_came_in_and_was_not_answered_is_a_missed_call() -> None:
    url = "https://bridge.example.com/twilio"
    asked = {"Direction": "inbound", "From": "+447700900123"}
    assert _request(url, CallStatus="no-answer", **asked) == (
        "/v1/missed-calls",
        {"phone": "+447700900123", "missed_at": "2025-06-02T09:00:00+00:00"},
    )
    assert _request(url, CallStatus="completed", **asked) is None
