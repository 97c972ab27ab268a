"""One service: its `x-rollout` and what Compose itself says of it, as settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rollout.model import (
    FailureAction,
    HealthCheck,
    Order,
    PoolOptions,
    Promotion,
    Schedule,
    ServiceSettings,
    Strategy,
    UpdateConfig,
)
from rollout.spec.faults import Faults, Place, Refused
from rollout.spec.hooks import read_hooks
from rollout.spec.section import validate
from rollout.spec.sections import HEALTHCHECK, SERVICE, UPDATE
from rollout.spec.values import image, seconds, service_name

Raw = Mapping[str, Any]

# Docker's own defaults for a HEALTHCHECK that leaves them out
DOCKER_INTERVAL = 30.0
DOCKER_TIMEOUT = 30.0
DOCKER_RETRIES = 3
DOCKER_GRACE = "10s"  # between SIGTERM and SIGKILL
SHORTEST_DEADLINE = 60.0
SHORTEST_INTERVAL, LONGEST_INTERVAL = 60.0, 366 * 86400.0  # seconds between two questions to a registry


def read_service(name: str, raw: Raw, networks: Mapping[str, str], faults: Faults) -> ServiceSettings:
    """The settings of a service that has `x-rollout`. Faults are added: what has one is as if it were not written.

    `networks` maps the project's network keys to the engine's names.
    """
    place: Place = ("services", name)
    _check(service_name, name, place, faults)
    _check(image, raw.get("image") or "none", (*place, "image"), faults)
    grace = raw.get("stop_grace_period")
    stop_grace_period = _check(seconds, DOCKER_GRACE if grace is None else grace, (*place, "stop_grace_period"), faults)
    check = _healthcheck(raw, (*place, "healthcheck"), faults)
    section = validate(SERVICE, raw.get("x-rollout"), (*place, "x-rollout"), faults)
    deploy = raw.get("deploy") or {}
    update = _update(deploy.get("update_config"), (*place, "deploy", "update_config"), faults)
    back = deploy.get("rollback_config")
    rollback = _update(back, (*place, "deploy", "rollback_config"), faults) if back else None
    port = section.get("port") or _exposed_port(raw, (*place, "x-rollout", "port"), faults)
    health = _health(section.get("health", {}), check, (*place, "x-rollout", "health"), faults)
    hooks = read_hooks(section.get("hooks", {}), (*place, "x-rollout", "hooks"), faults)
    strategy = Strategy(section.get("strategy", Strategy.ROLLING))
    promotion = Promotion(section.get("promotion", Promotion.AUTO))
    unknown = faults.spoil((*place, "x-rollout", "strategy"))
    if promotion is Promotion.MANUAL and strategy is not Strategy.BLUE_GREEN and not unknown:
        hint = "write strategy: blue-green, which has one switch to wait before"
        faults.add((*place, "x-rollout", "promotion"), f"manual means nothing to {strategy}", hint)
    chosen = _of(section, "drain_timeout", "keep_warm", "keep", "progress_deadline")
    chosen.setdefault("progress_deadline", max(600.0, 2 * health.healthy_deadline))
    schedule = _schedule(section.get("schedule"), raw, (*place, "x-rollout", "schedule"), faults)
    settings = ServiceSettings(
        name=name,
        port=port,
        image=str(raw.get("image") or ""),
        replicas=_replicas(raw),
        strategy=strategy,
        promotion=promotion,
        health=health,
        update=update,
        rollback=rollback,
        stop_grace_period=stop_grace_period,
        hooks=hooks,
        pool=PoolOptions(**_of(section, "keepalive", "keepalive_timeout", "hosts", "balance")),
        networks=_networks(raw, networks),
        depends_on=tuple(sorted(raw.get("depends_on") or {})),
        container_name=str(raw.get("container_name") or ""),
        remove_first=bool(raw.get("container_name")),
        schedule=schedule,
        **chosen,
    )
    check_times(settings, place, faults)
    return settings


def _of(section: Raw, *keys: str) -> dict[str, Any]:
    """What the user gave of these: defaults stay the core's business."""
    return {key: section[key] for key in keys if key in section}


def default_deadline(check: Raw | None) -> float:
    """How long a replica may take to become ready when nobody says: as long as its Compose `healthcheck` may take to
    call it unhealthy, start_period + (retries + 1) x (interval + timeout), and at least 60 s. A slow boot that Docker
    itself would put up with is not given up on."""
    if check is None:
        return SHORTEST_DEADLINE
    interval: float = check.get("interval", DOCKER_INTERVAL)
    timeout: float = check.get("timeout", DOCKER_TIMEOUT)
    retries: int = check.get("retries") or DOCKER_RETRIES
    start_period: float = check.get("start_period", 0.0)
    return max(SHORTEST_DEADLINE, start_period + (retries + 1) * (interval + timeout))


