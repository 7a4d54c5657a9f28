"""What connects GPUs and nodes: links, InfiniBand, network interfaces, ports."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ftkit.tasks.doctor.finding import BrokenError, Finding, said

LINKS = {
    "NV": "NVLink",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "the CPU's PCIe bridge",
    "NODE": "PCIe bridges of one CPU",
    "SYS": "the link between CPUs",
}
"""What nvidia-smi's signs for ways between GPUs mean."""
SLOW = {"PHB", "NODE", "SYS"}
ADDRESS = 0x8915  # SIOCGIFADDR
PORT = 29500
"""The port at which ranks meet, by default of torch and DeepSpeed."""
NAMING = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def topology() -> Iterator[Finding]:
    """Tell the ways between the GPUs of this machine, if it has several."""
    if shutil.which("nvidia-smi") is None:
        return
    try:
        text = said(["nvidia-smi", "topo", "-m"])
    except BrokenError as error:
        yield Finding("note", "between GPUs", f"nvidia-smi topo -m: {error}")
        return
    ways = ways_between(text)
    if not ways:
        return
    told = [f"{count} pairs by {_named(sign)} ({sign})" for sign, count in ways.most_common()]
    if any(sign in SLOW for sign in ways):
        remedy = "keep what talks most (ZeRO 3, tensor parallel servers) among GPUs with NVLink"
        yield Finding("note", "between GPUs", "; ".join(told), remedy)
    else:
        yield Finding("ok", "between GPUs", "; ".join(told))


def ways_between(text: str) -> Counter[str]:
    """Count the pairs of GPUs by what is between them, in what ``nvidia-smi topo -m`` prints."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    rows = [line.split("\t") for line in lines if re.match(r"GPU\d+\s", line)]
    found: Counter[str] = Counter()
    for n, row in enumerate(rows):
        found.update(cell.strip() for cell in row[n + 2 : len(rows) + 1])
    return found


def _named(sign: str) -> str:
    return LINKS.get(re.sub(r"\d+", "", sign), "an unknown way")


def infiniband(root: Path = Path("/")) -> Iterator[Finding]:
    """Tell InfiniBand and RoCE devices, and whether their ports are up."""
    folder = root / "sys/class/infiniband"
    devices = sorted(folder.iterdir()) if folder.is_dir() else []
    if not devices:
        yield Finding("ok", "InfiniBand", "none")
    for device in devices:
        for port in sorted((device / "ports").iterdir()):
            state = (port / "state").read_text().split(":")[-1].strip()
            rate = (port / "rate").read_text().strip()
            layer = (port / "link_layer").read_text().strip()
            found = f"port {port.name} {state.lower()}, {rate}, {layer}"
            if state == "ACTIVE":
                yield Finding("ok", f"InfiniBand {device.name}", found)
            else:
                remedy = "look at ibstat and the cable; NCCL_IB_HCA names the devices to be used"
                yield Finding("note", f"InfiniBand {device.name}", found, remedy)


def interfaces(root: Path = Path("/")) -> Iterator[Finding]:
    """Tell network interfaces with their addresses, and whether the right one will be taken."""
    known = addresses()
    for name, address in known.items():
        speed = _speed(root / "sys/class/net" / name / "speed")
        yield Finding("ok", f"interface {name}", f"{address}{speed}")
    yield from naming(known, os.environ)
    others = {k: v for k, v in os.environ.items() if k.startswith("NCCL_") and k not in NAMING}
    if others:
        told = " ".join(f"{name}={value}" for name, value in sorted(others.items()))
        yield Finding("ok", "NCCL variables", told)


def naming(known: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[Finding]:
    """Say whether the interface over which nodes talk is named, and is there.

    Args:
        known: the address of each interface.
        environment: the variables that NCCL and Gloo read.
    """
    outside = [name for name in known if name != "lo"]
    unset = [variable for variable in NAMING if not environment.get(variable)]
    for variable in NAMING:
        value = environment.get(variable)
        if value and not _fits(value, list(known)):
            found = f"{value}, and no interface with an address has this name"
            remedy = f"write one of {', '.join(outside) or 'them'}, as it is named on every node"
            yield Finding("problem", variable, found, remedy)
        elif value:
            yield Finding("ok", variable, value)
    if unset and len(outside) > 1:
        said_so = " ".join(f"{variable}={outside[0]}" for variable in unset)
        remedy = f"with several nodes, name the one that reaches them, as in {said_so}"
        found = f"unset, and there are {', '.join(outside)}"
        yield Finding("note", " and ".join(unset), found, remedy)


def _fits(value: str, names: list[str]) -> bool:
    """Whether a list of interfaces has one that is there: beginnings, ``=`` exact, ``^`` not."""
    apart = value.startswith("^")
    wanted = [each.strip() for each in value.lstrip("^").split(",") if each.strip()]

    def meant(name: str) -> bool:
        return any(name == w[1:] if w[0] == "=" else name.startswith(w) for w in wanted)

    return any(meant(name) is not apart for name in names)


def addresses() -> dict[str, str]:
    """Return the IPv4 address of each interface that has one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(asked, ADDRESS, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            found[name] = socket.inet_ntoa(reply[20:24])
    return found


def _speed(file: Path) -> str:
    """Return an interface's speed in words; nothing where it is not known, as of virtual ones."""
    try:
        megabits = int(file.read_text())
    except (OSError, ValueError):
        return ""
    return f", {megabits / 1000:g} Gbit/s" if megabits > 0 else ""


def meeting() -> Iterator[Finding]:
    """Say whether ranks can meet here: the host's name and the port."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError as error:
        remedy = "add it to /etc/hosts, or give an address where a run asks for the first node"
        yield Finding("note", "host name", f"{name} has no address: {error}", remedy)
    else:
        if address.startswith("127."):
            remedy = "with several nodes, set GLOO_SOCKET_IFNAME, or mend /etc/hosts"
            found = f"{name} is {address}, which other nodes do not reach"
            yield Finding("note", "host name", found, remedy)
        else:
            yield Finding("ok", "host name", f"{name} is {address}")
    yield port(int(os.environ.get("MASTER_PORT") or PORT))


def port(number: int) -> Finding:
    """Say whether a port is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind(("", number))
        except OSError as error:
            remedy = "end what listens there, or set MASTER_PORT to another"
            return Finding("note", f"port {number}", f"taken: {error.strerror}", remedy)
    return Finding("ok", f"port {number}", "free")
