"""What in HAProxy's own configuration loses requests, or keeps `rollout` from working: each with the line to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rollout.model import Finding, ProxySettings, Severity
from rollout.ports import Mount
from rollout.proxies.haproxy_files import CommandLine, Line, seconds
from rollout.proxies.haproxy_sockets import MASTER_ARGUMENT, STATS_SOCKET_LINE, is_network_address

KEEP_ALIVE_LIMIT = 15.0  # seconds an old worker is held by an idle client after a reload
KEEP_ALIVE_LINE = "timeout http-keep-alive 15s"
_TIMEOUTS = {"connect": "2s", "client": "60s", "server": "60s"}
_UNSAFE_RETRIES = ("all-retryable-errors", "empty-response", "junk-response", "response-timeout", "0rtt-rejected")


def lint(
    command: CommandLine,
    lines: Sequence[Line],
    mount: Mount | None,
    settings: ProxySettings,
    host_path: Callable[[str], str | None],
) -> list[Finding]:
    """`lines` of the user's files, `mount` of rollout's directory; in the order in which one would mend them."""
    if not lines:
        where = ", ".join(command.files) or "command line"
        return [
            *_command(command, mount, settings, host_path),
            _warning("haproxy-config-unread", where, "HAProxy's configuration cannot be read, so it was not checked"),
        ]
    return [
        *_command(command, mount, settings, host_path),
        *_stats_socket(lines, settings, host_path),
        *_global(lines),
        *_timeouts(lines),
        *_client_side(lines),
        *_server_side(lines),
    ]


def _command(
    command: CommandLine, mount: Mount | None, settings: ProxySettings, host_path: Callable[[str], str | None]
) -> Iterator[Finding]:
    where = "command line"
    if mount is None:
        yield _error(
            "haproxy-config-mount",
            "x-rollout.proxy.config",
            f"the proxy does not see {settings.config}",
            f'volumes: ["{settings.config}:/etc/haproxy/rollout.d"]',
        )
    elif mount.single_file:
        yield _error(
            "haproxy-config-mount",
            "x-rollout.proxy.config",
            "a single file is mounted: its replacement would never be seen; mount the directory",
            f'volumes: ["{settings.config}:/etc/haproxy/rollout.d"]',
        )
    elif mount.path.rstrip("/") not in [file.rstrip("/") for file in command.files]:
        yield _error("haproxy-config-load", where, "HAProxy does not load rollout's directory", f"-f {mount.path}")
    if not command.master_worker:
        yield _error("haproxy-master-worker", where, "without master-worker mode HAProxy cannot be reloaded", "-W")
    if not command.master_socket and not settings.master_socket:
        yield _error(
            "haproxy-master-socket",
            where,
            "without a master socket a reload has no verdict, and old workers cannot be seen draining",
            MASTER_ARGUMENT,
        )
    elif not settings.master_socket and _unshared(command.master_socket, host_path):
        yield _error(
            "haproxy-master-socket",
            where,
            f"{command.master_socket} is not in a directory shared with this host",
            'volumes: ["./haproxy-run:/var/run/haproxy"]',
        )


def _stats_socket(
    lines: Sequence[Line], settings: ProxySettings, host_path: Callable[[str], str | None]
) -> Iterator[Finding]:
    sockets = [line for line in lines if line.starts("stats", "socket") and len(line.words) > 2]
    if not sockets and not settings.socket:
        yield _error(
            "haproxy-stats-socket", _place(lines, "global"), "HAProxy has no runtime socket", STATS_SOCKET_LINE
        )
    if sockets and not settings.socket and not any(line.after("level") == "admin" for line in sockets):
        line = sockets[0]
        without = [w for w in line.words if w not in ("level", line.after("level"))]
        yield _error(
            "haproxy-stats-socket",
            line.where,
            "the runtime socket may not change servers",
            " ".join([*without, "level", "admin"]),
        )
    for line in sockets:
        if is_network_address(line.words[2]):
            yield _warning(
                "haproxy-stats-socket-tcp",
                line.where,
                "a runtime socket on the network has no authentication: whoever reaches it is admin",
                STATS_SOCKET_LINE,
            )
        elif line.after("level") == "admin" and not settings.socket and _unshared(line.words[2], host_path):
            yield _error(
                "haproxy-stats-socket",
                line.where,
                f"{line.words[2]} is not in a directory shared with this host",
                'volumes: ["./haproxy-run:/var/run/haproxy"]',
            )


def _global(lines: Sequence[Line]) -> Iterator[Finding]:
    for line in lines:
        if line.starts("hard-stop-after"):
            yield _warning(
                "haproxy-hard-stop-after",
                line.where,
                f"{' '.join(line.words)} cuts every stream and WebSocket that old",
                "remove the line: rollout's drain_timeout is the limit",
            )
        elif line.starts("close-spread-time"):
            yield _warning(
                "haproxy-close-spread-time",
                line.where,
                "a reload closes idle clients with a request on its way, and answers 408 to some",
                "remove the line, and write: option idle-close-on-response",
            )


def _timeouts(lines: Sequence[Line]) -> Iterator[Finding]:
    given = {line.words[1] for line in lines if line.starts("timeout") and len(line.words) > 2}
    for name, value in _TIMEOUTS.items():
        if name not in given:
            yield _warning(
                "haproxy-timeout",
                _place(lines, "defaults"),
                f"no `timeout {name}`: a connection can hang for ever, and a drain with it",
                f"timeout {name} {value}",
            )
    if "tunnel" not in given:
        yield _warning(
            "haproxy-timeout-tunnel",
            _place(lines, "defaults"),
            "no `timeout tunnel`: a quiet WebSocket is cut by `timeout client` or `timeout server`",
            "timeout tunnel 1h",
        )
    if "http-keep-alive" not in given:
        # unset, `timeout http-request` stands in for it, and `timeout client` for that
        yield _warning(
            "haproxy-keep-alive",
            _place(lines, "defaults"),
            "no `timeout http-keep-alive`: after a reload an idle client holds an old worker too long",
            KEEP_ALIVE_LINE,
        )
    for line in lines:
        limit = seconds(line.after("http-keep-alive")) if line.starts("timeout", "http-keep-alive") else None
        if limit is not None and limit > KEEP_ALIVE_LIMIT:
            yield _warning(
                "haproxy-keep-alive",
                line.where,
                f"after a reload an idle client holds an old worker, and its servers, for {limit:g} s",
                KEEP_ALIVE_LINE,
            )


def _client_side(lines: Sequence[Line]) -> Iterator[Finding]:
    """`option idle-close-on-response` in every HTTP frontend, from its own section or from the defaults it inherits."""
    latest: list[Line] = []
    named: dict[str, list[Line]] = {}
    for section in _sections(lines):
        head = section[0]
        # `from NAME` picks the defaults, else the last ones written count
        inherited = named.get(head.after("from"), latest) if "from" in head.words else latest
        if head.kind == "defaults":
            latest = section if "from" not in head.words else [*inherited, *section]
            named[head.words[1] if len(head.words) > 1 else ""] = latest
        elif head.kind in ("frontend", "listen") and not _closes_on_response(inherited, section):
            yield _warning(
                "haproxy-idle-close",
                head.where,
                "a reload closes idle client connections while a request is on its way",
                "option idle-close-on-response",
            )


def _server_side(lines: Sequence[Line]) -> Iterator[Finding]:
    for line in lines:
        if line.starts("retry-on") and (unsafe := [w for w in line.words[1:] if w in _UNSAFE_RETRIES]):
            yield _warning(
                "haproxy-retry-post",
                line.where,
                f"`{' '.join(unsafe)}` sends a POST again that may already have been executed",
                "retry-on conn-failure",
            )
        elif line.starts("option", "persist"):
            yield _warning(
                "haproxy-persist",
                line.where,
                "clients with a cookie are sent to their server even when it is out of rotation",
                "option redispatch",
            )
        elif line.starts("http-reuse", "never"):
            yield _warning(
                "haproxy-http-reuse",
                line.where,
                "a connection that the app closes when idle is passed on to the client as a failed request",
                "http-reuse safe",
            )
        elif line.starts("pool-purge-delay") or (line.starts("default-server") and line.kind == "defaults"):
            yield _warning(
                "haproxy-default-server",
                line.where,
                "servers added at run time do not inherit `default-server`: after a reload they would differ",
                "put these options into your own templates/haproxy/backend.cfg.j2",
            )


def _sections(lines: Sequence[Line]) -> Iterator[list[Line]]:
    section: list[Line] = []
    for line in lines:
        if section and (line.section is line.words or line.file != section[0].file):
            yield section
            section = []
        section.append(line)
    if section:
        yield section


def _closes_on_response(inherited: Sequence[Line], section: Sequence[Line]) -> bool:
    modes = [line.words[1] for line in (*inherited, *section) if line.words[0] == "mode" and len(line.words) > 1]
    if not modes or modes[-1] == "tcp":  # HAProxy's own default is tcp, which has no responses
        return True
    return any(line.starts("option", "idle-close-on-response") for line in (*inherited, *section))


def _place(lines: Sequence[Line], section: str) -> str:
    """The section's first line, for what is missing from it."""
    return next((line.where for line in lines if line.words[0] == section), lines[0].file)


def _unshared(address: str, host_path: Callable[[str], str | None]) -> bool:
    return not is_network_address(address) and "$" not in address and host_path(address.removeprefix("unix@")) is None


def _error(code: str, where: str, message: str, fix: str = "") -> Finding:
    return Finding(Severity.ERROR, code, where, message, fix)


def _warning(code: str, where: str, message: str, fix: str = "") -> Finding:
    return Finding(Severity.WARNING, code, where, message, fix)