def check_times(settings: ServiceSettings, place: Place, faults: Faults) -> None:
    """The order that times must have. Each broken rule is one fault, at the key that a person would change; none is
    broken by a time that is not acceptable itself."""
    health, root = settings.health, (*place, "x-rollout")
    ready, deadline = health.min_healthy_time, health.healthy_deadline
    for key, value in (("interval", health.interval), ("timeout", health.timeout), ("healthy_deadline", deadline)):
        if value <= 0:
            faults.add((*root, "health", key), "must be longer than 0", "like 500ms")
    if settings.pool.keepalive_timeout <= 0:
        faults.add((*root, "keepalive_timeout"), "must be longer than 0", "keepalive: 0 turns it off")

    def known(*keys: str) -> bool:
        """What nobody says of the deadline follows from these others."""
        needed = ("healthy_deadline", "start_period", "min_healthy_time", *keys)
        return not faults.spoil((*place, "healthcheck"), *((*root, "health", key) for key in needed))

    if ready >= deadline and known():
        faults.add(
            (*root, "health", "min_healthy_time"),
            f"{ready:g}s is not shorter than healthy_deadline, {deadline:g}s: no replica could ever be ready",
            "min_healthy_time < healthy_deadline < progress_deadline",
        )
    if deadline >= settings.progress_deadline and known() and not faults.spoil((*root, "progress_deadline")):
        faults.add(
            (*root, "progress_deadline"),
            f"{settings.progress_deadline:g}s is not longer than healthy_deadline, {deadline:g}s",
            "min_healthy_time < healthy_deadline < progress_deadline",
        )
    if deadline <= health.timeout and known("timeout"):
        hint = f"write a timeout below {deadline:g}s"
        faults.add((*root, "health", "timeout"), f"{health.timeout:g}s is not shorter than healthy_deadline", hint)
    if deadline <= health.interval * (health.healthy_threshold - 1) and known("interval", "healthy_threshold"):
        faults.add(
            (*root, "health", "healthy_threshold"),
            f"{health.healthy_threshold} successes {health.interval:g}s apart do not fit into {deadline:g}s",
            "lower the threshold or the interval, or raise healthy_deadline",
        )


def _health(section: Raw, check: Raw | None, place: Place, faults: Faults) -> HealthCheck:
    asked = [key for key in ("path", "tcp", "command") if section.get(key)]
    if len(asked) > 1:
        faults.add(place, f"{' and '.join(asked)} exclude each other", "keep one: path, tcp or command")
    if not section.get("path") and not faults.spoil((*place, "path")):
        for key in ("host", "headers", "expect"):
            if section.get(key):
                faults.add((*place, key), "only means something with path", "add path: /healthz, or remove it")
    values = dict(section)
    values.setdefault("healthy_deadline", _deadline(check, values))
    if check is not None:
        values.setdefault("start_period", check.get("start_period", 0.0))
    return HealthCheck(docker=bool(check and check["test"]), **values)


def _schedule(section: Raw | None, raw: Raw, place: Place, faults: Faults) -> Schedule | None:
    if section is None:
        return None
    reference = str(raw.get("image") or "")
    if not reference:
        faults.add(place, "the service names no image, so there is no registry to ask", "add image, or remove schedule")
    if "@" in reference:
        faults.add(place, "the image is named by its digest, which never changes", "name it by a tag, like app:1")
    interval: float = section.get("interval", SHORTEST_INTERVAL)
    if interval < SHORTEST_INTERVAL:
        hint = f"write {SHORTEST_INTERVAL:g}s or more, like 1h: registries limit how often they answer"
        faults.add((*place, "interval"), f"{interval:g}s is too often", hint)
    if interval > LONGEST_INTERVAL:
        faults.add((*place, "interval"), f"{interval:g}s is longer than a year", "remove schedule, or write 24h")
    return Schedule(interval, section.get("jitter", interval / 10), section.get("window", ()))


def _deadline(check: Raw | None, values: Mapping[str, Any]) -> float:
    # what the user did say must fit into what nobody said
    start_period: float = values.get("start_period", 0.0)
    min_healthy_time: float = values.get("min_healthy_time", 0.0)
    return max(default_deadline(check), start_period + SHORTEST_DEADLINE, 2 * min_healthy_time)


def _healthcheck(raw: Raw, place: Place, faults: Faults) -> Raw | None:
    """Compose's `healthcheck` unless it is turned off. Without a `test` it is the image's own, if that has one: only
    the container can tell."""
    check = raw.get("healthcheck")
    if not check or check.get("disable") or check.get("test") in (["NONE"], "NONE"):
        return None
    return {"test": check.get("test"), **validate(HEALTHCHECK, check, place, faults)}


def _update(raw: Raw | None, place: Place, faults: Faults) -> UpdateConfig:
    if not raw:
        return UpdateConfig()
    values = validate(UPDATE, raw, place, faults)
    if "order" in values:
        values["order"] = Order(values["order"])
    if "failure_action" in values:
        values["failure_action"] = FailureAction(values["failure_action"])
    return UpdateConfig(**values)


def _exposed_port(raw: Raw, place: Place, faults: Faults) -> int:
    if faults.spoil(place):
        return 0
    exposed = {str(entry).removesuffix("/tcp") for entry in raw.get("expose") or ()}
    exposed = {entry for entry in exposed if not entry.endswith("/udp")}
    only = next(iter(exposed)) if len(exposed) == 1 else ""
    if only.isdigit() and 1 <= int(only) <= 65535:
        return int(only)
    if not exposed:
        faults.add(place, "is missing", "the port the service listens on, like port: 8000")
    else:
        faults.add(place, f"is missing, and expose names more than one: {', '.join(sorted(exposed))}", "say which")
    return 0


def _replicas(raw: Raw) -> int:
    declared = raw.get("scale")
    if declared is None:
        declared = (raw.get("deploy") or {}).get("replicas")
    return 1 if declared is None else int(declared)


def _networks(raw: Raw, names: Mapping[str, str]) -> tuple[str, ...]:
    mode = str(raw.get("network_mode") or "")
    if mode:
        return () if mode in {"host", "none"} or ":" in mode else (mode,)
    return tuple(names.get(key, key) for key in raw.get("networks") or {})


def _check(rule: Callable[[object], Any], value: object, place: Place, faults: Faults) -> Any:
    try:
        return rule(value)
    except Refused as refused:
        faults.add(place, refused.message, refused.hint)
