"""What cannot be rolled, and why: read off the settings and the service as Compose resolved it. Pure.

An ERROR stops a deploy before anything starts; each names the way out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rollout.errors import Fault, SpecError, StateError
from rollout.model import Finding, Order, Project, ServiceSettings, Severity, Strategy

Raw = Mapping[str, Any]

_UNWRITABLE = "proxy-directory"  # the code of what is no fault of the configuration

# Programs that lock their data directory, or corrupt it when a second one opens it.
SINGLE_WRITERS = frozenset({
    "cassandra", "clickhouse-server", "cockroach", "couchdb", "elasticsearch", "etcd", "influxdb", "mariadb",
    "meilisearch", "minio", "mongo", "mongodb", "mysql", "neo4j", "opensearch", "percona", "postgis", "postgres",
    "postgresql", "prometheus", "rabbitmq", "redis", "timescaledb", "valkey", "victoria-metrics",
})  # fmt: skip


def findings(project: Project, document: Mapping[str, Any], names: Sequence[str] = ()) -> list[Finding]:
    """Everything to know before these services (default: all) are deployed: errors and warnings."""
    services: Mapping[str, Raw] = document.get("services") or {}
    return [
        finding
        for name in names or project.services
        for finding in inspect(project.services[name], services.get(name) or {}, project.proxy.service)
    ]


def placement(directory: str, on_host: str | None) -> list[Finding]:
    """Whether the engine has the project where we have it. `on_host`: where it has it, empty for nowhere; None when we
    run in no container. Compose resolves paths where we are, and the engine mounts them where it is."""
    if on_host in (None, directory):
        return []
    where = f"{on_host} there" if on_host else "not mounted from there at all"
    message = f"this container has the project at {directory}, the engine's host has not: it is {where}"
    real = on_host or "/path/of/the/project"
    fix = f"mount it at the same path, {real}:{real}, and start there: working_dir: {real}"
    return [_error("project-path", directory, message, fix)]


def compose_version(found: tuple[int, int], oldest: tuple[int, int] = (2, 20)) -> list[Finding]:
    """`found` is 0, 0 where Compose does not say."""
    if found == (0, 0) or found >= oldest:
        return []
    message = f"Compose {found[0]}.{found[1]}: older than {oldest[0]}.{oldest[1]}, which is not tested and may not do"
    return [_warning("compose-version", "compose", message, "install a newer docker-compose-plugin")]


def state_directory(where: str, in_the_way: str) -> list[Finding]:
    """`in_the_way` of making or writing it; empty: nothing is."""
    if not in_the_way:
        return []
    return [_error("state", where, f"the state cannot be kept here: {in_the_way}", "set ROLLOUT_STATE_DIR")]


def proxy_directory(where: str, in_the_way: str) -> list[Finding]:
    """`in_the_way` of writing the proxy's files there; empty: nothing is."""
    if not in_the_way:
        return []
    fix = "run as a user who may write there, or correct x-rollout.proxy.config"
    return [_error(_UNWRITABLE, "x-rollout.proxy.config", f"{where} cannot be written: {in_the_way}", fix)]


def state_in_images(where: str, readers: Iterable[str]) -> list[Finding]:
    """`readers`: services whose image is built from a directory that has the state in it."""
    return [
        _warning(
            "state-in-image", f"services.{name}.build",
            f"its builder reads {where}, which holds the environment of each revision: it may get into the image, and "
            "each deploy makes the next build begin anew",
            "add .rollout to .dockerignore",
        )
        for name in readers
    ]  # fmt: skip


def refuse(found: Iterable[Finding]) -> None:
    """Raises SpecError with all the errors among them; StateError where the configuration is right and only cannot be
    written; nothing when there are none."""
    errors = [f for f in found if f.severity is Severity.ERROR]
    if any(f.code != _UNWRITABLE for f in errors):
        raise SpecError([Fault(f.where, f.message, f.fix) for f in errors])
    for error in errors:
        raise StateError(error.message, hint=error.fix)


