"""What a telephony bridge tells the dialler, whichever provider it hears from.

A provider is a function that checks the signature of a webhook and returns a `CallUpdate`;
`twilio.py` is one.
"""

import json
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any


class SignatureError(Exception):
    """The webhook is not signed by the provider; answer it with 403."""


@dataclass(frozen=True)
class CallUpdate:
    """What happened to a call: of an assignment, or one from `missed_from` that we missed."""

    kind: str
    at: datetime
    provider: str
    provider_call_id: str
    assignment_id: str | None = None
    missed_from: str | None = None
    duration_seconds: float | None = None
    recording_reference: str = ""


def request_of(update: CallUpdate) -> tuple[str, dict[str, Any]] | None:
    """Return the path and the body of the request to the dialler; None if there is none to make."""
    if update.missed_from is not None:
        return "/v1/missed-calls", {
            "phone": update.missed_from,
            "missed_at": update.at.isoformat(),
        }
    if update.assignment_id is None:
        return None
    body = {
        "kind": update.kind,
        "at": update.at.isoformat(),
        "duration_seconds": update.duration_seconds,
        "provider": update.provider,
        "provider_call_id": update.provider_call_id,
        "recording_reference": update.recording_reference,
    }
    return f"/v1/assignments/{update.assignment_id}/events", body


def send(update: CallUpdate, dialler_url: str, token: str) -> None:
    """Tell the dialler, with a token of role `service`.

    Raises OSError: answer the provider with an error then, so that it sends the webhook again;
    repeats are harmless.
    """
    request = request_of(update)
    if request is None:
        return
    path, body = request
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = json.dumps(body).encode()
    made = urllib.request.Request(dialler_url + path, data, headers, method="POST")  # noqa: S310
    with urllib.request.urlopen(made, timeout=10):  # noqa: S310 - the URL is the operator's
        pass
