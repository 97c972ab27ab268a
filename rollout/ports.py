"""The seams. Steps, strategies and the deploy see only these; one contract suite (tests/contract) runs over every
implementation, fakes included.

Common rules: every method may be called again after a crash and does no harm (idempotent); times are seconds; ids are
full container ids; failures are RolloutError subclasses only, foreign errors are translated inside the implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rollout.errors import RolloutError
from rollout.model import (
    Counted,
    Finding,
    HealthCheck,
    InFlight,
    Pool,
    Replica,
    Revision,
    RevisionKey,
    ServiceSettings,
    Switched,
    Upstream,
    Usage,
)


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds, for durations and deadlines."""

    def wall(self) -> float:
        """Seconds since the epoch, for people and records; may jump."""

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class ExecResult:
    exit_code: int
    output: str


SYNC = "sync"  # what a holder of a lease signs who keeps it for moments only


class Watch(Protocol):
    """Hints, one for each thing that may have changed what is ready. Iterate in one thread, close in any."""

    def __iter__(self) -> Iterator[str]:
        """The service concerned (empty: the other container's). Ends when it is closed, and when the engine has gone:
        then anything may have happened, and whoever watches lists anew."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Output:
    """Lines of a container's output; `mark` says how far they go, for the next call."""

    lines: tuple[str, ...] = ()
    mark: str = ""


class Engine(Protocol):
    """Containers of one Compose project. Another project's containers are never seen and never touched."""

    def replicas(self, service: str) -> list[Replica]:
        """All containers of the service in every state, sorted by number. One-off (`compose run`) ones are left out.
        Raises EngineError."""

    def all_replicas(self) -> dict[str, list[Replica]]:
        """As `replicas`, of every service of the project that has a container, in one call. Raises EngineError."""

    def watch(self, container: str = "") -> Watch:
        """What happens to the project's containers from now on, and to that other container (by name), as hints to look
        again. Raises EngineError when the engine cannot be asked."""

    def inspect(self, replica_id: str) -> Replica | None:
        """The replica with its details, None when it is gone. Raises EngineError."""

    def create(self, service: str, count: int, config: str | None) -> list[str]:
        """Create `count` more containers of the service, through Compose, without starting them; return their ids.

        `config` None: from the user's own Compose files as they are now. Otherwise from that resolved project (YAML),
        for a rollback, a recovery or `--image`. Existing containers are neither changed nor removed.
        Not idempotent by itself: a caller that crashed re-observes `replicas` first. Raises ComposeError, EngineError.
        """

    def start(self, replica_id: str) -> None:
        """Start it; nothing when it runs. Raises DeployFailed when the engine cannot run it (bad command, port taken),
        EngineError when it is gone or the engine fails."""

    def stop(self, replica_id: str, timeout: float | None) -> None:
        """Send the stop signal, wait up to `timeout` (None: the container's own), then SIGKILL; return once it has
        exited. Nothing when it is not running or gone. A restart policy does not bring it back.
        """

    def remove(self, replica_id: str) -> None:
        """Remove the stopped container and its anonymous volumes; nothing when it is gone."""

    def logs(self, replica_id: str, lines: int) -> list[str]:
        """The last `lines` lines of its output, oldest first; empty when it is gone or its log driver keeps none."""

    def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str = "",
        timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run argv (no shell) inside a running container, with these variables besides its own. Raises EngineError when
        the container is not running; a missing program is exit code 126 or 127."""

    def start_job(self, service: str, argv: Sequence[str], config: str, environment: Mapping[str, str]) -> str:
        """Start argv (no shell) in a one-off container of the service as the resolved project `config` has it, through
        Compose: its image, environment, networks and volumes, no ports, never restarted, never a replica. Returns its
        id, good for `inspect`, `output`, `stop` and `remove`. Raises DeployFailed when it cannot be run, ComposeError,
        EngineError; what was made until then is among `jobs`."""

    def jobs(self, service: str) -> list[str]:
        """The ids of the one-off containers that `start_job` made and that are still there, in whatever state."""

    def output(self, container: str, after: str) -> Output:
        """What the container printed since `after` (the mark of the last call; empty: all), oldest first."""

    def usage(self, replica_id: str) -> Usage | None:
        """CPU and memory of a running container, None when it is not running."""


class Images(Protocol):
    """Images, by reference (`shop/web:1.4`) or id (`sha256:…`)."""

    def image_id(self, reference: str) -> str | None:
        """The id the reference means here and now, None when there is no such image."""

    def pull(self, service: str, config: str | None) -> None:
        """Pull the service's image as Compose does, with the Docker CLI's credentials. Raises ImageNotFound with the
        registry's words."""

    def build(self, service: str) -> None:
        """Build the service's image as Compose does. Raises BuildFailed with the builder's words, ComposeError."""

    def tag(self, image_id: str, reference: str) -> None: ...

    def untag(self, reference: str) -> None:
        """Remove this name of the image, and the image with its last name; nothing when there is no such name."""

    def tags(self, repository: str) -> list[str]:
        """All references in this repository (`rollout-keep/shop/web`)."""