def inspect(settings: ServiceSettings, raw: Raw, proxy_service: str = "") -> list[Finding]:
    """The findings of one service. `raw` is the service as Compose resolved it."""
    return [*blockers(settings, raw, proxy_service), *_warnings(settings, raw)]


def blockers(settings: ServiceSettings, raw: Raw, proxy_service: str = "") -> list[Finding]:
    """The errors alone."""
    checks = [*_counts(settings, raw, proxy_service), *_unreachable(settings, raw)]
    if settings.strategy is Strategy.RECREATE:
        return [*checks, *_recreate_only(settings, raw)]
    return [*checks, *_one_at_a_time(settings, raw), *_empties_the_pool(settings)]


def _counts(settings: ServiceSettings, raw: Raw, proxy_service: str) -> Iterator[Finding]:
    where = f"services.{settings.name}"
    if settings.name == proxy_service:
        yield _error(
            "proxy-rolls", f"{where}.x-rollout", "this service is the proxy, which cannot roll behind itself",
            "remove x-rollout here; `docker compose up -d` updates the proxy",
        )  # fmt: skip
    if settings.replicas < 1:
        said = "scale" if raw.get("scale") is not None else "deploy.replicas"
        message = f"{settings.replicas} replicas: nothing would serve"
        yield _error("no-replicas", f"{where}.{said}", message, "write 1 or more")
    mode = (raw.get("deploy") or {}).get("mode")
    if mode not in (None, "replicated"):
        hint = "remove mode: replicas says how many"
        yield _error("deploy-mode", f"{where}.deploy.mode", f"{mode} is Swarm's; it cannot be rolled here", hint)


def _unreachable(settings: ServiceSettings, raw: Raw) -> Iterator[Finding]:
    mode = str(raw.get("network_mode") or "")
    if mode in {"host", "none"} or ":" in mode:
        yield _error(
            "network-mode", f"services.{settings.name}.network_mode",
            f"{mode}: its replicas have no address of their own that the proxy could choose between",
            "remove network_mode and put the service on a network of the proxy's",
        )  # fmt: skip
    elif not settings.networks:
        hint = "give it a network of the proxy's"
        yield _error("no-network", f"services.{settings.name}.networks", "the service is on no network", hint)


def _one_at_a_time(settings: ServiceSettings, raw: Raw) -> Iterator[Finding]:
    """What two containers of a service cannot both have, while old and new run side by side."""
    where = f"services.{settings.name}"
    way_out = "remove it, or use strategy: recreate (stops the old one first: requests wait or fail meanwhile)"
    if settings.container_name:
        message = f"{settings.container_name}: only one container can have the name, old and new run side by side"
        yield _error("container-name", f"{where}.container_name", message, way_out)
    room = 2 * max(settings.replicas, 1)
    for index, port in enumerate(raw.get("ports") or ()):
        if 0 < _host_ports(port) < room:
            yield _error(
                "published-port", f"{where}.ports[{index}]",
                f"host port {port['published']} can be held by one container, old and new run side by side",
                "remove it: the proxy reaches the service on its network, port and all; or use strategy: recreate",
            )  # fmt: skip
    for key, network in (raw.get("networks") or {}).items():
        for fixed in ("ipv4_address", "ipv6_address", "mac_address"):
            if (network or {}).get(fixed):
                message = f"{network[fixed]}: only one container can have the address"
                yield _error("fixed-address", f"{where}.networks.{key}.{fixed}", message, way_out)
    if raw.get("mac_address"):
        message = f"{raw['mac_address']}: only one container can have the address"
        yield _error("fixed-address", f"{where}.mac_address", message, way_out)


