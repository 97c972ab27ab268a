"""`docker rollout …`: the program as a Docker CLI plugin, and `docker rollout SERVICE` with docker-rollout's flags."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from rollout import __version__
from rollout.cli import run
from rollout.cli.deploy import deploy
from rollout.cli.options import as_seconds, plugin_options
from rollout.cli.program import VERBS, program
from rollout.cli.session import session

if TYPE_CHECKING:
    from rollout.model import ServiceSettings

HANDSHAKE = "docker-cli-plugin-metadata"
METADATA = {
    "SchemaVersion": "0.1.0",
    "Vendor": "rollout contributors",
    "Version": f"v{__version__}",
    "ShortDescription": "Deploy Compose services without losing a request",
}
# the Docker CLI's own flags before the word `rollout`, and the variables that say the same
DOCKER_FLAGS = {"--context": "DOCKER_CONTEXT", "-c": "DOCKER_CONTEXT", "--host": "DOCKER_HOST", "-H": "DOCKER_HOST",
                "--config": "DOCKER_CONFIG"}  # fmt: skip


def plugin(argv: Sequence[str]) -> int:
    """`argv` as the Docker CLI hands it over: its own flags, `rollout`, ours."""
    if argv[:1] == [HANDSHAKE]:
        click.echo(json.dumps(METADATA))
        return 0
    ours = _docker_flags_taken(list(argv))
    word = _first_word(ours)
    if word in VERBS or (word is None and set(ours) <= {"-h", "--help"}):
        return run(program, ours, "docker rollout")
    return run(compatible, ours, "docker rollout")


_time = partial(click.option, metavar="SECONDS", callback=as_seconds)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("service")
@_time("-t", "--timeout", help="Time to become healthy.  [default: as in x-rollout]")
@_time("-w", "--wait", help="Time to stay up where there is no health check.")
@_time("--wait-after-healthy", help="Time to stay healthy before taking traffic.")
@click.option("--pre-stop-hook", metavar="COMMAND", help="Not supported: see above.")
@plugin_options
@click.version_option(__version__, "-v", "--version", message="rollout %(version)s")
@click.pass_context
def compatible(
    ctx: click.Context,
    service: str,
    timeout: float | None,
    wait: float | None,
    wait_after_healthy: float | None,
    pre_stop_hook: str | None,
) -> None:
    """Deploy SERVICE: what `rollout deploy SERVICE` does, with the flags of docker-rollout.

    Old containers leave the proxy's pool and are drained by measurement before they are stopped, so no hook is needed
    for that; `x-rollout.hooks.pre_stop` runs a command before each stop. `docker rollout --help` without SERVICE lists
    the other commands.
    """
    if pre_stop_hook is not None:
        from rollout.errors import UsageError

        raise UsageError(
            "--pre-stop-hook is not supported",
            hint="leave it out: old containers are drained before they are stopped; or use x-rollout.hooks.pre_stop",
        )
    from rollout.wishes import Wishes

    with session(ctx) as running:
        patient = any(given is not None for given in (timeout, wait, wait_after_healthy))
        change = _patience(timeout, wait, wait_after_healthy) if patient else None
        deploy(running, (service,), Wishes(change=change))


def _patience(
    timeout: float | None, wait: float | None, after: float | None
) -> Callable[[ServiceSettings], ServiceSettings]:
    """What these times make of a service's settings; it raises UsageError where the file's would be refused."""

    def change(settings: ServiceSettings) -> ServiceSettings:
        health, progress_deadline = settings.health, settings.progress_deadline
        if timeout is not None:
            health = replace(health, healthy_deadline=timeout)
            progress_deadline = max(progress_deadline, 2 * timeout)
        if after is not None:
            health = replace(health, min_healthy_time=after)
        elif wait is not None and health.implied:
            health = replace(health, min_healthy_time=wait)
        changed = replace(settings, health=health, progress_deadline=progress_deadline)
        _refuse_times_of(changed)
        return changed

    return change


def _refuse_times_of(settings: ServiceSettings) -> None:
    from rollout.errors import UsageError
    from rollout.spec.faults import Faults
    from rollout.spec.service import check_times

    faults = Faults()
    check_times(settings, ("services", settings.name), faults)
    if faults.found:
        raise UsageError(
            "the times asked for do not go together with the others of the service",
            hint="give another --timeout (healthy_deadline), or --wait or --wait-after-healthy (min_healthy_time)",
            details=[str(fault) for fault in faults.as_errors()],
        )


def _docker_flags_taken(argv: list[str]) -> list[str]:
    """What follows the word `rollout`; Docker's flags before it are put where the SDK and Compose look for them."""
    if "rollout" not in argv:
        return argv
    at = argv.index("rollout")
    before = argv[:at]
    for position, word in enumerate(before):
        flag, _, value = word.partition("=")
        if flag in DOCKER_FLAGS:
            os.environ[DOCKER_FLAGS[flag]] = value or (before[position + 1] if position + 1 < len(before) else "")
    return argv[at + 1 :]


def _first_word(argv: Sequence[str]) -> str | None:
    """The first that is neither an option nor the value of one."""
    takes_value = {name for p in (*compatible.params, *program.params) if isinstance(p, click.Option) and not p.is_flag
                   for name in p.opts}  # fmt: skip
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word in takes_value:
            skip = True
        elif not word.startswith("-"):
            return word
    return None
