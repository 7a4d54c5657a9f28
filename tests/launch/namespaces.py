"""Two machines: network namespaces that are joined by a cable, for root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SSH = Path(__file__).with_name("ssh.py")
ETC = Path("/etc/netns")


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@dataclass(frozen=True)
class Machine:
    name: str
    address: str

    def command(self, *words):
        """The words that run a command on it."""
        named = f'hostname {self.name}; exec "$@"'
        inside = ["ip", "netns", "exec", self.name, "unshare", "--uts", "/bin/sh", "-c"]
        return [*inside, named, "-", *map(str, words)]


class Machines:
    """``first`` and ``second``; each knows both by name, itself as 127.0.1.1 as on Debian."""

    def __init__(self):
        number = os.getpid()
        self.first = Machine(f"ft{number}a", "192.168.77.1")
        self.second = Machine(f"ft{number}b", "192.168.77.2")
        self.cables = {self.first: f"ft{number}c", self.second: f"ft{number}d"}

    @property
    def all(self):
        return self.first, self.second

    def make(self):
        for machine in self.all:
            ip("netns", "add", machine.name)
            ip("-n", machine.name, "link", "set", "lo", "up")
            (ETC / machine.name).mkdir(parents=True)
            (ETC / machine.name / "hosts").write_text(
                "".join(
                    f"{'127.0.1.1' if other == machine else other.address} {other.name}\n"
                    for other in self.all
                )
            )
        ends = [["netns", machine.name] for machine in self.all]
        one, other = self.cables.values()
        ip("link", "add", one, *ends[0], "type", "veth", "peer", "name", other, *ends[1])
        for machine, cable in self.cables.items():
            ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", cable)
        self.plug("up")

    def plug(self, how):
        """Pull the cable out (``down``) or put it in (``up``)."""
        for machine, cable in self.cables.items():
            ip("-n", machine.name, "link", "set", cable, how)

    def remove(self):
        for machine in self.all:
            shutil.rmtree(ETC / machine.name, ignore_errors=True)
            subprocess.run(["ip", "netns", "delete", machine.name], check=False)

    @property
    def ssh(self) -> str:
        """The value of FTKIT_SSH."""
        known = [f"{key}={m.name}" for m in self.all for key in (m.name, m.address)]
        return " ".join([sys.executable, str(SSH), *known])
