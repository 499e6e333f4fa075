"""A DNS server for the copies of a service, as Kubernetes answers for a headless Service."""

import ipaddress
import socketserver
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from devstack.processes import HOST

_IPV4 = 1


class NameServer(socketserver.UDPServer):
    """Answers each question for an IPv4 address, whatever the name, with `addresses`.

    `asked` counts these questions. Answers may be kept for no time at all. Use as a context
    manager; it answers in a thread of its own.
    """

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        super().__init__((HOST, 0), socketserver.BaseRequestHandler)
        self.addresses = addresses
        self.asked = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        self.server_close()

    def target(self, name: str, port: int) -> str:
        """Return a gRPC target whose name is asked of this server."""
        return f"dns://{HOST}:{self.server_address[1]}/{name}:{port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer one question (RFC 1035, section 4.1)."""
        data, connection = request
        (number,) = struct.unpack_from("!H", data)
        name_end = data.index(0, 12) + 1
        question = data[12 : name_end + 4]
        (kind,) = struct.unpack_from("!H", data, name_end)
        addresses = self.addresses if kind == _IPV4 else ()
        self.asked += kind == _IPV4
        # Response, authoritative, recursion desired and available, no error.
        header = struct.pack("!6H", number, 0x8580, 1, len(addresses), 0, 0)
        answers = (
            struct.pack("!3HIH", 0xC00C, _IPV4, 1, 0, 4) + ipaddress.IPv4Address(it).packed
            for it in addresses
        )
        connection.sendto(header + question + b"".join(answers), client_address)
