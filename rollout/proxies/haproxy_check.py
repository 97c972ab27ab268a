"""`haproxy -c` on what HAProxy would load: its own files, and rollout's directory with the candidate in it."""

from __future__ import annotations

import posixpath

from rollout.errors import Fault, ProxyRejected, SpecError
from rollout.ports import ProxyProcess
from rollout.proxies.haproxy_config import ConfigDirectory
from rollout.proxies.haproxy_files import CommandLine


def test_candidate(
    process: ProxyProcess, command: CommandLine, files: ConfigDirectory, service: str, text: str
) -> None:
    """Raises ProxyRejected with HAProxy's words, SpecError when it does not load rollout's directory at all."""
    mount = process.mount(str(files.path))
    own = posixpath.normpath(mount.path) if mount else ""
    if not mount or own not in map(posixpath.normpath, command.files):
        raise SpecError([_not_loaded(str(files.path), own)])
    with files.candidate(service, text) as name:
        arguments = []
        for file in command.files:
            is_own = posixpath.normpath(file) == own
            arguments += ["-f", posixpath.join(own, name) if is_own else file]
        result = process.exec([command.program, "-c", *arguments])
    if result.exit_code in (126, 127):
        raise ProxyRejected(
            f"{command.program} cannot be run in {process.describe()} to test the configuration",
            details=result.output.splitlines(),
        )
    if result.exit_code != 0:
        lines = [line.replace(f"{name}/", "") for line in result.output.splitlines() if line.strip()]
        raise ProxyRejected(f"HAProxy refuses the configuration of {service}", details=lines)


def _not_loaded(directory: str, own: str) -> Fault:
    if not own:
        return Fault("x-rollout.proxy.config", f"the proxy does not see {directory}", "mount that directory into it")
    return Fault(
        "x-rollout.proxy.config", f"HAProxy does not load {own}", f"add `-f {own}` to its command line, as the last one"
    )
