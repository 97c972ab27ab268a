"""CPU and memory for the receipt. Asked for beside other waits: an old engine takes a second to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from rollout.errors import EngineError
from rollout.steps.run import Run


def measurements(run: Run, replicas: Iterable[str]) -> list[Callable[[], None]]:
    """A call for each replica that was not measured yet; hand them to `fan_out` with the work they go beside."""
    return [partial(_measure, run, replica_id) for replica_id in replicas if replica_id not in run.usage]


def _measure(run: Run, replica_id: str) -> None:
    with suppress(EngineError):  # a line of the receipt is no reason to undo what serves
        usage = run.ports.engine.usage(replica_id)
        if usage is not None:
            run.usage[replica_id] = usage