def _empties_the_pool(settings: ServiceSettings) -> Iterator[Finding]:
    update = settings.update
    if settings.strategy is not Strategy.ROLLING or update.order is not Order.STOP_FIRST:
        return
    if settings.replicas > 0 and not 0 < update.parallelism < settings.replicas:
        yield _error(
            "stop-first-empties", f"services.{settings.name}.deploy.update_config.order",
            f"stop-first with parallelism {update.parallelism} stops all {settings.replicas} replicas before a new one "
            "serves",
            "use order: start-first, or a parallelism below replicas; or strategy: recreate if that is meant",
        )  # fmt: skip


def _recreate_only(settings: ServiceSettings, raw: Raw) -> Iterator[Finding]:
    where = f"services.{settings.name}"
    if settings.keep_warm > 0:
        yield _error(
            "keep-warm-recreate", f"{where}.x-rollout.keep_warm",
            "recreate stops the old replicas before the new ones start: there is nothing to keep warm",
            "remove keep_warm, or use strategy: rolling or blue-green",
        )  # fmt: skip
    if settings.replicas > 1 and settings.container_name:
        message = f"{settings.container_name}: only one container can have the name, not {settings.replicas} replicas"
        yield _error("container-name", f"{where}.container_name", message, "remove it, or write replicas: 1")
    for index, port in enumerate(raw.get("ports") or ()):
        if 0 < _host_ports(port) < settings.replicas:
            message = f"host port {port['published']} can be held by one container, not {settings.replicas} replicas"
            yield _error(
                "published-port", f"{where}.ports[{index}]", message, "remove it: the proxy needs no host port"
            )


def _warnings(settings: ServiceSettings, raw: Raw) -> Iterator[Finding]:
    where = f"services.{settings.name}"
    if settings.health.implied:
        yield _warning(
            "no-health-check", where,
            f"no health check: that port {settings.port} accepts a TCP connection is all that is checked, unless the "
            "image has a HEALTHCHECK",
            "x-rollout: { health: { path: /healthz } }, or a Compose healthcheck",
        )  # fmt: skip
    for hook in ("post_start", "pre_stop"):
        if raw.get(hook):
            yield _warning(
                "compose-hook", f"{where}.{hook}",
                "Compose runs it only for containers that Compose starts or stops itself: the engine does that here",
                "x-rollout.hooks.pre_stop" if hook == "pre_stop" else "do it in the image's entrypoint",
            )  # fmt: skip
    if settings.strategy is Strategy.RECREATE:
        return
    written = [target for target in map(_written, raw.get("volumes") or ()) if target]
    program = re.split(r"[:@]", settings.image.rsplit("/", 1)[-1])[0]
    if written and program in SINGLE_WRITERS:
        yield _warning(
            "single-writer", where,
            f"{program} looks like a program that must be alone on its data, and old and new both write {written[0]}",
            "use strategy: recreate, or do not deploy it with rollout",
        )  # fmt: skip
    elif written:
        yield _warning(
            "shared-volume", where, f"old and new replicas write to {', '.join(written)} at the same time for a while",
            "mount it read-only if it is only read; use strategy: recreate if only one may write",
        )  # fmt: skip


def _written(mount: object) -> str:
    """The target of a named volume or host directory that is mounted for writing; empty for any other mount."""
    if not isinstance(mount, Mapping) or mount.get("read_only") or mount.get("type") not in {"volume", "bind"}:
        return ""
    source = str(mount.get("source") or "")
    return str(mount.get("target")) if source and not source.endswith(".sock") else ""


def _host_ports(port: object) -> int:
    """How many host ports an entry may choose from: 0 when the engine picks any."""
    published = str(port.get("published") or "") if isinstance(port, Mapping) else ""
    low, _, high = published.partition("-")
    if not low.isdigit() or int(low) == 0:
        return 0
    return int(high) - int(low) + 1 if high.isdigit() else 1


def _error(code: str, where: str, message: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, where, message, fix)


def _warning(code: str, where: str, message: str, fix: str) -> Finding:
    return Finding(Severity.WARNING, code, where, message, fix)
