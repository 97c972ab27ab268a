"""A proxy that runs in a container, behind `ports.ProxyProcess`."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rollout.engines.docker import cgroup, reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry
from rollout.engines.docker.execution import execute
from rollout.engines.docker.shell import ShellLost, Shells
from rollout.errors import EngineError, ProxyUnreachable
from rollout.ports import ExecResult, Mount, Process

T = TypeVar("T")

# Complete command lines however long, and the pid with them: the default (`-ef`) cuts at the engine's idea of a width.
PS_ARGS = "-ww -eo pid,args"
NOT_RUNNING = ("is not running", "is restarting")  # the engine's words for it
FRESH = 0.02  # seconds for which an inspection is as good as another: a switch asks for five in a row
LINKS = 8  # symbolic links followed to a file, as many as anyone means
FOLDER, LINK = 1 << 31, 1 << 27  # bits of Go's os.FileMode


class ContainerProcess:
    """`ports.ProxyProcess` for the running container of a Compose service of `project`, or for a container by name.

    Give exactly one of `service` and `container`. The container is looked for again when it is gone: after a
    `docker compose up -d` that recreated the proxy, the next call speaks to the new one.
    """

    def __init__(self, connection: Connection, project: str, *, service: str = "", container: str = "") -> None:
        if bool(service) == bool(container):
            raise ValueError("exactly one of service and container")
        self._connection = connection
        self._project = project
        self._service = service
        self._container = container
        self._id = ""
        self._name = container
        self._seen: dict[str, Any] = {}  # the last inspection
        self._seen_at = 0.0
        self._shells = Shells(connection)

    def describe(self) -> str:
        name = f"container {self._name}" if self._name else "the proxy"
        return f"{name} (service {self._service})" if self._service else name

    def identity(self) -> str:
        seen = self._inspect()
        return f"{seen['Id']}@{seen['State']['StartedAt']}"

    def argv(self) -> list[str]:
        seen = self._fixed()
        return [seen["Path"], *(seen["Args"] or ())]

    def exec(self, argv: Sequence[str], *, user: str = "", timeout: float = 30.0) -> ExecResult:
        return self._on(lambda found: self._run(found, argv, user, timeout))

    def warm_up(self) -> None:
        with suppress(EngineError, ProxyUnreachable):
            self._shells.warm_up(self._id or self._find())

    def signal(self, name: str) -> None:
        self._call(f"send SIG{name} to", lambda c, found: c.kill(found, signal=f"SIG{name}"), Retry.NEVER)

    def processes(self) -> list[Process]:
        """The main one is the first; where it is not to be seen, one without a title stands for it."""
        main, seen = self._listed(self._fixed())
        if not any(one.pid == main for one in seen):
            main, seen = self._listed(self._inspect())  # it was restarted since
        first = [one for one in seen if one.pid == main] or [Process(main, "")]
        return [*first, *(one for one in seen if one.pid != main)]

    def output(self, since: float, until: float | None = None) -> list[str]:
        after = max(float(since), 0.001)  # the SDK refuses 0
        try:
            text: bytes = self._call(
                "read the output of", lambda c, found: c.logs(found, stdout=True, stderr=True, since=after, until=until)
            )
        except EngineAnswer as answer:
            if "does not support reading" in answer.words:
                return []
            raise
        return text.decode(errors="replace").splitlines()

    def networks(self) -> Mapping[str, str]:
        seen = self._inspect()
        mode = seen["HostConfig"]["NetworkMode"]
        if mode == "host":
            return {"host": "127.0.0.1"}
        if mode.startswith("container:"):
            lender = mode.partition(":")[2]
            seen = self._connection.call(
                f"inspect {lender[:12]}",
                lambda c: reading.inspection(c.inspect_container(lender)),
                Retry.ANY,
            )
        return reading.addresses(seen)

    def mount(self, host_path: str) -> Mount | None:
        return _mounted(host_path, reading.mounts(self._fixed()))

    def mount_at_rest(self, host_path: str) -> Mount | None:
        """`mount` of the container that was named, running or not. Raises ProxyUnreachable when there is none."""
        name = self._container
        try:
            seen = self._connection.call(
                f"inspect {name}", lambda c: reading.inspection(c.inspect_container(name)), Retry.ANY
            )
        except EngineAnswer as answer:
            if answer.status != 404:
                raise
            hint = "create it with x-rollout.proxy.config mounted, or correct x-rollout.proxy.container"
            raise ProxyUnreachable(f"there is no container {name}", hint=hint) from answer
        return _mounted(host_path, reading.mounts(seen))

    def host_path(self, path: str) -> str | None:
        inside = posixpath.normpath(path)
        mounts = reading.mounts(self._fixed())
        for mount in sorted(mounts, key=lambda m: len(m["Destination"]), reverse=True):
            below = _below(inside, mount["Destination"])
            if below is None:
                continue
            if not mount["Source"]:
                return None  # a tmpfs
            return posixpath.join(mount["Source"], below) if below else str(mount["Source"])
        return None

    def read(self, path: str) -> bytes | None:
        for _ in range(LINKS):
            mode, target, content = self._archive(path)
            if not mode & LINK:
                return content
            path = target
        return None

    # --- within ---------------------------------------------------------------------------------------------

    def _listed(self, inspected: dict[str, Any]) -> tuple[int, list[Process]]:
        """The pid of the main process by this inspection, and the processes there are, in any order."""
        main = inspected["State"]["Pid"]
        direct = cgroup.processes(main, inspected["Id"])
        if direct is not None:
            return main, direct
        seen = self._call(
            "list the processes of",
            lambda c, found: reading.shaped(c.top(found, ps_args=PS_ARGS), {"Processes": [[str]]}),
            Retry.ANY,
        )
        return main, reading.processes(seen)

    def _archive(self, path: str) -> tuple[int, str, bytes | None]:
        """Mode (Go's), where a symbolic link leads to, and the content of a regular file; (0, "", None) for nothing."""

        import tarfile  # 4 ms, and most runs read no file

        def fetch(client: Any, found: str) -> tuple[int, str, bytes | None]:
            stream, told = client.get_archive(found, path)
            stat = reading.shaped(told, {"mode": int, "linkTarget": str})
            if stat["mode"] & (LINK | FOLDER):
                stream.close()  # a folder comes with all that is in it
                return stat["mode"], stat["linkTarget"], None
            try:
                with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                    member = archive.next()
                    content = archive.extractfile(member) if member else None
                    return stat["mode"], "", content.read() if content else None
            except tarfile.TarError as error:
                raise reading.nonsense(str(error)) from error

        try:
            return self._call(f"read {path} of", fetch)
        except EngineAnswer as answer:
            if "not a directory" in answer.words or (answer.status == 404 and not answer.gone):
                return 0, "", None
            raise

    def _run(self, found: str, argv: Sequence[str], user: str, timeout: float) -> ExecResult:
        try:
            return self._shells.run(found, argv, user, timeout)
        except ShellLost:
            return execute(self._connection, found, argv, user=user, timeout=timeout)

    def _fixed(self) -> dict[str, Any]:
        """An inspection for what never changes in a container: its command line and mounts."""
        return self._seen if self._id and self._seen.get("Id") == self._id else self._inspect()

    def _inspect(self) -> dict[str, Any]:
        if self._id and self._seen.get("Id") == self._id and self._connection.clock.now() - self._seen_at < FRESH:
            return self._seen
        seen: dict[str, Any] = self._call(
            "inspect", lambda c, found: reading.inspection(c.inspect_container(found)), Retry.ANY
        )
        if not seen["State"]["Running"] or seen["State"]["Restarting"]:
            self._id = ""
            raise self._not_running()
        self._seen, self._seen_at = seen, self._connection.clock.now()
        return seen

    def _call(self, what: str, do: Callable[[Any, str], T], retry: Retry = Retry.LOST) -> T:
        return self._on(lambda found: self._connection.call(f"{what} {self._name}", lambda c: do(c, found), retry))

    def _on(self, do: Callable[[str], T]) -> T:
        """`do(container id)`; when it turns out to be gone, once more with the one that has taken its place."""
        known = self._id
        try:
            return do(known or self._find())
        except EngineAnswer as answer:
            if not (answer.gone or any(words in answer.words for words in NOT_RUNNING)):
                raise
            found = self._find()
            if found == known or not known:
                raise self._not_running() from answer
            return do(found)

    def _find(self) -> str:
        self._id = ""
        if self._container:
            filters: dict[str, Any] = {"name": [self._container]}  # a pattern: others may fit as well
        else:
            filters = reading.service_filter(self._project, self._service)
        filters["status"] = ["running"]
        seen = self._connection.call(
            "find the proxy", lambda c: reading.container_list(c.containers(filters=filters)), Retry.ANY
        )
        if self._container:
            seen = [entry for entry in seen if f"/{self._container}" in (entry["Names"] or ())]
        if not seen:
            raise self._not_running()
        if len(seen) > 1:
            names = ", ".join(sorted(reading.name(entry) for entry in seen))
            raise EngineError(
                f"the proxy's service {self._service} has {len(seen)} running containers: {names}",
                hint="name one with `container:`, or run the proxy once",
            )
        self._id, self._name = seen[0]["Id"], reading.name(seen[0])
        return self._id

    def _not_running(self) -> ProxyUnreachable:
        if self._service:
            return ProxyUnreachable(
                f"the proxy (service {self._service}) is not running", hint=f"docker compose up -d {self._service}"
            )
        return ProxyUnreachable(
            f"the proxy (container {self._container}) is not running",
            hint=f"docker start {self._container}; where there is none of that name: x-rollout.proxy.container",
        )


def _below(path: str, folder: str) -> str | None:
    """`path` relative to `folder`, empty when equal, None when it is not in it."""
    if path == folder:
        return ""
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def _mounted(host_path: str, mounts: Sequence[dict[str, Any]]) -> Mount | None:
    shared = [mount for mount in mounts if mount["Source"]]  # a tmpfs has none
    wanted = os.path.realpath(host_path)
    for mount in sorted(shared, key=lambda m: len(os.path.realpath(m["Source"])), reverse=True):
        source = os.path.realpath(mount["Source"])
        below = _below(wanted, source)
        if below is None:
            continue
        inside = posixpath.join(mount["Destination"], below) if below else mount["Destination"]
        if _visible(inside, mount, mounts):
            return Mount(inside, single_file=not below and Path(source).is_file(), read_only=not mount["RW"])
    return None


def _visible(inside: str, mount: dict[str, Any], mounts: Sequence[dict[str, Any]]) -> bool:
    """Whether the container sees this mount at this path: a deeper one hides what is mounted above it."""
    depth = len(mount["Destination"])
    return not any(len(m["Destination"]) > depth and _below(inside, m["Destination"]) is not None for m in mounts)
