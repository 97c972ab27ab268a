"""What the running proxy sends to, whatever its files say: a file that is right and was never loaded serves nobody.

HAProxy is asked for its servers. nginx cannot be: `nginx -T` reads the files, and nothing in it tells what a worker has
loaded. So a few requests go through it, and its log says which address each was sent to. What that cannot see is an
address that no worker has come to in those requests.
"""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
import uuid
from pathlib import Path

# An address; other load takes turns as well, so which one a request meets is as good as chance: of 8 addresses one is
# missed once in 3 million times.
REQUESTS = 16
LOOK_BACK = 5000  # lines of the log, other load's among them
SAID_WITHIN = 10.0  # seconds until a line is in the log


def of_haproxy(admin: Path, service: str) -> set[str]:
    """The addresses of the servers that take new requests."""
    answer = asked(admin, f"show servers state {service}")
    if not answer.startswith("1\n"):
        raise ConnectionError(f"HAProxy says of {service}: {answer!r}")
    _, head, *rows = (line for line in answer.splitlines() if line)
    names = head.removeprefix("# ").split()
    servers = [dict(zip(names, row.split(), strict=True)) for row in rows]
    taking = {"srv_op_state": "2", "srv_admin_state": "0"}  # running, and in nobody's maintenance
    return {
        f"{one['srv_addr']}:{one['srv_port']}"
        for one in servers
        if taking.items() <= one.items() and one["srv_uweight"] != "0"
    }


def asked(admin: Path, command: str) -> str:
    """What HAProxy answers at its socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(admin))
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def of_nginx(container: str, address: str, service: str, addresses: int) -> set[str]:
    """The addresses that some requests were sent to, tries that failed among them. `addresses`: how many there may
    be."""
    wanted = REQUESTS * max(1, addresses)
    mark = f"in-force-{uuid.uuid4().hex}"
    for _ in range(wanted):
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("GET", "/work", headers={"Host": service, "User-Agent": mark, "Connection": "close"})
        connection.getresponse().read()
        connection.close()
    until = time.monotonic() + SAID_WITHIN
    while len(found := _logged(container, mark)) < wanted:
        if time.monotonic() > until:
            raise TimeoutError(f"of {wanted} requests the log tells {len(found)}")
        time.sleep(0.02)
    return {one for tried in found for one in tried.split(", ")}


def _logged(container: str, mark: str) -> list[str]:
    argv = ["docker", "logs", "--tail", str(LOOK_BACK), container]
    log = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return re.findall(rf'"{mark}" rollout="([^"]*)"', log)
