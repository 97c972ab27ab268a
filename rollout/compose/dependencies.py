"""Creating containers of a service that depends on others, without touching those.

`up --no-deps` would be simple, but takes `depends_on` out of what Compose (2.26) hashes and labels: the next plain
`docker compose up` would recreate every such container. So the dependencies stay in, each pinned by `--scale` to the
number of containers it has: with `--no-start --no-recreate` Compose then finds nothing to do for them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def dependencies(document: Mapping[str, Any], service: str) -> list[str]:
    """All that the service depends on, directly or not, in no particular order."""
    services: Mapping[str, Any] = document.get("services") or {}
    found: dict[str, None] = {}
    waiting = [service]
    while waiting:
        needed = (services.get(waiting.pop()) or {}).get("depends_on") or {}
        new = [name for name in needed if name in services and name not in found and name != service]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def counted(listing: str) -> Counter[str]:
    """Containers by service, from `docker compose ps -a --format json`; those of `docker compose run` are not counted,
    as Compose does not count them when it scales."""
    entries = json.loads(listing) if listing.startswith("[") else map(json.loads, filter(None, listing.splitlines()))
    return Counter(
        entry["Service"] for entry in entries if "com.docker.compose.oneoff=True" not in entry.get("Labels", "")
    )


@contextmanager
def counts_hold(directory: str) -> Iterator[tuple[int, ...]]:
    """Nobody else's rollout creates containers of this project within the block, so that what was counted stays true.

    A lock on the project directory itself: nothing is left behind, and the kernel frees it. Answers the file
    descriptors that hold it, for Compose to inherit. A directory that cannot be opened is not locked.
    """
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield ()
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield (held,)
    finally:
        os.close(held)
