"""The Docker engine behind `ports.Engine` and `ports.Images`. Containers are created through Compose, so that every
field of the Compose file means what it means there; everything after that is the Engine API."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rollout.engines.docker import cgroup, jobs, reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry
from rollout.engines.docker.events import EventStream
from rollout.engines.docker.execution import execute
from rollout.errors import DeployFailed, EngineError
from rollout.model import Replica, ReplicaState, Usage
from rollout.ports import Clock, ExecResult, Output
from rollout.waiting import DeadlinePassed, wait_for

STOPPED = 30.0  # seconds beyond that in which it must be seen to have stopped
REMOVAL = 30.0  # seconds a removal that somebody else began may take


class DockerEngine:
    """`ports.Engine` and `ports.Images` for one Compose project.

    `compose_create(service, total, config)` makes Compose create containers until the service has `total` of them;
    `compose_pull(service, config)` and `compose_build(service)` do what `Images.pull` and `Images.build` say,
    `compose_job` starts what `Engine.start_job` says, with a label.
    """

    def __init__(
        self,
        project: str,
        compose_create: Callable[[str, int, str | None], None],
        clock: Clock,
        *,
        compose_pull: Callable[[str, str | None], None] | None = None,
        compose_build: Callable[[str], None] | None = None,
        compose_job: jobs.StartJob | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.project = project
        self.connection = connection or Connection(clock)
        self._clock = clock
        self._compose_create = compose_create
        self._compose_pull = compose_pull
        self._compose_build = compose_build
        self._compose_job = compose_job
        self._own: set[str] = set()  # containers known to be of this project

    def close(self) -> None:
        """Close the connection's sockets."""
        self.connection.close()

    def version(self) -> str:
        """`20.10.24`. Raises EngineError."""
        seen = self.connection.call(
            "ask the engine's version", lambda c: reading.shaped(c.version(), {"Version": str}), Retry.ANY
        )
        return str(seen["Version"])

    # --- observe --------------------------------------------------------------------------------------------

    def replicas(self, service: str) -> list[Replica]:
        filters = reading.service_filter(self.project, service)
        seen: list[dict[str, Any]] = self.connection.call(
            f"list the containers of {service}",
            lambda c: reading.container_list(c.containers(all=True, filters=filters)),
            Retry.ANY,
        )
        return self._listed(seen)

    def all_replicas(self) -> dict[str, list[Replica]]:
        filters = reading.project_filter(self.project)
        seen: list[dict[str, Any]] = self.connection.call(
            "list the project's containers",
            lambda c: reading.container_list(c.containers(all=True, filters=filters)),
            Retry.ANY,
        )
        by_service: dict[str, list[Replica]] = {}
        for replica in self._listed(seen):
            by_service.setdefault(replica.service, []).append(replica)
        self._own = {replica.id for found in by_service.values() for replica in found}
        return by_service

    def watch(self, container: str = "") -> EventStream:
        return EventStream(self.connection, self.project, container)

    def inspect(self, replica_id: str) -> Replica | None:
        seen = self._inspect(replica_id)
        return reading.inspected(seen) if seen and self._is_own(seen) else None

    def logs(self, replica_id: str, lines: int) -> list[str]:
        what = f"read the output of {replica_id[:12]}"
        if not self._known(replica_id):
            return []
        try:
            text: bytes = self.connection.call(
                what, lambda c: c.logs(replica_id, stdout=True, stderr=True, tail=lines), Retry.LOST
            )
        except EngineAnswer as answer:
            if answer.gone or "does not support reading" in answer.words:
                return []
            raise
        return text.decode(errors="replace").splitlines()

    def usage(self, replica_id: str) -> Usage | None:
        seen = self._inspect(replica_id)
        if seen is None or not seen["State"]["Running"]:
            return None
        direct = cgroup.usage(seen["State"]["Pid"], replica_id)
        if direct is not None:
            return direct
        try:
            sample: dict[str, Any] = self.connection.call(
                f"read the usage of {replica_id[:12]}", lambda c: c.stats(replica_id, stream=False, one_shot=True)
            )
        except EngineAnswer as answer:
            if answer.gone:
                return None
            raise
        return reading.usage(sample)

    # --- change ---------------------------------------------------------------------------------------------

    def create(self, service: str, count: int, config: str | None) -> list[str]:
        """As the port says. When it fails it leaves no new container behind."""
        before = {replica.id for replica in self.replicas(service)}
        try:
            self._compose_create(service, len(before) + count, config)
        except BaseException:
            self._discard(self._new(service, before))
            raise
        new = self._new(service, before)
        if len(new) != count or any(replica.state is not ReplicaState.CREATED for replica in new):
            self._discard(new)
            raise EngineError(
                f"{count} new containers of {service} were asked for, Compose made {len(new)}",
                details=[f"{replica.name}: {replica.state}" for replica in new],
            )
        return [replica.id for replica in new]

    def start(self, replica_id: str) -> None:
        if not self._known(replica_id):
            raise EngineError(f"container {replica_id[:12]} is gone")
        try:
            self.connection.call(f"start {replica_id[:12]}", lambda c: c.start(replica_id))
        except EngineAnswer as answer:
            if answer.gone:
                raise EngineError(f"container {replica_id[:12]} is gone") from answer
            raise DeployFailed(f"container {replica_id[:12]} cannot be started: {answer.words}") from answer

    def stop(self, replica_id: str, timeout: float | None) -> None:
        seen = self._inspect(replica_id)
        if seen is None or not self._is_own(seen):
            return
        grace = reading.stop_grace(seen) if timeout is None else timeout

        def stopped() -> bool | None:
            # The SDK waits for the answer as long as `timeout` and its usual patience together.
            self._unless_gone(f"stop {replica_id[:12]}", lambda c: c.stop(replica_id, timeout=math.ceil(grace)))
            # An engine that is being restarted says that it has stopped what still runs.
            now = self._inspect(replica_id)
            return None if now is not None and now["State"]["Running"] else True

        try:
            wait_for(self._clock, stopped, timeout=grace + STOPPED)
        except DeadlinePassed:
            raise EngineError(f"container {replica_id[:12]} was stopped, but it still runs") from None

    def remove(self, replica_id: str) -> None:
        if not self._known(replica_id):
            return
        try:
            self._unless_gone(f"remove {replica_id[:12]}", lambda c: c.remove_container(replica_id, v=True))
        except EngineAnswer as answer:
            if answer.status != 409 or "already in progress" not in answer.words:
                raise
            self._wait_until_gone(replica_id)
        self._own.discard(replica_id)

    def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str = "",
        timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> ExecResult:
        return execute(self.connection, container, argv, user=user, timeout=timeout, environment=environment)

    # --- one-off containers -----------------------------------------------------------------------------------

    def start_job(self, service: str, argv: Sequence[str], config: str, environment: Mapping[str, str]) -> str:
        assert self._compose_job is not None, "wired without Compose's run"
        before = set(self.jobs(service))
        self._compose_job(service, argv, config, environment, jobs.LABEL)
        new = [job for job in self.jobs(service) if job not in before]
        if len(new) != 1:
            raise EngineError(f"one job of {service} was asked for, Compose made {len(new)}")
        return new[0]

    def jobs(self, service: str) -> list[str]:
        found = jobs.of(self.connection, self.project, service)
        self._own.update(found)
        return found

    def output(self, container: str, after: str) -> Output:
        return jobs.output(self.connection, container, after) if self._known(container) else Output(mark=after)

    # --- images ---------------------------------------------------------------------------------------------

    def image_id(self, reference: str) -> str | None:
        def look(client: Any) -> str:
            return str(reading.shaped(client.inspect_image(reference), {"Id": str})["Id"])

        try:
            return self.connection.call(f"look up the image {reference}", look, Retry.ANY)
        except EngineAnswer as answer:
            if answer.status == 404:
                return None
            raise

    def pull(self, service: str, config: str | None) -> None:
        assert self._compose_pull is not None, "wired without Compose's pull"
        self._compose_pull(service, config)

    def build(self, service: str) -> None:
        assert self._compose_build is not None, "wired without Compose's build"
        self._compose_build(service)

    def tag(self, image_id: str, reference: str) -> None:
        repository, tag = _split(reference)
        self.connection.call(f"tag {reference}", lambda c: c.tag(image_id, repository, tag))

    def untag(self, reference: str) -> None:
        """As the port says; a last name that a container still needs is kept, a later call can have it."""
        try:
            self.connection.call(f"untag {reference}", lambda c: c.remove_image(reference))
        except EngineAnswer as answer:
            if answer.status not in (404, 409):
                raise

    def tags(self, repository: str) -> list[str]:
        # filtered by the engine: it takes 10 ms to tell of a hundred images
        seen: list[dict[str, Any]] = self.connection.call(
            "list the images", lambda c: reading.each(c.images(name=repository), {"RepoTags": [str]}), Retry.ANY
        )
        names = [name for image in seen for name in image["RepoTags"] or ()]
        return sorted(name for name in names if name.startswith(f"{repository}:"))

    # --- within ---------------------------------------------------------------------------------------------

    def _inspect(self, container_id: str) -> dict[str, Any] | None:
        try:
            seen: dict[str, Any] = self.connection.call(
                f"inspect {container_id[:12]}",
                lambda c: reading.inspection(c.inspect_container(container_id)),
                Retry.ANY,
            )
        except EngineAnswer as answer:
            if answer.status == 404:
                return None
            raise
        return seen

    def _is_own(self, seen: dict[str, Any]) -> bool:
        own = (seen["Config"]["Labels"] or {}).get(reading.PROJECT) == self.project
        if own:
            self._own.add(seen["Id"])
        return own

    def _listed(self, seen: list[dict[str, Any]]) -> list[Replica]:
        found = sorted((reading.listed(entry) for entry in seen), key=lambda r: (r.number, r.id))
        self._own.update(replica.id for replica in found)
        return found

    def _known(self, replica_id: str) -> bool:
        """Whether it is a container of this project; looks only at those it has not seen yet."""
        if replica_id in self._own:
            return True
        seen = self._inspect(replica_id)
        return seen is not None and self._is_own(seen)

    def _new(self, service: str, before: set[str]) -> list[Replica]:
        return [replica for replica in self.replicas(service) if replica.id not in before]

    def _discard(self, new: list[Replica]) -> None:
        for replica in new:
            if replica.state is ReplicaState.CREATED:
                self.remove(replica.id)

    def _unless_gone(self, what: str, do: Callable[[Any], object]) -> None:
        try:
            self.connection.call(what, do, Retry.ANY)
        except EngineAnswer as answer:
            if not answer.gone:
                raise

    def _wait_until_gone(self, replica_id: str) -> None:
        try:
            wait_for(self._clock, lambda: True if self._inspect(replica_id) is None else None, timeout=REMOVAL)
        except DeadlinePassed:
            raise EngineError(
                f"the removal of {replica_id[:12]} is in progress but does not end",
                hint=f"docker rm -f {replica_id[:12]}",
            ) from None


def _split(reference: str) -> tuple[str, str]:
    """Repository and tag; a colon before a slash belongs to a registry's port."""
    name, colon, tag = reference.rpartition(":")
    return (reference, "latest") if not colon or "/" in tag else (name, tag)
