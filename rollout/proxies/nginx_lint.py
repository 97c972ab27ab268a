"""What in a running nginx's configuration loses requests at a reload, each with the line to write instead."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from rollout.model import Finding, Severity
from rollout.proxies.nginx_config import Directive, LoadedConfig, seconds

MIN_TIMEOUT_SINCE = (1, 27, 4)  # keepalive_min_timeout
POOLS_SINCE = (1, 29, 7)  # connections to upstreams are kept without being asked for
_DEFAULT_KEEPALIVE = "75s"
_DEFAULT_CONNECT = "60s"
LONGEST_CONNECT = 5.0  # seconds; clients wait no longer for long


def lint(config: LoadedConfig, directory: str, upstreams: Collection[str]) -> list[Finding]:
    """The findings about the user's own files. `directory` is rollout's, whose files are left out; `upstreams` are the
    names that rollout renders."""
    found = [
        *_keepalive(config, directory),
        *_listeners(config, directory),
        *_http3(config),
        *_default_server(config, directory),
        *_timeouts(config),
        *_upstreams(config, directory),
        *_retries(config),
        *_proxied(config, directory, upstreams),
        *_connecting(config, directory, upstreams),
    ]
    return list(dict.fromkeys(found))


def _warning(code: str, where: str, message: str, fix: str = "") -> Finding:
    return Finding(Severity.WARNING, code, where, message, fix)


# --- client connections ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Keepalive:
    """What is in force for a block: the time, the minimum through a reload, where the time was set, and whether HTTP/2
    is spoken."""

    timeout: str = _DEFAULT_KEEPALIVE
    minimum: str = "0"
    where: str = ""
    http2: bool = False

    @property
    def lossy(self) -> bool:
        return seconds(self.timeout) > seconds(self.minimum)


def _keepalive(config: LoadedConfig, directory: str) -> Iterator[Finding]:
    for http in _blocks(config, "http"):
        outer = _in_force(config, http, _Keepalive(where=http.where))
        for server in _children(config, http, "server"):
            if not server.file.startswith(f"{directory}/"):
                yield from _lossy(config, server, outer)
                yield from _one_request(config, server, outer)


def _lossy(config: LoadedConfig, block: Directive, outer: _Keepalive) -> Iterator[Finding]:
    found = _in_force(config, block, outer)
    if found.lossy:
        yield _keepalive_finding(config, found)
    for location in _children(config, block, "location"):
        inner = _in_force(config, location, found)
        if inner != found:
            yield from _lossy(config, location, found)


def _one_request(config: LoadedConfig, server: Directive, outer: _Keepalive) -> Iterator[Finding]:
    """HTTP/2 where no connection outlives a request: nginx says GOAWAY with the first (docs/guarantees.md)."""
    found = _in_force(config, server, outer)
    if found.http2 and seconds(found.timeout) == 0:
        message = (
            "with keepalive_timeout 0, nginx ends an HTTP/2 connection at its first request: clients send what came "
            "with it again, and an upload may begin again and again"
        )
        newer = config.version >= MIN_TIMEOUT_SINCE
        fix = "keepalive_timeout 15s; keepalive_min_timeout 15s;" if newer else ""
        hint = "" if newer else "; nginx 1.27.4 has keepalive_min_timeout for it"
        yield _warning("nginx-http2-keepalive", found.where, message + hint, fix)


def _in_force(config: LoadedConfig, block: Directive, outer: _Keepalive) -> _Keepalive:
    for directive in config.tree(block.block or ()):
        if directive.name == "keepalive_timeout" and directive.args:
            outer = replace(outer, timeout=directive.args[0], where=directive.where)
        elif directive.name == "keepalive_min_timeout" and directive.args:
            outer = replace(outer, minimum=directive.args[0])
        elif directive.name == "http2":
            outer = replace(outer, http2=[arg.lower() for arg in directive.args] == ["on"])
        elif directive.name == "listen" and "http2" in directive.args:
            outer = replace(outer, http2=True)
    return outer


def _keepalive_finding(config: LoadedConfig, found: _Keepalive) -> Finding:
    lost = "a reload closes idle client connections while a request may be on its way to them"
    if config.version >= MIN_TIMEOUT_SINCE:
        message = f"{lost}: keepalive_timeout is {found.timeout}, keepalive_min_timeout {found.minimum}"
        kept = found.timeout if found.timeout != _DEFAULT_KEEPALIVE else "15s"
        fix = f"keepalive_timeout {kept}; keepalive_min_timeout {kept};"
        return _warning("nginx-keepalive", found.where, message, fix)
    version = ".".join(map(str, config.version))
    message = f"{lost}; nginx {version} cannot be told to wait for it (1.27.4 can, with keepalive_min_timeout)"
    return _warning("nginx-keepalive", found.where, message, "keepalive_timeout 0;")


# --- the rest --------------------------------------------------------------------------------------------------


def _listeners(config: LoadedConfig, directory: str) -> Iterator[Finding]:
    counts = [d for d in config.tree() if d.name == "worker_processes"]
    if counts and counts[-1].args != ("auto",):
        return
    for directive in config.walk():
        if directive.name == "listen" and "reuseport" in directive.args and not directive.file.startswith(directory):
            yield _warning(
                "nginx-reuseport",
                directive.where,
                "with reuseport, connections are lost when a reload changes the number of workers, and "
                "`worker_processes auto` changes it with the CPUs",
                "listen " + " ".join(arg for arg in directive.args if arg != "reuseport") + ";",
            )


def _http3(config: LoadedConfig) -> Iterator[Finding]:
    """Measured: docs/guarantees.md."""
    for directive in config.walk():
        if directive.name == "listen" and "quic" in directive.args:
            yield _warning(
                "nginx-http3",
                directive.where,
                "every reload cuts requests that are under way over HTTP/3: their packets reach a new worker, which "
                "does not know the connection",
                "# (remove this listen, and the Alt-Svc header that leads to it)",
            )


def _default_server(config: LoadedConfig, directory: str) -> Iterator[Finding]:
    """rollout's include stands first, so without a `default_server` its virtual hosts would take unknown names."""
    ours: set[str] = set()
    users: dict[str, Directive] = {}
    chosen: set[str] = set()
    for http in _blocks(config, "http"):
        for server in _children(config, http, "server"):
            for listen in (d for d in config.tree(server.block or ()) if d.name == "listen" and d.args):
                if {"default_server", "default"} & set(listen.args):
                    chosen.add(listen.args[0])
                if server.file.startswith(f"{directory}/"):
                    ours.add(listen.args[0])
                else:
                    users.setdefault(listen.args[0], listen)
    for address in sorted((ours & users.keys()) - chosen):
        yield _warning(
            "nginx-default-server",
            users[address].where,
            f"requests to {address} for unknown names go to the first server, which is now one that rollout renders",
            f"listen {' '.join(users[address].args)} default_server;",
        )