class Registry(Protocol):
    """What registries offer, and what of it is here, by digest (`sha256:…` of the manifest, not of the image)."""

    def offered(self, reference: str) -> str:
        """The digest that this tag has in its registry now, asked with the Docker CLI's credentials. Raises EngineError
        with the registry's words."""

    def digests(self, image_id: str) -> frozenset[str]:
        """The digests under which this image was pulled or pushed here; empty when it was built here, or is gone."""


class Prober(Protocol):
    def probe(self, replica: Replica, address: str, check: HealthCheck, port: int) -> str | None:
        """Probe once. None when it passed, else the reason in a few words (`connection refused`, `HTTP 503`).

        `address` is the IP the proxy will use; `port` the service's (used when the check names none).
        Docker's own HEALTHCHECK is not the prober's business. Never raises for what the replica does.
        """


class Host(Protocol):
    """Programs of the host that rollout runs on."""

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        timeout: float,
        say: Callable[[str], None],
        given_up: Callable[[], bool],
    ) -> ExecResult:
        """Run argv (no shell) in the project directory with these variables besides our own; `say` gets each line of
        its output as it comes. A missing program is exit code 126 or 127. It and its children are ended when `given_up`
        answers True (the result is then of no interest). Raises DeployFailed after `timeout` seconds."""


