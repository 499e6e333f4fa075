"""Twilio's webhooks: the signature, and what a call's status means.

An application that places a call gives it a `StatusCallback` with the assignment in its query:
`https://bridge.example.com/twilio?assignment_id=...`. The one of a number gets calls that come in.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, urlsplit

from examples.telephony_bridge.core import CallUpdate, SignatureError

_KINDS = {
    "initiated": "dialled",
    "ringing": "ringing",
    "in-progress": "answered",
    "completed": "ended",
    "busy": "ended",
    "failed": "ended",
    "no-answer": "ended",
    "canceled": "ended",
}
_MISSED = ("busy", "failed", "no-answer", "canceled")


def signature_of(url: str, form: Mapping[str, str], auth_token: str) -> str:
    """Return the X-Twilio-Signature of a webhook; `url` is the public one, query included."""
    signed = url + "".join(name + form[name] for name in sorted(form))
    digest = hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def update_of(
    url: str, form: Mapping[str, str], signature: str, auth_token: str
) -> CallUpdate | None:
    """Return what a webhook tells, None for what the dialler does not want; raises SignatureError.

    Only `Timestamp` tells repeats from news, so a webhook without one tells nothing.
    """
    expected = signature_of(url, form, auth_token)
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise SignatureError("the signature is not that of the webhook")
    status, moment = form.get("CallStatus", ""), form.get("Timestamp")
    if status not in _KINDS or moment is None:
        return None
    kind = _KINDS[status]
    if kind == "answered" and form.get("AnsweredBy", "").startswith("machine"):
        kind = "voicemail"
    assignment_id = parse_qs(urlsplit(url).query).get("assignment_id", [None])[0]
    is_missed = form.get("Direction") == "inbound" and status in _MISSED
    return CallUpdate(
        kind=kind,
        at=parsedate_to_datetime(moment),
        provider="twilio",
        provider_call_id=form["CallSid"],
        assignment_id=assignment_id,
        missed_from=form.get("From") if is_missed and assignment_id is None else None,
        duration_seconds=float(form["CallDuration"]) if "CallDuration" in form else None,
        recording_reference=form.get("RecordingUrl", ""),
    )
