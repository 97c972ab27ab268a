"""The values every part speaks in: what runs, what takes traffic, what the user declared. No I/O, no third party."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ReplicaState(StrEnum):
    """A container's state, in the engine's own words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Health(StrEnum):
    """Docker's HEALTHCHECK verdict; NONE when the container has no health check."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, order=True)
class RevisionKey:
    """What makes two replicas the same version: Compose's config hash and the image id (`sha256:…`)."""

    config_hash: str
    image_id: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of a service, numbered from 1 per service in the order first deployed.

    `config` is the whole project as resolved by Compose (YAML), enough to create its replicas again.
    `image` is the reference the user named; `image_id` in `key` is what it meant then.
    """

    service: str
    number: int
    key: RevisionKey
    image: str
    config: str
    created_at: float  # wall clock, seconds since the epoch


@dataclass(frozen=True, slots=True)
class Replica:
    """One container of a service as the engine sees it.

    `addresses` maps a network's name to the container's IP on it (empty unless it runs or is paused).
    `restart_count`, `exit_code`, `out_of_memory`, `health_log`, `started_at` are only filled by `Engine.inspect`.
    """

    id: str  # full container id
    name: str
    service: str
    number: int  # Compose's container number
    key: RevisionKey
    state: ReplicaState
    health: Health = Health.NONE
    addresses: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    created_at: float = 0.0  # wall clock
    started_at: float = 0.0  # wall clock; 0 when never started
    restart_count: int = 0
    exit_code: int | None = None
    out_of_memory: bool = False  # the kernel killed a process of it at its memory limit
    health_log: tuple[str, ...] = ()

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def running(self) -> bool:
        return self.state is ReplicaState.RUNNING


@dataclass(frozen=True, slots=True, order=True)
class Upstream:
    """An address that takes traffic. `name` is unique within the pool and never reused (it holds the container's
    id).
    """

    name: str
    host: str  # an IP address, never a name: names are resolved once by nginx and go stale
    port: int
    weight: int = 1  # 1..256

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a service asks of the proxy beyond its addresses; reaches the template as is."""

    keepalive: int = 32  # idle upstream connections kept per worker
    keepalive_timeout: float = 2.0  # seconds; must stay below the app's own idle timeout (PROXIES 9)
    hosts: tuple[str, ...] = ()  # non-empty: rollout renders a whole virtual host for these names
    balance: str = "roundrobin"  # roundrobin | leastconn | random


