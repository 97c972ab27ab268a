"""Where HAProxy's sockets are: as configured, else as its own command line and configuration files say."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import Fault, SpecError
from rollout.model import ProxySettings
from rollout.ports import Clock, ProxyProcess
from rollout.proxies.haproxy_files import CommandLine, Line, parse_command_line, parse_config
from rollout.proxies.haproxy_socket import ControlSocket, Master, Runtime

STATS_SOCKET_LINE = "stats socket /var/run/haproxy/admin.sock mode 660 level admin"
MASTER_ARGUMENT = "-S /var/run/haproxy/master.sock"


@dataclass(frozen=True, slots=True)
class Sockets:
    runtime: Runtime
    master: Master


def command_line(settings: ProxySettings, process: ProxyProcess) -> CommandLine:
    """How HAProxy was started; the settings name what a host's command line does not."""
    found = parse_command_line(process.argv())
    return CommandLine(
        program=settings.binary or found.program,
        files=found.files or ((settings.main_config,) if settings.main_config else ()),
        master_worker=found.master_worker,
        master_socket=found.master_socket,
    )


def config_lines(
    process: ProxyProcess, command: CommandLine, own: str, read: Callable[[str], bytes | None] | None = None
) -> list[Line]:
    """The lines of all its configuration files but those in rollout's `own` directory (a path as the proxy sees it).
    `read`: another way to a file than through the proxy."""
    lines: list[Line] = []
    read = read or process.read
    for path in command.files:
        if posixpath.normpath(path) == posixpath.normpath(own or "/nowhere"):
            continue
        for file in _config_files(process, path):
            text = read(file)
            if text is not None:
                lines += parse_config(file, text.decode("utf-8", "replace"))
    return lines


def find_sockets(settings: ProxySettings, process: ProxyProcess, clock: Clock) -> Sockets:
    """Both sockets, as this process reaches them. Raises SpecError with the lines to add, ProxyUnreachable."""
    runtime, master = settings.socket, settings.master_socket
    faults: list[Fault] = []
    if not runtime or not master:
        command = command_line(settings, process)
        mount = process.mount(settings.config)
        own = mount.path if mount else ""
        if not runtime:
            runtime = _at_once(process, command, own)
        if not runtime:
            runtime = _runtime_address(process, config_lines(process, command, own), faults)
        if not master:
            master = _master_address(process, command, faults)
    if faults:
        raise SpecError(faults)
    return Sockets(Runtime(ControlSocket(runtime, clock)), Master(ControlSocket(master, clock), clock))


def _at_once(process: ProxyProcess, command: CommandLine, own: str) -> str:
    """The runtime socket by the files as this host has them, where there is such a socket: the proxy's own copies take
    the engine 30 ms. A file that was replaced since its mount is another here, so nothing else is believed of it."""

    def here(path: str) -> bytes | None:
        seen = process.host_path(path)
        try:
            return Path(seen).read_bytes() if seen else None
        except OSError:
            return None

    address = _runtime_address(process, config_lines(process, command, own, here), [])
    return address if address and Path(address).is_socket() else ""


def is_network_address(address: str) -> bool:
    """Whether a `stats socket` or `-S` address is reached over the network rather than a file."""
    if address.startswith(("ipv4@", "ipv6@")):
        return True
    return not address.startswith(("/", "unix@", "abns@", "fd@", "sockpair@")) and ":" in address


def _config_files(process: ProxyProcess, path: str) -> list[str]:
    if path.endswith(".cfg"):
        return [path]
    here = process.host_path(path)
    if here is None or not Path(here).is_dir():
        return [path]
    return [posixpath.join(path, file.name) for file in sorted(Path(here).glob("[!.]*.cfg"))]


def _runtime_address(process: ProxyProcess, lines: Sequence[Line], faults: list[Fault]) -> str:
    sockets = [line for line in lines if line.starts("stats", "socket") and len(line.words) > 2]
    admin = [line for line in sockets if line.after("level") == "admin"]
    for line in admin:
        if address := _reachable(process, line.words[2]):
            return address
    if admin:
        message, hint = f"{admin[0].where}: {admin[0].words[2]} is not shared with this host", _SHARE
    elif sockets:
        message, hint = f"{sockets[0].where}: no `level admin`", f"write `{' '.join(sockets[0].words)} level admin`"
    else:
        message, hint = "HAProxy has no runtime socket", f"add to its `global` section: {STATS_SOCKET_LINE}; {_SHARE}"
    faults.append(Fault("x-rollout.proxy.socket", message, hint))
    return ""


def _master_address(process: ProxyProcess, command: CommandLine, faults: list[Fault]) -> str:
    if address := _reachable(process, command.master_socket):
        return address
    message = "HAProxy has no master socket"
    hint = f"start it with: haproxy -W -db {MASTER_ARGUMENT} -f … ; {_SHARE}"
    if command.master_socket:
        message, hint = f"the master socket {command.master_socket} is not shared with this host", _SHARE
    faults.append(Fault("x-rollout.proxy.master_socket", message, hint))
    return ""


def _reachable(process: ProxyProcess, address: str) -> str:
    if not address or "$" in address:
        return ""
    if is_network_address(address):
        host, _, port = address.removeprefix("ipv4@").removeprefix("ipv6@").rpartition(":")
        if host in ("", "*", "0.0.0.0", "::", "[::]"):  # noqa: S104  # theirs, not ours
            host = next(iter(process.networks().values()), "127.0.0.1") or "127.0.0.1"
        return f"tcp:{host}:{port}" if port.isdigit() else ""
    return process.host_path(address.removeprefix("unix@")) or ""


_SHARE = (
    'keep it in a directory that is mounted from the host, e.g. volumes: ["./haproxy-run:/var/run/haproxy"],'
    " or name it in the Compose file (x-rollout.proxy.socket, master_socket)"
)