def _timeouts(config: LoadedConfig) -> Iterator[Finding]:
    for directive in config.tree():
        if directive.name == "worker_shutdown_timeout" and seconds(" ".join(directive.args)) > 0:
            yield _warning(
                "nginx-worker-shutdown-timeout",
                directive.where,
                f"every reload cuts downloads, streams and WebSockets after {' '.join(directive.args)}; "
                "rollout's drain_timeout bounds a drain without cutting other services",
                "# (remove worker_shutdown_timeout)",
            )


def _upstreams(config: LoadedConfig, directory: str) -> Iterator[Finding]:
    for http in _blocks(config, "http"):
        for upstream in _children(config, http, "upstream"):
            if upstream.file.startswith(f"{directory}/"):
                continue
            servers = [d for d in config.tree(upstream.block or ()) if d.name == "server"]
            for server in servers if len(servers) > 1 else ():
                if not any(arg.startswith("max_fails=") for arg in server.args):
                    yield _warning(
                        "nginx-max-fails",
                        server.where,
                        "one failed request takes this server out for 10 s (max_fails=1 is the default)",
                        f"server {' '.join(server.args)} max_fails=0;",
                    )


def _retries(config: LoadedConfig) -> Iterator[Finding]:
    for directive in config.walk():
        if directive.name.endswith("_next_upstream") and "non_idempotent" in directive.args:
            rest = " ".join(arg for arg in directive.args if arg != "non_idempotent")
            yield _warning(
                "nginx-retry-post",
                directive.where,
                "a POST whose connection breaks is sent again: the application may execute it twice",
                f"{directive.name} {rest};",
            )