@dataclass(frozen=True, slots=True)
class Pool:
    """A service's upstreams, sorted by name so that equal pools render to equal bytes."""

    service: str
    upstreams: tuple[Upstream, ...] = ()
    options: PoolOptions = PoolOptions()

    def __post_init__(self) -> None:
        object.__setattr__(self, "upstreams", tuple(sorted(self.upstreams)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pool:
        """The inverse of `asdict`, through JSON. Raises KeyError, TypeError, ValueError for what never was a pool."""
        options = PoolOptions(**{**data["options"], "hosts": tuple(data["options"]["hosts"])})
        return cls(str(data["service"]), tuple(Upstream(**upstream) for upstream in data["upstreams"]), options)

    def with_upstreams(self, upstreams: tuple[Upstream, ...]) -> Pool:
        return Pool(self.service, upstreams, self.options)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(u.name for u in self.upstreams)


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch replaced. `token` is opaque to everyone but the proxy that made it: it says which of its workers
    may still know the previous pool, survives a crash in the journal, and is what `Proxy.in_flight` needs."""

    previous: Pool
    current: Pool
    token: str = ""
    reloaded: bool = False


@dataclass(frozen=True, slots=True)
class InFlight:
    """How far a drain has come. `drained` is exact, never a guess; `connections` is what would be cut now."""

    drained: bool
    connections: int = 0
    detail: str = ""  # for a person: "2 old workers, 3 connections"


@dataclass(frozen=True, slots=True)
class Relief:
    """What was ended since too much of it had piled up: old workers, and the client connections that they held."""

    workers: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests as the proxy counted them for one upstream. `failed`: the proxy answered 5xx or could not reach it."""

    requests: int = 0
    failed: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(self.requests + other.requests, self.failed + other.failed)


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters by upstream address (`ip:port`) since a marker. `missing` says why there are none, empty when there
    are. `seconds` that those requests took together, where the proxy tells it.
    """

    by_address: Mapping[str, Counters] = field(default_factory=dict)
    missing: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container has used since it started: CPU seconds, and resident memory now in bytes."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `rollout check`: what loses requests or cannot be rolled, where, and the line to write instead."""

    severity: Severity
    code: str  # stable, kebab-case: "nginx-keepalive"
    where: str  # "services.web", "/etc/nginx/nginx.conf:12"
    message: str
    fix: str = ""


# --- what the user declared -------------------------------------------------------------------------------------


class Strategy(StrEnum):
    ROLLING = "rolling"
    BLUE_GREEN = "blue-green"
    RECREATE = "recreate"


class Promotion(StrEnum):
    """Who says that a new version may take the traffic: the checks alone, or a person as well."""

    AUTO = "auto"
    MANUAL = "manual"


class Order(StrEnum):
    START_FIRST = "start-first"
    STOP_FIRST = "stop-first"


class FailureAction(StrEnum):
    ROLLBACK = "rollback"
    PAUSE = "pause"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a replica proves itself. Times in seconds.

    Exactly one of `path` (HTTP), `tcp` or `command` may be asked for; with none and no Docker HEALTHCHECK a TCP accept
    on the service's port is the check (`implied`). When the container has a HEALTHCHECK it must be healthy as well.
    """

    path: str = ""
    tcp: bool = False
    command: tuple[str, ...] = ()
    port: int = 0  # 0: the service's port
    host: str = ""  # Host header of the HTTP probe; empty: the address
    headers: tuple[tuple[str, str], ...] = ()
    expect: tuple[tuple[int, int], ...] = ((200, 299),)  # inclusive ranges of accepted statuses
    interval: float = 0.5  # the longest pause between two probes
    timeout: float = 2.0  # one probe
    healthy_threshold: int = 2  # successes in a row
    start_period: float = 0.0  # Docker's `unhealthy` does not end the wait within it
    min_healthy_time: float = 0.0  # stay ready this long before taking traffic
    healthy_deadline: float = 60.0
    docker: bool = False  # the container has a Docker HEALTHCHECK

    @property
    def implied(self) -> bool:
        return not (self.path or self.tcp or self.command or self.docker)


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """Compose's `deploy.update_config`, made true. Times in seconds; `parallelism` 0 means all at once."""

    parallelism: int = 1
    delay: float = 0.0
    order: Order = Order.START_FIRST
    failure_action: FailureAction = FailureAction.ROLLBACK
    monitor: float = 0.0
    max_failure_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Hook:
    """A command of the user's: exactly one of `command` (in a container) and `host_command`. `timeout` in seconds;
    `fails`: whether its failure is the deploy's."""

    command: tuple[str, ...] = ()
    host_command: tuple[str, ...] = ()
    timeout: float = 30.0
    fails: bool = True


@dataclass(frozen=True, slots=True)
class Hooks:
    """When commands of the user's run; None: none is asked for."""

    pre_deploy: Hook | None = None  # once, before anything is started, from the new image
    post_switch: Hook | None = None  # once, after the last switch, in a new replica
    pre_stop: Hook | None = None  # in each old replica, after it has drained


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week, by the local clock. `days`: 0 is Monday; those on which it opens. `begins` and `ends` are
    minutes after midnight; one that ends before it begins, or with it, ends on the next day."""

    days: frozenset[int]
    begins: int
    ends: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the registry is asked for a newer image of the service's tag. Times in seconds; no window: at any time."""

    interval: float
    jitter: float = 0.0  # each pause is longer by up to so much
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service that `rollout` deploys. Times in seconds."""

    name: str
    port: int
    image: str = ""  # the reference in the Compose file; empty: built, named by Compose
    replicas: int = 1
    strategy: Strategy = Strategy.ROLLING
    promotion: Promotion = Promotion.AUTO
    health: HealthCheck = HealthCheck()
    update: UpdateConfig = UpdateConfig()
    rollback: UpdateConfig | None = None  # in place of `update` when going back; None: the same
    drain_timeout: float = 30.0
    keep_warm: float = 0.0
    keep: int = 3  # revisions whose image is kept for rollback
    progress_deadline: float = 600.0
    stop_grace_period: float = 10.0
    hooks: Hooks = Hooks()
    pool: PoolOptions = PoolOptions()
    networks: tuple[str, ...] = ()  # engine names of the networks it is attached to
    depends_on: tuple[str, ...] = ()
    container_name: str = ""  # set: only one container can ever exist
    schedule: Schedule | None = None
    remove_first: bool = False  # the old container must be gone before the new one can be created (container_name)


class ProxyType(StrEnum):
    NGINX = "nginx"
    HAPROXY = "haproxy"


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The proxy the user already runs: exactly one of `service`, `container`, `host` says where."""

    type: ProxyType
    config: str  # absolute host path of the directory rollout renders into
    service: str = ""
    container: str = ""
    host: bool = False
    templates: str = ""  # absolute host path of the user's own templates; empty: only the built-in ones
    status_port: int = 8099  # nginx: the private status listener
    socket: str = ""  # haproxy: host path of the runtime socket, or "tcp:HOST:PORT"; empty: found from its config
    master_socket: str = ""  # haproxy: host path of the master socket; empty: found from its command line
    pid_file: str = ""  # host proxy: where its pid is; empty: the binary's default
    binary: str = ""  # host proxy: the program; empty: `nginx` / `haproxy` on PATH
    main_config: str = ""  # host proxy: its main config file; empty: the binary's default


OUTCOMES = ("deployed", "undone", "aborted", "interrupted", "failed", "unfinished", "held", "paused")


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Who is told of which outcomes. Exactly one of `url` and `url_file`: an address may be a secret. Files are
    absolute host paths, read when they are needed."""

    url: str = field(default="", repr=False)
    url_file: str = ""
    format: str = "json"  # json | slack
    secret_file: str = ""  # empty: not signed
    on: tuple[str, ...] = OUTCOMES


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """What a signed request may deploy: images that match one of the patterns (`*` stands for anything)."""

    secret_file: str  # absolute host path
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Project:
    """A Compose project as `docker compose config` resolved it. `services` are those with `x-rollout`."""

    name: str
    directory: str  # absolute
    proxy: ProxySettings
    services: Mapping[str, ServiceSettings]
    config: str  # the resolved YAML
    webhook: WebhookSettings | None = None
    notify: tuple[NotifySettings, ...] = ()