class Proxy(Protocol):
    """The one proxy of a project. Knows pools by service; renders, applies, confirms, and says when it is done with
    one.
    """

    def network(self, settings: ServiceSettings) -> str:
        """The engine's name of the network over which the proxy reaches this service's replicas (a key of
        `Replica.addresses`). Raises SpecError when they share none, ProxyUnreachable when the proxy is not running."""

    def pool(self, service: str) -> Pool | None:
        """The pool that the config in force on disk names for the service; None when it names none."""

    def warm_up(self) -> None:
        """A switch is coming: do ahead what makes it quick, beside other work. Changes nothing. Raises
        ProxyUnreachable."""

    def prepare(self, pool: Pool) -> None:
        """Render and test the config that `switch(pool)` would load, without touching what is live, and see that the
        proxy can be asked what the switch and its drain will ask. Raises ProxyRejected, ProxyUnreachable. Optional
        before `switch` (which does it itself if it was not done): it lets the test overlap with other waits.
        """

    def switch(self, pool: Pool) -> Switched:
        """Make `pool` the live one for its service: rendered, tested, written atomically, loaded, confirmed live.

        When it returns, no new request goes to an upstream that is not in `pool`, except on connections that
        `in_flight` still reports. Raises ProxyRejected with the former config in force and on disk, ProxyUnreachable
        with the former on disk (what is live is not known where it did not answer in the middle). Equal to what is
        live: changes nothing, `reloaded` False. Other services' config is left byte for byte as it is.
        """

    def switch_all(self, pools: Sequence[Pool]) -> list[Switched | RolloutError]:
        """`switch` for several services in one change (nginx: one reload); for each what `switch` would have returned
        or, when its pool cannot be had, raised. One that is refused takes nothing from the others. What concerns all
        of them (ProxyUnreachable, StateError) is raised."""

    def identity(self) -> str:
        """Changes when the proxy is restarted. Raises ProxyUnreachable when it is not running."""

    def fingerprints(self, services: Sequence[str]) -> dict[str, str]:
        """For each service a text that stays the same while the running proxy does what its files say of it: equal to
        the one taken after a switch means that the switch holds. Cheap. Raises ProxyUnreachable."""

    def holds(self, pool: Pool) -> bool:
        """Whether this very pool is in force on disk and live, as far as that is seen without rendering it: a template
        that has changed since is not. False where only a switch can tell. Raises ProxyUnreachable."""

    def in_flight(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        """Whether the proxy can still send, or is still sending, a request to any of `upstreams` (already out of the
        pool). `switched` None: nothing is known of the switch (a crash), so every old worker counts. Exact: `drained`
        is True only when no live worker can ever send to them again. Cheap enough to poll every 5-15 ms."""

    def cut(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> int:
        """The drain limit has passed: make sure that no live worker can send to `upstreams` any more, closing what
        it takes and no more (nginx: connections already joined to them die with the container, so only old workers
        that could still *begin* a request to them are ended; HAProxy: `shutdown sessions server`). Returns the
        connections cut, those that end with the container included. After it, stopping them frees no address that is
        still in use.
        """

    def forget(self, service: str, upstreams: Sequence[Upstream]) -> None:
        """The upstreams are drained and stopped: drop what the proxy still keeps of them (HAProxy: `del server`)."""

    def mark(self, service: str) -> str:
        """A marker for `count`: counting begins here. Survives a crash (text)."""

    def count(self, service: str, marker: str) -> Counted:
        """Requests per upstream address since the marker, as the proxy counted them. Never raises."""

    def count_and_mark(self, service: str, marker: str) -> tuple[Counted, str]:
        """`count` up to the marker that comes with it: what counts on from there misses no request and has none twice.
        Raises ProxyUnreachable."""

    def findings(self) -> list[Finding]:
        """Settings of the running proxy that lose requests, each with the line to write instead (PROXIES 0-9)."""


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A rollout as the journal holds it. `old` are the containers it found, `previous` the pool it found,
    without what was dead already."""

    id: int
    service: str
    what: str  # deploy | rollback
    state: str  # running | undoing | paused, or ended: deployed | undone | aborted | interrupted | failed
    strategy: str
    target: Revision
    old: tuple[str, ...]  # container ids in service when it began
    previous: Pool | None
    switched: bool  # at least one switch was begun: from here on it is finished, not undone
    started_at: float  # wall clock
    forced: bool = False  # `--force`: replicas of the target's own revision in `old` are replaced too
    marker: str = ""  # Proxy.mark at the start
    before: Revision | None = None  # what served when it began
    receipt: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Warm:
    """Old replicas that run on, out of rotation, so that a rollback is only a switch."""

    service: str
    revision: int
    replicas: tuple[str, ...]
    until: float  # wall clock


@dataclass(frozen=True, slots=True)
class Wished:
    """What somebody asked of a rollout under way (`control.Wish`). `at` is wall clock."""

    wish: str  # pause | resume | abort | promote
    who: str
    at: float


class Journal(Protocol):
    """What must survive a crash. Every write is durable when it returns. Raises StateError (disk full, permission)."""

    def unfinished(self, service: str) -> RolloutRecord | None:
        """The rollout that an earlier run left running, undoing or paused."""

    def begin(
        self,
        *,
        what: str,
        strategy: str,
        target: Revision,
        old: Sequence[str],
        previous: Pool | None,
        marker: str,
        forced: bool,
        before: Revision | None = None,
    ) -> RolloutRecord:
        """Of the target's service."""

    def step_begun(self, rollout: int, index: int, step: str, detail: Mapping[str, Any]) -> None: ...

    def step_done(self, rollout: int, index: int, result: Mapping[str, Any]) -> None:
        """May be written together with the next write: what was done is observed by a recovery, never read; but for
        what it cost (`cut`)."""

    def mark_state(
        self, rollout: int, *, state: str | None = None, switched: bool | None = None, marker: str | None = None
    ) -> None: ...

    def wish(self, rollout: int, wish: str, who: str) -> None:
        """Ask for it, from whatever process; who performs the rollout looks at `wishes`."""

    def wishes(self, rollout: int) -> list[Wished]:
        """Oldest first. May be called from several threads at once."""

    def last_step(self, rollout: int) -> str:
        """The kind of the step that was begun last, empty before the first."""

    def cut(self, rollout: int) -> int:
        """Connections that its steps have cut so far."""

    def finish(self, rollout: int, state: str, receipt: Mapping[str, Any]) -> None:
        """The rollout is over; when `deployed`, its target is the live revision from here on, in the same commit."""

    def revision(self, service: str, key: RevisionKey, image: str, config: str) -> Revision:
        """The revision with this key, numbered and stored when it is new; an equal one keeps its number."""

    def revisions(self, service: str) -> list[Revision]:
        """Newest first."""

    def live(self, service: str) -> Revision | None: ...

    def warm(self, service: str) -> Warm | None: ...

    def set_warm(self, service: str, warm: Warm | None) -> None: ...

    def history(self, service: str | None, limit: int) -> list[RolloutRecord]:
        """Ended and unfinished rollouts, newest first."""


class Lock(Protocol):
    def hold(self, service: str, what: str, wait: float) -> AbstractContextManager[None]:
        """The lease on a service for the length of the block. Waits up to `wait` seconds for another holder, then
        raises LockHeld naming it. One that signed SYNC is short and waited for in any case. Freed by the
        kernel when the process dies.
        """

    def attempt(self, service: str, what: str) -> AbstractContextManager[bool]:
        """As `hold`, but waits for nobody: False when another has the lease."""


@dataclass(frozen=True, slots=True)
class Process:
    pid: int  # as `ProxyProcess.processes` sees it; only ever compared, never signalled
    title: str  # "nginx: worker process is shutting down"


@dataclass(frozen=True, slots=True)
class Mount:
    """How a host path is seen by the proxy. `path` inside it; `single_file` when the mount is that very file."""

    path: str
    single_file: bool = False
    read_only: bool = False


class ProxyProcess(Protocol):
    """Where the proxy runs: a container, or this host. What nginx and HAProxy are spoken to through."""

    def describe(self) -> str:
        """For messages: `container shop-edge-1 (service edge)`."""

    def identity(self) -> str:
        """Changes when the proxy is restarted (container id and start time). Raises ProxyUnreachable when not
        running.
        """

    def argv(self) -> list[str]:
        """The command line it was started with."""

    def exec(self, argv: Sequence[str], *, user: str = "", timeout: float = 30.0) -> ExecResult:
        """Run argv (no shell) beside the proxy. A missing program is exit code 126 or 127. Raises ProxyUnreachable."""

    def warm_up(self) -> None:
        """Commands will be run: make the next `exec` quick. Never raises."""

    def signal(self, name: str) -> None:
        """Signal its main process: `HUP`."""

    def processes(self) -> list[Process]:
        """Its processes with their titles; all of them, the main one included."""

    def output(self, since: float, until: float | None = None) -> list[str]:
        """What it printed since that wall-clock second, up to the other (stdout and stderr, oldest first); empty when
        unknown."""

    def networks(self) -> Mapping[str, str]:
        """Engine network name → the address the controller reaches the proxy at on it."""

    def mount(self, host_path: str) -> Mount | None:
        """Where the proxy sees this host path; None when it does not."""

    def host_path(self, path: str) -> str | None:
        """Where this host sees the proxy's path (the reverse of `mount`); None when it is not shared with the host."""

    def read(self, path: str) -> bytes | None:
        """A file of the proxy's own file system, None when there is none."""
