"""As ssh, to the namespaces that are the machines of a test: ``ssh.py HOST=NAME ... HOST TEXT``.

What runs there has a session of its own, hears the end of this process as that of its standard
input, and outlives it otherwise, as with ssh.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from threading import Thread

LOST = 255


def main() -> int:
    *known, host, text = sys.argv[1:]
    names = dict(each.split("=") for each in known)
    name = names.get(host.rpartition("@")[2])
    if name is None:
        sys.stderr.write(f"ssh: connect to host {host} port 22: No route to host\n")
        return LOST
    inside = ["ip", "netns", "exec", name, "unshare", "--uts", "/bin/sh", "-c"]
    few = ["env", "-i", f"HOME={os.environ['HOME']}", "PATH=/usr/bin:/bin", "/bin/sh", "-c"]
    there = subprocess.Popen(
        [*inside, f'hostname {name}; cd /; exec "$@"', "-", *few, text],
        stdin=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    Thread(target=hand_on, args=(there.stdin,), daemon=True).start()
    status = there.wait()
    return status if status >= 0 else LOST


def hand_on(stdin) -> None:
    with stdin:
        shutil.copyfileobj(sys.stdin.buffer.raw, stdin, 1)


if __name__ == "__main__":
    os._exit(main())
