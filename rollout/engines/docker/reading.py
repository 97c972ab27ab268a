"""What the engine's answers say: pure translations of its JSON into the model's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from types import NoneType
from typing import Any, TypeVar

from rollout.errors import EngineError
from rollout.model import Health, Replica, ReplicaState, RevisionKey, Usage
from rollout.ports import Process

Json = Mapping[str, Any]
T = TypeVar("T")

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
CONFIG_HASH = "com.docker.compose.config-hash"
ONEOFF = "com.docker.compose.oneoff"

# What is read of each answer, and as what: a type, some types, [of each entry; null: there is none], {of these keys}.
# An answer that is anything else is none: a broken engine, or something in between.
Shape = Any
LIST_ENTRY: Mapping[str, Shape] = {
    "Id": str, "Names": [str], "Image": str, "ImageID": str, "Created": (int, float), "Labels": (dict, NoneType),
    "State": str, "Status": str,
}  # fmt: skip
INSPECTION: Mapping[str, Shape] = {
    "Id": str, "Name": str, "Path": str, "Args": [str], "Image": str, "Created": str, "RestartCount": int,
    "State": {"Status": str, "Running": bool, "Restarting": bool, "StartedAt": str, "Pid": int, "ExitCode": int},
    "Config": {"Labels": (dict, NoneType), "Image": str},
    "HostConfig": {"NetworkMode": str},
    "Mounts": [{"Source": str, "Destination": str, "RW": bool}],
    "NetworkSettings": dict,
}  # fmt: skip

STOP_GRACE = 10.0  # seconds; the engine's default when the container names none
HEALTH_LINES = 5  # the last lines of health output worth showing


def inspection(seen: Any) -> dict[str, Any]:
    """`seen`, made sure to be the inspection of a container. Raises EngineError, transient."""
    return shaped(seen, INSPECTION)


def container_list(seen: Any) -> list[dict[str, Any]]:
    """As `inspection`, for a list of containers."""
    return each(seen, LIST_ENTRY)


def each(seen: Any, shape: Mapping[str, Shape]) -> list[dict[str, Any]]:
    """As `shaped`, for a list of them."""
    return [shaped(entry, shape) for entry in (seen if isinstance(seen, list) else [None])]


def shaped(seen: Any, shape: Mapping[str, Shape]) -> dict[str, Any]:
    """`seen`, made sure to be an object of this shape. Raises EngineError, transient."""
    missing = [key for key in shape if key not in seen] if isinstance(seen, dict) else list(shape)
    if missing:
        raise nonsense(f"it has no {', '.join(missing)}")
    wrong = [key for key, inner in shape.items() if not _fits(seen[key], inner)]
    if wrong:
        raise nonsense(f"its {', '.join(wrong)} is no engine's")
    return dict(seen)


def _fits(value: Any, shape: Shape) -> bool:
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(key in value and _fits(value[key], shape[key]) for key in shape)
    if isinstance(shape, list):
        return value is None or (isinstance(value, list) and all(_fits(entry, shape[0]) for entry in value))
    return isinstance(value, shape)


def nonsense(what: str) -> EngineError:
    hint = "is it a Docker engine that DOCKER_HOST names, or a proxy before one?"
    return EngineError(f"the engine's answer makes no sense: {what}", hint=hint, transient=True)


def _sensible(read: Callable[[Json], T]) -> Callable[[Json], T]:
    """An answer with other kinds of values than an engine's is none."""

    @wraps(read)
    def translated(seen: Json) -> T:
        try:
            return read(seen)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise nonsense(f"{type(error).__name__}: {str(error)[:80]}") from error

    return translated


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def project_filter(project: str) -> dict[str, list[str]]:
    return {"label": [f"{PROJECT}={project}", f"{ONEOFF}=False"]}


def service_filter(project: str, service: str) -> dict[str, list[str]]:
    return {"label": [f"{PROJECT}={project}", f"{SERVICE}={service}", f"{ONEOFF}=False"]}


@_sensible
def name(entry: Json) -> str:
    """Of one entry of the container list; empty for one that is being removed."""
    return _text((entry["Names"] or ["/"])[0]).lstrip("/")


@_sensible
def listed(seen: Json) -> Replica:
    """A replica from one entry of the container list."""
    labels = seen["Labels"]
    state = _state(seen["State"])
    return Replica(
        id=_text(seen["Id"]),
        name=name(seen),
        service=_text(labels[SERVICE]),
        number=int(labels.get(NUMBER, 0)),
        key=RevisionKey(_text(labels.get(CONFIG_HASH, "")), _text(seen["ImageID"])),
        state=state,
        health=_health_in(seen["Status"]),
        addresses=addresses(seen) if state in _ADDRESSED else {},
        image=_text(seen["Image"]),
        created_at=float(seen["Created"]),
    )


