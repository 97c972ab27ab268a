"""What Compose says on stderr, turned into our errors: its own words kept, with where and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rollout.errors import (
    BuildFailed,
    ComposeError,
    DeployFailed,
    EngineError,
    Fault,
    ImageNotFound,
    RolloutError,
    SpecError,
    UsageError,
)

_LOG_LINE = re.compile(r'^(?:time="[^"]*" )?level=(\w+) msg="((?:[^"\\]|\\.)*)"')
_PROGRESS = re.compile(r"^ *(Container|Network|Volume|Image) \S+ +\w+$")
_NO_ENGINE = re.compile(
    r"Cannot connect to the Docker daemon|error during connect|docker daemon is not running"
    r"|permission denied while trying to connect|failed to connect to the docker API",
    re.IGNORECASE,
)
_NO_CONTEXT = re.compile(r"context not found|context \S+: .*no such file", re.IGNORECASE)
_NO_IMAGE = re.compile(r"no such image|manifest unknown|pull access denied|repository does not exist", re.IGNORECASE)
_TOO_OLD = re.compile(
    r"unknown (?:shorthand )?flag|unknown command|Unsupported config option for|is not a docker command"
)
_YAML_PATH = re.compile(r"\b((?:services|networks|volumes|configs|secrets)\.[\w.\-\[\]]*[\w\]])")
# what follows is the value itself, a password maybe
_VALUE_TOLD = re.compile(r"(invalid interpolation format for \S+?\.)(?= |$).*", re.DOTALL)
_FILE = re.compile(r"(/[^\s:]+)")

# what Compose's words hold → what to do about it
_HINTS = (
    (r"no configuration file provided", "run it in the project's directory, or name the file with -f"),
    (r"required variable (\S+) is missing", r"export \1, or set it in .env"),
    (
        r"env file|no such file|Couldn't find env file",
        "check the path; those of -f and --env-file start where you are, those in a Compose file beside that file",
    ),
    (r"Additional property (.+?) is not allowed", r"Compose does not know \1 there; is it a typing error?"),
    (r"invalid interpolation format", "write $$ for a dollar sign that is meant, ${NAME} for a variable"),
    (r"already defined at line", "remove one of the two"),
    (r"(?:^|\s)yaml: ", "check indentation, quotes and brackets near that line"),
    (r"permission denied", "run it as a user who may read that file"),
    (r"depends on undefined service", "define that service, or remove it from depends_on"),
    (r"refers to undefined (\w+)", r"declare it at the top level of the Compose file"),
    (r"failed to cast|invalid type|must be a", "check the value's type"),
)


def warnings(stderr: str) -> tuple[str, ...]:
    """Compose's warnings, each once (a variable that is not set, an obsolete key)."""
    found = [m[2].replace('\\"', '"') for m in map(_LOG_LINE.match, stderr.splitlines()) if m and m[1] == "warning"]
    return tuple(dict.fromkeys(found))


def said(output: str) -> list[str]:
    """Compose's own lines without its log and progress lines."""
    return [
        line.strip()
        for line in output.splitlines()
        if line.strip() and not _LOG_LINE.match(line) and not _PROGRESS.match(line)
    ]


def config_error(stderr: str, files: Sequence[str] = ()) -> RolloutError:
    """`docker compose config` failed: nearly always the user's file, one of `files`."""
    told = " ".join(said(stderr)) or "docker compose config failed without a word"
    message = _VALUE_TOLD.sub(r"\1", told)
    if _TOO_OLD.search(message):
        return _too_old(message)
    if _NO_ENGINE.search(message):
        return _no_engine(message)
    if _NO_CONTEXT.search(message):
        hint = "see `docker context ls`; unset DOCKER_CONTEXT"
        return EngineError(f"the Docker context does not exist: {message}", hint=hint)
    named = _YAML_PATH.search(message) or _FILE.search(message)
    where = named[1] if named else ", ".join(files) or "compose"  # a YAML parser's words name no file
    hint = "`docker compose config` shows the same error"
    for pattern, way_out in _HINTS:
        found = re.search(pattern, message)
        if found:
            hint = found.expand(way_out)
            break
    return SpecError([Fault(where, message, hint)])


def command_error(what: str, service: str, output: str) -> RolloutError:
    """`docker compose up|pull|build` failed for a service; `output` is what it printed."""
    lines = said(output)
    message = lines[-1] if lines else "it ended without a word"
    details = tuple(lines[-20:])
    if _NO_ENGINE.search(message):
        return _no_engine(message)
    if _TOO_OLD.search(message):
        return _too_old(message)
    if "no such service" in message:
        return UsageError(f"Compose knows no service {service}", hint="`docker compose config --services` lists them")
    if what == "pull":
        hint = "check the name and tag, the network, and `docker login`"
        return ImageNotFound(f"the image of {service} could not be pulled: {message}", hint=hint, details=details)
    if what == "up" and _NO_IMAGE.search(message):
        hint = "pull it (`--pull missing`) or build it (`--build`)"
        return ImageNotFound(f"the image of {service} is not here: {message}", hint=hint)
    if "cannot start a paused container" in message:
        hint = f"`docker unpause` or remove the paused container of {service} or of what it depends on"
        return ComposeError(f"Compose will not create beside a paused container: {message}", hint=hint)
    if what in ("build", "run"):
        failed = BuildFailed(f"the image of {service} could not be built: {message}", details=details)
        return failed if what == "build" else DeployFailed(f"it could not be started: {message}", details=details)
    doing = {"up": "create a container of"}.get(what, what)
    return ComposeError(f"Compose could not {doing} {service}: {message}", details=details)


def _no_engine(message: str) -> EngineError:
    if "permission denied" in message:
        return EngineError(f"the engine refuses us: {message}", hint="run as root or as a member of the group docker")
    return EngineError(
        f"the Docker engine does not answer: {message}", hint="is it running? are DOCKER_HOST and DOCKER_CONTEXT right?"
    )


def _too_old(message: str) -> ComposeError:
    from rollout.compose.find import INSTALL_HINT

    return ComposeError(f"this Docker Compose is too old: {message}", hint=INSTALL_HINT)
