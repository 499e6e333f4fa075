"""A DNS server whose answers the test changes, as Kubernetes changes those of a Service."""

import asyncio
import ipaddress
import struct
from collections.abc import Sequence
from typing import Any, Self

_IPV4 = 1


class NameServer(asyncio.DatagramProtocol):
    """Answers each question for an IPv4 address with `addresses`; use as async context manager.

    `asked` counts these questions. Answers may be kept for no time at all.
    """

    def __init__(self) -> None:
        self.addresses: Sequence[str] = ()
        self.asked = 0
        self._transport: Any = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    def target(self, port: int) -> str:
        """Return a gRPC target whose name is asked of this server."""
        here = self._transport.get_extra_info("sockname")[1]
        return f"dns://127.0.0.1:{here}/service.test:{port}"

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one question (RFC 1035, section 4.1)."""
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
        self._transport.sendto(header + question + b"".join(answers), addr)
