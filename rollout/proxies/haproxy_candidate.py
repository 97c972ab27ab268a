"""What a pool's file will be, and whether HAProxy would take it: `haproxy -c` on its own files and rollout's directory
with the candidate in it."""

from __future__ import annotations

import posixpath

from rollout.errors import Fault, ProxyRejected, SpecError
from rollout.model import Pool, ProxySettings
from rollout.ports import ProxyProcess
from rollout.proxies import haproxy_binds
from rollout.proxies.haproxy_config import ConfigDirectory, encode
from rollout.proxies.haproxy_files import CommandLine, parse_config
from rollout.proxies.haproxy_sockets import command_line, config_lines
from rollout.proxies.render import Templates, checked_pool


class Candidates:
    """Renders files and has them tested, each text once."""

    def __init__(self, settings: ProxySettings, process: ProxyProcess, files: ConfigDirectory) -> None:
        self._settings = settings
        self._process = process
        self._files = files
        self._templates = Templates("haproxy", settings.templates)
        self._tested: dict[str, str] = {}  # service -> the text that has passed

    def warm_up(self) -> None:
        self._templates.warm_up()

    def render(self, pool: Pool) -> str:
        """The pool's file. Raises ProxyRejected."""
        pool = checked_pool(pool)
        body = self._templates.render(
            "backend.cfg.j2", service=pool.service, upstreams=pool.upstreams, options=pool.options
        )
        return encode(pool) + body

    def test(self, service: str, text: str) -> None:
        """Raises ProxyRejected with HAProxy's words, SpecError when it does not load rollout's directory at all,
        ProxyUnreachable when it is not running."""
        if self._tested.get(service) == text:
            return
        command = command_line(self._settings, self._process)
        mount = self._process.mount(self._settings.config)
        own = posixpath.normpath(mount.path) if mount else ""
        if not mount or own not in map(posixpath.normpath, command.files):
            raise SpecError([_not_loaded(self._settings.config, own)])
        with self._files.candidate(service, text) as name:
            arguments = []
            for file in command.files:
                arguments += ["-f", posixpath.join(own, name) if posixpath.normpath(file) == own else file]
            result = self._process.exec([command.program, "-c", *arguments])
        if result.exit_code in (126, 127):
            raise ProxyRejected(
                f"{command.program} cannot be run in {self._process.describe()} to test the configuration",
                details=result.output.splitlines(),
            )
        if result.exit_code != 0:
            lines = [line.replace(f"{name}/", "") for line in result.output.splitlines() if line.strip()]
            raise ProxyRejected(f"HAProxy refuses the configuration of {service}", details=lines)
        self._bindable(service, text, command, own)
        self._tested[service] = text

    def _bindable(self, service: str, text: str, command: CommandLine, own: str) -> None:
        before = parse_config(service, self._files.read(service) or "")
        after = parse_config(service, text)
        if not haproxy_binds.ports(after) - haproxy_binds.ports(before):
            return
        loaded = [*before, *config_lines(self._process, command, own)]
        if busy := haproxy_binds.taken(self._process, after, loaded):
            numbers = ", ".join(map(str, busy))
            raise ProxyRejected(
                f"the configuration of {service} listens on port {numbers}, which another program has already",
                hint="a reload would fail, and HAProxy refuses connections while it tries; change the template",
            )


def _not_loaded(directory: str, own: str) -> Fault:
    if not own:
        return Fault("x-rollout.proxy.config", f"the proxy does not see {directory}", "mount that directory into it")
    return Fault(
        "x-rollout.proxy.config", f"HAProxy does not load {own}", f"add `-f {own}` to its command line, as the last one"
    )
