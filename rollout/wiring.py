"""Everything put together: the project loaded, the ports made. The only module that knows all the parts by name.

What is heavy (the Docker SDK, Jinja2, PyYAML) is imported while Compose resolves the project: it costs no time.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.compose import Compose, LoadedProject, Options, with_image
from rollout.errors import EngineError
from rollout.events import ComposeOutput, Notice, Sink
from rollout.model import Finding, Project, ProxyType, ServiceSettings
from rollout.ports import Clock, ProxyProcess
from rollout.state import StateDirectory

if TYPE_CHECKING:
    from rollout.engines.docker import Connection, DockerEngine
    from rollout.journal import SqliteJournal
    from rollout.lock import FileLock
    from rollout.proxies.haproxy import HAProxy
    from rollout.proxies.nginx import Nginx
    from rollout.steps.run import Ports


@dataclass(slots=True)
class Wired:
    """A project with its ports. `settings` and `project` are the user's, or what the command line made of them."""

    project: Project
    loaded: LoadedProject
    compose: Compose
    connection: Connection
    engine: DockerEngine
    process: ProxyProcess
    proxy: Nginx | HAProxy
    journal: SqliteJournal
    lock: FileLock
    state: StateDirectory
    ports: Ports

    def findings(self, names: Sequence[str] = ()) -> list[Finding]:
        """What `preflight` says of these services (default: all), and of where we are."""
        from rollout import preflight

        return [*self.placement(), *preflight.findings(self.project, self.loaded.document, names)]

    def placement(self) -> list[Finding]:
        """An error where we run in a container that has the project at another path than the engine."""
        from rollout import preflight
        from rollout.engines.docker.surroundings import host_path

        return preflight.placement(self.project.directory, host_path(self.connection, self.project.directory))

    def writing(self) -> list[Finding]:
        """An error where we may not write the proxy's files: whoever performs a deploy would meet it in its middle."""
        from rollout import paths, preflight

        config = self.project.proxy.config
        return preflight.proxy_directory(config, paths.unwritable(config))

    def override(self, service: str, change: Callable[[ServiceSettings], ServiceSettings]) -> None:
        """Let the command line have its way with a service's settings."""
        services = dict(self.project.services)
        services[service] = change(services[service])
        self.project = replace(self.project, services=services)


@contextmanager
def wire(
    options: Options,
    wanted: Sequence[str],
    clock: Clock,
    emit: Sink,
    *,
    config: str = "",
    environ: Mapping[str, str] | None = None,
    keeps_state: bool = True,
    meanwhile: Callable[[], object] = bool,
) -> Iterator[Wired]:
    """Load the project and make its ports; closed at the end of the block. `wanted` are services named by the user.

    `config`: a resolved project (YAML) instead of the files. `keeps_state` False: for commands that only look; then
    nothing is created, not even the state directory. `meanwhile` is called while Compose works.
    Raises SpecError, UsageError, ComposeError, EngineError, StateError.
    """
    environ = os.environ if environ is None else environ
    from rollout.engines.docker import Connection
    from rollout.lock import held_fds

    compose = Compose(options, environment=environ, keep_open=held_fds)
    with closing(Connection(clock, environ)) as connection:
        warm_up = partial(_warm_up, connection, meanwhile)
        loaded = compose.adopt(config, meanwhile=warm_up) if config else compose.load(wanted, meanwhile=warm_up)
        project = _read(loaded, wanted, emit)
        state = StateDirectory.of(loaded.directory, environ)
        if keeps_state:
            state.prepare(project.name)
        else:
            state.check(project.name)
        with _journal(state, clock, emit, keeps_state) as journal:
            yield _assemble(project, loaded, compose, connection, state, journal, emit)


def _warm_up(connection: Connection, meanwhile: Callable[[], object]) -> None:
    """Spend the time that Compose takes: connect to the engine aside, import what comes next here."""
    threading.Thread(target=_connect, args=(connection,), name="engine", daemon=True).start()
    with _no_collections():
        _import_what_comes_next()
    meanwhile()


def _import_what_comes_next() -> None:

    import rollout.deploy
    import rollout.journal
    import rollout.spec  # noqa: F401


@contextmanager
def _no_collections() -> Iterator[None]:
    """Imports make many objects, all of which stay: a hundred searches for garbage among them find none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _connect(connection: Connection) -> None:
    with suppress(EngineError):  # whoever needs the engine is told
        _ = connection.client


def _read(loaded: LoadedProject, wanted: Sequence[str], emit: Sink) -> Project:
    from rollout import spec

    for text in loaded.warnings:
        emit(Notice("", f"compose: {text}"))
    project = spec.read_project(
        loaded.document, loaded.directory, loaded.config, files=loaded.files, lossy=loaded.lossy
    )
    spec.ensure_known(project, loaded.document, wanted)
    return project


@contextmanager
def _journal(state: StateDirectory, clock: Clock, emit: Sink, keeps_state: bool) -> Iterator[SqliteJournal]:
    from rollout.journal import SqliteJournal

    with ExitStack() as stack:
        path = state.journal
        if not keeps_state and not path.exists():
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rollout-"))) / path.name
        yield stack.enter_context(closing(SqliteJournal(path, clock, lambda text: emit(Notice("", text)))))


def _assemble(
    project: Project,
    loaded: LoadedProject,
    compose: Compose,
    connection: Connection,
    state: StateDirectory,
    journal: SqliteJournal,
    emit: Sink,
) -> Wired:
    from rollout.engines.docker import DockerEngine
    from rollout.fanout import threads
    from rollout.host import HostPrograms
    from rollout.lock import FileLock, held_fds
    from rollout.probes import Probes
    from rollout.steps.run import Ports

    def said(service: str) -> Callable[[str], None]:
        return lambda line: emit(ComposeOutput(service, line))

    clock = connection.clock
    engine = DockerEngine(
        project.name,
        compose.create,
        clock,
        compose_pull=lambda service, config: compose.pull(service, config, progress=said(service)),
        compose_build=lambda service: compose.build(service, progress=said(service)),
        compose_job=compose.start_job,
        connection=connection,
    )
    process = _proxy_process(project, connection)
    proxy = _proxy(project, process, clock, str(state.proxy_lock))
    lock = FileLock(state.locks, clock, anchor=compose.files[0] if compose.files else "")
    host = HostPrograms(project.name, project.directory, clock, held_fds)
    ports = Ports(engine, engine, proxy, Probes(engine, clock), journal, lock, clock, threads, host, with_image)
    return Wired(project, loaded, compose, connection, engine, process, proxy, journal, lock, state, ports)


def _proxy(project: Project, process: ProxyProcess, clock: Clock, lock: str) -> Nginx | HAProxy:
    if project.proxy.type is ProxyType.NGINX:
        from rollout.proxies.nginx import Nginx

        return Nginx(project.proxy, process, clock, lock)
    from rollout.proxies.haproxy import HAProxy

    return HAProxy(project.proxy, process, clock, lock)


def _proxy_process(project: Project, connection: Connection) -> ProxyProcess:
    where = project.proxy
    if where.host:
        from rollout.proxies.local import HostProcess

        binary = where.binary or where.type.value
        # where packages have nginx write why it refuses a reload; without it a refusal is only seen by its silence
        log = "/var/log/nginx/error.log" if where.type is ProxyType.NGINX else ""
        return HostProcess(binary, where.pid_file or f"/run/{where.type.value}.pid", log)
    from rollout.engines.docker import ContainerProcess

    return ContainerProcess(connection, project.name, service=where.service, container=where.container)