_Http = tuple[str, bool]  # the version spoken to upstreams, and whether a Connection header is set


def _proxied(config: LoadedConfig, directory: str, upstreams: Collection[str]) -> Iterator[Finding]:
    if config.version >= POOLS_SINCE:
        return
    for http in _blocks(config, "http"):
        if not http.file.startswith(f"{directory}/"):
            yield from _unpooled(config, http, ("1.0", False), upstreams, directory)


def _unpooled(
    config: LoadedConfig, block: Directive, outer: _Http, upstreams: Collection[str], directory: str
) -> Iterator[Finding]:
    version, header = outer
    inner = list(config.tree(block.block or ()))
    if any(d.name == "proxy_set_header" for d in inner):
        header = any(d.name == "proxy_set_header" and d.args[0].lower() == "connection" for d in inner if d.args)
    version = next((d.args[0] for d in inner if d.name == "proxy_http_version" and d.args), version)
    for directive in inner:
        if _passes_to(directive, upstreams) and (version, header) != ("1.1", True):
            if not directive.file.startswith(f"{directory}/"):
                yield _warning(
                    "nginx-upstream-http",
                    directive.where,
                    "every request opens a new connection to the upstream, and WebSockets do not pass",
                    "proxy_http_version 1.1; proxy_set_header Connection $rollout_connection; "
                    "proxy_set_header Upgrade $http_upgrade;",
                )
        elif directive.block is not None:
            yield from _unpooled(config, directive, (version, header), upstreams, directory)


def _connecting(config: LoadedConfig, directory: str, upstreams: Collection[str]) -> Iterator[Finding]:
    """Told once: where it is missing it is missing for every service, and one line mends them all."""
    for http in _blocks(config, "http"):
        slow = _slow_to_give_up(config, http, _DEFAULT_CONNECT, upstreams)
        first = next((one for one in slow if not one[0].startswith(f"{directory}/")), None)
        if first is not None:
            where, limit = first
            message = f"a request to a replica that has just died waits {limit} before another is asked"
            yield _warning("nginx-connect-timeout", where, message, "proxy_connect_timeout 1s;")


def _slow_to_give_up(
    config: LoadedConfig, block: Directive, outer: str, upstreams: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Each place that passes requests to one of `upstreams`, with its limit."""
    inner = list(config.tree(block.block or ()))
    limit = next((d.args[0] for d in inner if d.name == "proxy_connect_timeout" and d.args), outer)
    for directive in inner:
        if directive.block is not None:
            yield from _slow_to_give_up(config, directive, limit, upstreams)
        elif _passes_to(directive, upstreams) and seconds(limit) > LONGEST_CONNECT:
            yield directive.where, limit


def _passes_to(directive: Directive, upstreams: Collection[str]) -> bool:
    return directive.name == "proxy_pass" and bool(directive.args) and _upstream_of(directive.args[0]) in upstreams


def _upstream_of(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _blocks(config: LoadedConfig, name: str) -> Iterator[Directive]:
    return (d for d in config.tree() if d.name == name and d.block is not None)


def _children(config: LoadedConfig, block: Directive, name: str) -> Iterator[Directive]:
    return (d for d in config.tree(block.block or ()) if d.name == name and d.block is not None)
