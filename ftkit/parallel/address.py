"""Which of a machine's network interfaces leads to an address."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

SIOCGIFADDR = 0x8915
"""Linux's number of the question which address of IPv4 an interface has."""
IPV6 = Path("/proc/net/if_inet6")
"""Where Linux lists the addresses of IPv6, with the names of their interfaces."""


def address_towards(host: str, port: int = 1) -> str:
    """Return the address that this machine has as seen from a host.

    Raises:
        OSError: if nobody knows the host's name, or no way leads there.

    >>> address_towards("127.0.0.1")
    '127.0.0.1'
    """
    family, kind, _, _, known = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(known)  # of a datagram: nothing is sent
        address: str = probe.getsockname()[0]
    return address


def interface_towards(host: str) -> str:
    """Return the name of the interface that leads to a host; empty where that is not known.

    >>> interface_towards("127.0.0.1")
    'lo'
    """
    try:
        wanted = address_towards(host)
        for _, name in socket.if_nameindex():
            if wanted in {_address_of(name), *_newer_addresses_of(name)}:
                return name
    except OSError:
        return ""
    return ""


def is_loopback(address: str) -> bool:
    """Whether an address means this machine on every machine.

    >>> is_loopback("127.0.1.1"), is_loopback("10.0.0.1"), is_loopback("")
    (True, False, False)
    """
    return bool(address) and ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _address_of(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("256s", interface.encode()[:15])
        try:
            told = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, asked)
        except OSError:  # it has none
            return ""
    return socket.inet_ntoa(told[20:24])


def _newer_addresses_of(interface: str) -> list[str]:
    """Return an interface's addresses of IPv6, shortened as Python does."""
    if not IPV6.is_file():
        return []
    rows = [line.split() for line in IPV6.read_text().splitlines()]
    return [str(ipaddress.IPv6Address(bytes.fromhex(r[0]))) for r in rows if r[-1] == interface]
