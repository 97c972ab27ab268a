"""One-off containers that `start_job` made: found again by their label, and their output line by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry
from rollout.ports import Output

LABEL = "rollout.job=pre_deploy"
StartJob = Callable[[str, Sequence[str], str, Mapping[str, str], str], None]  # service, argv, config, variables, label


def of(connection: Connection, project: str, service: str) -> list[str]:
    """Ids of the service's one-off containers with our label, in every state."""
    filters = {
        "label": [f"{reading.PROJECT}={project}", f"{reading.SERVICE}={service}", f"{reading.ONEOFF}=True", LABEL]
    }
    seen: list[dict[str, Any]] = connection.call(
        f"list the jobs of {service}",
        lambda c: reading.each(c.containers(all=True, filters=filters), {"Id": str}),
        Retry.ANY,
    )
    return [str(entry["Id"]) for entry in seen]


def output(connection: Connection, container: str, after: str) -> Output:
    """The lines since the mark, which is the engine's own timestamp of the last line. They are read by whole seconds:
    the engine compares no finer than a number of seconds allows to say."""
    since = int(reading.timestamp(after)) if after else None
    try:
        text: bytes = connection.call(
            f"read the output of {container[:12]}",
            lambda c: c.logs(container, stdout=True, stderr=True, timestamps=True, since=since),
            Retry.LOST,
        )
    except EngineAnswer as answer:
        if answer.gone or "does not support reading" in answer.words:
            return Output(mark=after)
        raise
    # by "\n" alone: what else may end a line, a progress bar's "\r" for one, is within what was printed
    stamped = [line.decode(errors="replace").partition(" ") for line in text.split(b"\n") if line]
    new = [(stamp, line) for stamp, _, line in stamped if stamp > after]
    return Output(tuple(line for _, line in new), new[-1][0] if new else after)