@_sensible
def inspected(seen: Json) -> Replica:
    """A replica with its details, from the inspection of its container."""
    labels, state = seen["Config"]["Labels"], seen["State"]
    status, health = _state(state["Status"]), state.get("Health") or {}
    running = status is ReplicaState.RUNNING
    return Replica(
        id=_text(seen["Id"]),
        name=_text(seen["Name"]).lstrip("/"),
        service=_text(labels[SERVICE]),
        number=int(labels.get(NUMBER, 0)),
        key=RevisionKey(_text(labels.get(CONFIG_HASH, "")), _text(seen["Image"])),
        state=status,
        health=Health(health.get("Status") or "none") if running else Health.NONE,
        addresses=addresses(seen) if status in _ADDRESSED else {},
        image=_text(seen["Config"]["Image"]),
        # whole seconds, as the list says it: the same replica is equal however it was read
        created_at=float(int(timestamp(seen["Created"]))),
        started_at=timestamp(state["StartedAt"]),
        restart_count=seen["RestartCount"],
        exit_code=state["ExitCode"] if status in (ReplicaState.EXITED, ReplicaState.DEAD) else None,
        out_of_memory=bool(state.get("OOMKilled")),
        health_log=_health_log(health),
    )


# a paused container keeps its address
_ADDRESSED = (ReplicaState.RUNNING, ReplicaState.PAUSED)


def _state(word: str) -> ReplicaState:
    try:
        return ReplicaState(word)
    except ValueError:
        raise EngineError(f"the engine knows a container state that rollout does not: {word}") from None


@_sensible
def addresses(seen: Json) -> dict[str, str]:
    """Network name → IP, of the networks on which the container has one; IPv6 only where there is no IPv4."""
    networks = (seen.get("NetworkSettings") or {}).get("Networks") or {}
    ends = {name: end for name, end in networks.items() if end}
    found = {name: _text(e.get("IPAddress") or e.get("GlobalIPv6Address") or "") for name, e in ends.items()}
    return {name: address for name, address in found.items() if address}


@_sensible
def processes(seen: Json) -> list[Process]:
    """Of `top` with PID first and the command line second."""
    return [Process(int(pid), _text(title)) for pid, title, *_ in seen["Processes"] or ()]


@_sensible
def mounts(seen: Json) -> list[dict[str, Any]]:
    """All mounts of an inspected container. A tmpfs has no Source; Compose's `tmpfs:` is kept apart by the engine."""
    own = [dict(mount) for mount in seen["Mounts"] or ()]
    return own + [
        {"Source": "", "Destination": _text(path), "RW": True} for path in seen["HostConfig"].get("Tmpfs") or ()
    ]


@_sensible
def stop_grace(seen: Json) -> float:
    """Seconds that an inspected container has to end in when it is stopped."""
    grace = seen["Config"].get("StopTimeout")
    if not isinstance(grace, int | NoneType):
        raise TypeError(f"StopTimeout is {grace!r}")
    return STOP_GRACE if grace is None else float(grace)


def _health_in(status: str) -> Health:
    """From the list's human text, `Up 3 seconds (health: starting)`: it has no field for it before API 1.52."""
    if not status.startswith("Up"):
        return Health.NONE
    words = {"(healthy)": Health.HEALTHY, "(unhealthy)": Health.UNHEALTHY, "(health: starting)": Health.STARTING}
    return next((health for text, health in words.items() if status.endswith(text)), Health.NONE)


def _health_log(health: Json) -> tuple[str, ...]:
    lines = [
        f"exit code {entry['ExitCode']}: {line}" if line else f"exit code {entry['ExitCode']}"
        for entry in health.get("Log") or ()
        for line in (entry["Output"].strip().splitlines() or [""])
    ]
    return tuple(lines[-HEALTH_LINES:])


def timestamp(text: str) -> float:
    """Seconds since the epoch of the engine's RFC 3339; 0 for its zero time."""
    if not text or text.startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(text).timestamp()


@_sensible
def usage(sample: Json) -> Usage | None:
    """From one statistics sample; None when it is the empty one of a container that does not run."""
    memory, cpu = sample.get("memory_stats") or {}, (sample.get("cpu_stats") or {}).get("cpu_usage") or {}
    if "usage" not in memory:
        return None
    stats = memory.get("stats") or {}
    cache = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return Usage(cpu.get("total_usage", 0) / 1e9, max(0, memory["usage"] - cache))
