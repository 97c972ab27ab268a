"""A configuration that the proxy can start with, written before it runs: the pools in force, or what runs now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.errors import Fault, ProxyUnreachable, SpecError
from rollout.events import Notice, Sink
from rollout.model import Pool, ServiceSettings, Upstream
from rollout.steps.run import upstream_name
from rollout.wiring import Wired

if TYPE_CHECKING:
    from rollout.engines.docker import ContainerProcess


def make_loadable(wired: Wired, emit: Sink) -> None:
    """At the first start of a project: its proxy waits for this. Nothing when every service has its pool there."""
    directory = Path(wired.project.proxy.config)
    if directory.parent.is_dir():
        directory.mkdir(exist_ok=True)
    missing = [name for name in wired.project.services if wired.proxy.pool(name) is None]
    if missing:
        write_initial(wired)
        emit(Notice("", f"wrote a configuration for {', '.join(missing)}: the proxy can start with it"))


def write_initial(wired: Wired) -> None:
    """The configuration with the pools in force, or what runs where there are none; a service that has no replica
    answers 503. Raises SpecError, ProxyRejected, StateError."""
    from rollout.proxies.nginx import Nginx

    pools = [_pool(wired, settings) for settings in wired.project.services.values()]
    if isinstance(wired.proxy, Nginx):
        wired.proxy.write_initial(pools, seen_at(wired))
    else:
        wired.proxy.write_initial(pools)


def _pool(wired: Wired, settings: ServiceSettings) -> Pool:
    known = wired.proxy.pool(settings.name)
    if known is not None and known.upstreams:
        return known.with_upstreams(known.upstreams)
    try:
        network = wired.proxy.network(settings)
    except ProxyUnreachable:
        network = settings.networks[0] if settings.networks else ""
    running = [r for r in wired.ports.engine.replicas(settings.name) if r.running and r.addresses.get(network)]
    upstreams = tuple(Upstream(upstream_name(r), r.addresses[network], settings.port) for r in running)
    return Pool(settings.name, upstreams, settings.pool)


def seen_at(wired: Wired) -> str:
    """Where the proxy will see the config directory: as the Compose file mounts it, or the container that it names;
    the same path on this host. Empty when the Compose file does not say. Raises SpecError, ProxyUnreachable."""
    from rollout.engines.docker import ContainerProcess

    proxy = wired.project.proxy
    if proxy.host:
        return proxy.config
    if not proxy.service:
        assert isinstance(wired.process, ContainerProcess)
        return _seen_by(wired.process, proxy.config)
    mounts = (wired.loaded.document["services"][proxy.service] or {}).get("volumes") or ()
    config = Path(proxy.config)
    for mount in mounts:
        source = Path(str(mount.get("source") or "/nowhere")) if isinstance(mount, Mapping) else Path("/nowhere")
        if mount.get("type") == "bind" and config.is_relative_to(source):
            return str(Path(str(mount["target"])) / config.relative_to(source))
    return ""


def _seen_by(container: ContainerProcess, config: str) -> str:
    mount = container.mount_at_rest(config)
    if mount is None or mount.single_file:
        message = f"{container.describe()} does not see {config} as a directory"
        hint = f"make that container anew with it mounted: -v {config}:/etc/nginx/rollout.d:ro"
        raise SpecError([Fault("x-rollout.proxy.config", message, hint)])
    return mount.path.rstrip("/")
