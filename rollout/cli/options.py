"""Options that every verb takes, before it or after it, and how they are gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Globals:
    """What the user said for all verbs. Filled by the options' callbacks, wherever on the line they stood."""

    files: list[str] = field(default_factory=list)
    project_name: str = ""
    project_directory: str = ""
    env_files: list[str] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False


def gathered(ctx: click.Context) -> Globals:
    found: Globals = ctx.ensure_object(Globals)
    return found


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    name = str(param.name)
    if isinstance(value, tuple):
        getattr(gathered(ctx), name).extend(value)
    elif value:
        setattr(gathered(ctx), name, value)


def _option(*names: str, **attributes: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_keep, **attributes)


_VERBOSE = "Say more; with a traceback for a fault of rollout's own."
_OPTIONS = (
    _option("-f", "--file", "files", multiple=True, metavar="FILE", help="Compose file; may be given more than once."),
    _option("-p", "--project-name", metavar="NAME", help="Project name."),
    _option("--project-directory", metavar="DIR", help="Project directory."),
    _option("--env-file", "env_files", multiple=True, metavar="FILE", help="Environment file."),
    _option("--profile", "profiles", multiple=True, metavar="NAME", help="Profile to enable."),
    _option("--json", is_flag=True, help="JSON on standard output."),
    _option("-q", "--quiet", is_flag=True, help="Say only what went wrong, and the outcome."),
    _option("-v", "--verbose", is_flag=True, help=_VERBOSE),
    _option("--no-color", is_flag=True, help="No colors (also: NO_COLOR=1)."),
)


# docker-rollout's -v is its version
_OPTIONS_OF_PLUGIN = (*_OPTIONS[:-2], _option("--verbose", is_flag=True, help=_VERBOSE), _OPTIONS[-1])


def global_options(command: F) -> F:
    return _with(command, _OPTIONS)


def plugin_options(command: F) -> F:
    return _with(command, _OPTIONS_OF_PLUGIN)


def _with(command: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def as_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """An option's callback: `30s`, `1m30s`, `500ms`; a bare number is seconds."""
    from rollout.spec.faults import Refused
    from rollout.spec.values import seconds

    if value is None:
        return None
    try:
        bare = value.replace(".", "", 1)
        return float(value) if bare.isascii() and bare.isdecimal() else seconds(value)
    except Refused as error:
        raise click.BadParameter(f"{error.message}; {error.hint}", ctx, param) from error
