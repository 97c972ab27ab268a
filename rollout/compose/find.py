"""Where Compose v2 is on this machine, and which files make up the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.errors import ComposeError
from rollout.paths import absolute, expanded, is_file

SYSTEM_PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
DEFAULT_OVERRIDES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml",
                     "docker-compose.override.yaml")  # fmt: skip
INSTALL_HINT = (
    "install Compose 2.20 or newer: docker-compose-plugin (Docker's packages), docker-compose-v2 (Ubuntu), "
    "docker-compose 2.x (Debian 13)"
)


def find_program(environment: Mapping[str, str], system: Sequence[str] = SYSTEM_PLUGINS) -> tuple[str, ...]:
    """The argv that Compose v2 is called by.

    The plugin's binary itself where there is one: it is a whole program that reads contexts, `DOCKER_HOST` and
    credentials as the Docker CLI does, in half the time; and a plugin is never v1, so its version is not asked.
    Else `docker compose`, else a stand-alone `docker-compose` of v2. Raises ComposeError when there is none.
    """
    for directory in (*_user_plugins(environment), *system):
        plugin = Path(directory, "docker-compose")
        if is_file(plugin) and os.access(plugin, os.X_OK):
            return (str(plugin),)
    path = environment.get("PATH")
    docker = shutil.which("docker", path=path)
    if docker and _major_version((docker, "compose"), environment) >= 2:
        return (docker, "compose")
    standalone = shutil.which("docker-compose", path=path)
    if standalone is None:
        raise ComposeError("there is no Docker Compose here", hint=INSTALL_HINT)
    if _major_version((standalone,), environment) < 2:
        raise ComposeError(f"{standalone} is Compose v1, which rollout cannot use", hint=INSTALL_HINT)
    return (standalone,)


def _user_plugins(environment: Mapping[str, str]) -> list[str]:
    home = environment.get("HOME") or expanded("~")
    config = environment.get("DOCKER_CONFIG") or str(Path(home, ".docker"))
    extra: list[str] = []
    try:
        found = json.loads(Path(config, "config.json").read_text(encoding="utf-8")).get("cliPluginsExtraDirs")
        extra = [d for d in found or [] if isinstance(d, str)]
    except (OSError, ValueError, AttributeError, TypeError):
        pass  # no or odd CLI configuration: Docker's own tools complain about it better than we could
    return [str(Path(config, "cli-plugins")), *extra]


def _major_version(program: Sequence[str], environment: Mapping[str, str]) -> int:
    return version(program, environment)[0]


def version(program: Sequence[str], environment: Mapping[str, str]) -> tuple[int, int]:
    """Major and minor; 0, 0 when it does not say."""
    try:
        ran = subprocess.run(
            [*program, "version", "--short"],
            env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.match(r"v?(\d+)\.(\d+)", ran.stdout.strip())
    return (int(found[1]), int(found[2])) if ran.returncode == 0 and found else (0, 0)


def find_files(
    files: Sequence[str], env_files: Sequence[str], environment: Mapping[str, str], cwd: str, directory: str = ""
) -> tuple[str, ...]:
    """The project's Compose files by Compose's own rules: `-f`, else COMPOSE_FILE (also from `.env`), else the
    default names in `directory` (`--project-directory`; default: here) or in a parent of it. Absolute; `-` stays `-`;
    empty when there are none."""
    named = list(files) or _split_files(environment.get("COMPOSE_FILE", ""), environment)
    if not named:
        found = _search_upwards(absolute(directory, cwd))
        base = directory or (str(Path(found[0]).parent) if found else "")
        said = said_in_env_files(named_env_files(env_files, environment, cwd), absolute(base, cwd), environment)
        named = _split_files(said.get("COMPOSE_FILE", ""), {**said, **environment}) or list(found)
    return tuple(f if f == "-" else absolute(f, cwd) for f in named)


def find_directory(given: str, files: Sequence[str], cwd: str) -> str:
    """The project directory, absolute: `--project-directory`, else the first file's, else here."""
    if given:
        return absolute(given, cwd)
    return str(Path(files[0]).parent) if files and files[0] != "-" else absolute("", cwd)


def named_env_files(given: Sequence[str], environment: Mapping[str, str], cwd: str) -> tuple[str, ...]:
    """The environment files that the user names, absolute: `--env-file`, else COMPOSE_ENV_FILES. Seen from here, not
    from the project directory."""
    named = list(given) or [f for f in environment.get("COMPOSE_ENV_FILES", "").split(",") if f]
    return tuple(absolute(f, cwd) for f in named)


def said_in_env_files(env_files: Sequence[str], directory: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the environment files set, or without any the project directory's `.env`."""
    from rollout.compose.dotenv import dotenv  # its patterns take a while to compile, and Compose works meanwhile

    return dotenv(env_files or (absolute(".env", directory),), environment)


def _split_files(value: str, environment: Mapping[str, str]) -> list[str]:
    return [f for f in value.split(environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep) if f]


def _search_upwards(cwd: str) -> tuple[str, ...]:
    for directory in (Path(cwd), *Path(cwd).parents):
        main = _first_file(directory, DEFAULT_FILES)
        if main:
            override = _first_file(directory, DEFAULT_OVERRIDES)
            return (main, override) if override else (main,)
    return ()


def _first_file(directory: Path, names: Sequence[str]) -> str:
    return next((str(directory / n) for n in names if is_file(directory / n)), "")
