"""A bridge for Twilio behind a TLS proxy: `python -m examples.telephony_bridge`."""

import os
from collections.abc import Iterable
from urllib.parse import parse_qsl
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from examples.telephony_bridge.core import SignatureError, send
from examples.telephony_bridge.twilio import update_of

_LONGEST_BODY = 65_536


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a webhook once the dialler has noted it."""
    length = min(int(environ.get("CONTENT_LENGTH") or 0), _LONGEST_BODY)
    body = environ["wsgi.input"].read(length).decode()
    query = environ.get("QUERY_STRING", "")
    # The URL that Twilio has called: the one before any proxy.
    url = os.environ["BRIDGE_PUBLIC_URL"] + environ["PATH_INFO"] + (f"?{query}" if query else "")
    signature = environ.get("HTTP_X_TWILIO_SIGNATURE", "")
    status = "204 No Content"
    try:
        form = dict(parse_qsl(body, keep_blank_values=True))
        update = update_of(url, form, signature, os.environ["TWILIO_AUTH_TOKEN"])
        if update is not None:
            send(update, os.environ["DIALLER_URL"], os.environ["DIALLER_TOKEN"])
    except SignatureError:
        status = "403 Forbidden"
    except OSError:
        status = "503 Service Unavailable"
    start_response(status, [])
    return []


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("BRIDGE_PORT", "8090")), answer) as server:
        server.serve_forever()
