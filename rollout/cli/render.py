"""rollout render"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rollout.cli.options import global_options
from rollout.cli.session import session

if TYPE_CHECKING:
    from rollout.model import Pool, ServiceSettings
    from rollout.wiring import Wired


@click.command()
@global_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Write the proxy's configuration from what runs now, without a reload.

    Also before the proxy runs, so that it can start with files that name its upstreams; a service that has no replica
    yet answers 503.
    """
    with session(ctx) as running, running.project() as wired:
        directory = Path(wired.project.proxy.config)
        before = _contents(directory)
        write_initial(wired)
        now = _contents(directory)
        written = sorted(path for path, text in now.items() if before.get(path) != text)
        running.show({"directory": str(directory), "written": written}, lambda: _text(directory, written))


def write_initial(wired: Wired) -> None:
    """The configuration with the pools in force, or what runs where there are none."""
    from rollout.proxies.nginx import Nginx

    pools = [_pool(wired, settings) for settings in wired.project.services.values()]
    if isinstance(wired.proxy, Nginx):
        wired.proxy.write_initial(pools, seen_at(wired))
    else:
        wired.proxy.write_initial(pools)


def _pool(wired: Wired, settings: ServiceSettings) -> Pool:
    from rollout.errors import ProxyUnreachable
    from rollout.model import Pool, Upstream
    from rollout.steps.run import upstream_name

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
    """Where the proxy's container will see the config directory, as the Compose file mounts it; empty when it does not
    say, or when that is the same path (a proxy on this host)."""
    proxy = wired.project.proxy
    if not proxy.service:
        return proxy.config if proxy.host else ""
    mounts = (wired.loaded.document["services"][proxy.service] or {}).get("volumes") or ()
    config = Path(proxy.config)
    for mount in mounts:
        source = Path(str(mount.get("source") or "/nowhere")) if isinstance(mount, Mapping) else Path("/nowhere")
        if mount.get("type") == "bind" and config.is_relative_to(source):
            return str(Path(str(mount["target"])) / config.relative_to(source))
    return ""


def _contents(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def _text(directory: Path, written: list[str]) -> str:
    if not written:
        return f"{directory} is up to date: nothing was written"
    return "\n".join([f"written in {directory}:", *(f"  {path}" for path in written)])
