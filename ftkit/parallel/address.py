"""Which of a machine's network interfaces leads to an address."""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915
"""Linux's number of the question which address an interface has."""


def address_towards(host: str, port: int = 1) -> str:
    """Return the address that this machine has as seen from a host.

    >>> address_towards("127.0.0.1")
    '127.0.0.1'
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # of a datagram: nothing is sent
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
            if _address_of(name) == wanted:
                return name
    except OSError:
        return ""
    return ""


def _address_of(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("256s", interface.encode()[:15])
        try:
            told = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, asked)
        except OSError:  # it has none
            return ""
    return socket.inet_ntoa(told[20:24])
