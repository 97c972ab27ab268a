"""The program with little patience for the engine, so that a test need not wait for the real limits.

python -m tests.faults.impatient deploy web
"""

from __future__ import annotations

import sys
from functools import partial, partialmethod

from rollout.cli import main
from rollout.compose import Compose
from rollout.engines import docker

ANSWER_TIMEOUT = 4  # seconds for one answer of the engine; 60 for users
CREATE_TIMEOUT = 10.0  # for Compose to create containers; 120 for users

if __name__ == "__main__":
    docker.Connection = partial(docker.Connection, timeout=ANSWER_TIMEOUT)  # type: ignore[assignment,misc]
    Compose.create = partialmethod(Compose.create, timeout=CREATE_TIMEOUT)  # type: ignore[assignment,method-assign]
    sys.exit(main())
