"""The program with little patience for the engine, so that a test need not wait for the real limits.

python -m tests.faults.impatient deploy web
python -m tests.faults.impatient --blind deploy web     where control groups cannot be seen: the engine is asked for all
"""

from __future__ import annotations

import sys
from functools import partial, partialmethod

from rollout.cli import main
from rollout.compose import Compose
from rollout.engines import docker
from rollout.engines.docker import cgroup

ANSWER_TIMEOUT = 10  # seconds for one answer of the engine, which a busy machine may take a while to give; 60 for users
CREATE_TIMEOUT = 40.0  # for Compose to create containers; 120 for users

if __name__ == "__main__":
    docker.Connection = partial(docker.Connection, timeout=ANSWER_TIMEOUT)  # type: ignore[assignment,misc]
    if sys.argv[1:2] == ["--blind"]:
        del sys.argv[1]
        cgroup.usage = cgroup.processes = lambda *_: None
    Compose.create = partialmethod(Compose.create, timeout=CREATE_TIMEOUT)  # type: ignore[assignment,method-assign]
    sys.exit(main())
