"""Compose as `rollout` uses it: load the project, create containers, pull, build."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rollout.compose import find, words
from rollout.compose.dependencies import counted, counts_hold, dependencies
from rollout.compose.document import parse
from rollout.compose.lossy import lost_lines
from rollout.compose.pin import never_pulled
from rollout.compose.process import Output, Process
from rollout.errors import Interrupted, UsageError

ALL_PROFILES = "*"
LOAD_TIMEOUT = 120.0
CREATE_TIMEOUT = 120.0
PULL_TIMEOUT = 1800.0
BUILD_TIMEOUT = 3600.0

# Set by the Docker CLI for the plugin it runs (us), not by the user; Compose would take them for its own.
_PLUGIN_VARIABLES = "DOCKER_CLI_PLUGIN_"

# For the Go program that Compose is, unless the user says otherwise: it ends before collecting garbage is worth it, and
# that takes 6 of the 43 ms of a creation.
_QUICK = {"GOGC": "800"}


@dataclass(frozen=True, slots=True)
class Options:
    """Compose's global flags, as the user gave them."""

    files: tuple[str, ...] = ()
    project_name: str = ""
    project_directory: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A project as Compose resolved it.

    `config` is the YAML text, good for `create` later even when the files have changed; `document` the same as plain
    values. `hashes` are the `com.docker.compose.config-hash` labels that containers created now get, by service.
    """

    name: str
    directory: str  # absolute
    config: str
    document: Mapping[str, Any]
    hashes: Mapping[str, str]
    files: tuple[str, ...] = ()  # the user's own, absolute: where faults are looked up
    warnings: tuple[str, ...] = ()
    lossy: tuple[tuple[str | int, ...], ...] = ()  # places of texts that Compose has not written out whole
    from_files: bool = True  # False: from a text that was handed in; the files may say something else


class Compose:
    """Docker Compose v2 for one project. Runs its own processes; safe to use from several threads."""

    def __init__(
        self,
        options: Options = Options(),
        *,
        environment: Mapping[str, str] | None = None,
        cwd: str | None = None,
        keep_open: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        """`environment` (default: ours) reaches Compose as it is, `cwd` (default: here) is where it runs. `keep_open`
        are files that it inherits while it creates containers: a lock among them is held until it has ended."""
        self._keep_open = keep_open
        given = os.environ if environment is None else environment
        self._options = options
        self._environment = {**_QUICK, **{k: v for k, v in given.items() if not k.startswith(_PLUGIN_VARIABLES)}}
        self._cwd = cwd or _here()
        self._loaded: LoadedProject | None = None
        self._abandoned = threading.Event()
        self._fetching: Process | None = None

    @cached_property
    def program(self) -> tuple[str, ...]:
        """The argv Compose is called by. Raises ComposeError when there is no Compose v2."""
        return find.find_program(self._environment)

    def version(self) -> tuple[int, int]:
        """Major and minor; 0, 0 when it does not say. Takes a process of its own."""
        return find.version(self.program, self._environment)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The project's Compose files, absolute."""
        options = self._options
        return find.find_files(
            options.files, options.env_files, self._environment, self._cwd, options.project_directory
        )

    @cached_property
    def directory(self) -> str:
        """The project directory, absolute."""
        return find.find_directory(self._options.project_directory, self.files, self._cwd)

    def load(self, services: Sequence[str] = (), *, meanwhile: Callable[[], object] | None = None) -> LoadedProject:
        """Resolve the project. `services` are loaded too when their profile is not active, as Compose itself does for a
        service that is named; a name that does not exist is left to the caller. `meanwhile` is called once while
        Compose works (imports, for example).

        Raises SpecError with Compose's own words for a fault in the files, ComposeError, EngineError.
        """
        loaded = self._load(self._options, meanwhile)
        missing = [s for s in services if s not in (loaded.document.get("services") or {})]
        if not missing:
            return loaded
        everything = self._load(replace(self._options, profiles=(ALL_PROFILES,)), None)
        found = [everything.document["services"].get(s) or {} for s in missing]
        profiles = [p for raw in found for p in raw.get("profiles", ())]
        if not profiles:
            return loaded
        active = (*self._active_profiles(), *profiles)
        return self._load(replace(self._options, profiles=tuple(dict.fromkeys(active))), None)

    def adopt(self, config: str, *, meanwhile: Callable[[], object] | None = None) -> LoadedProject:
        """A project that was resolved elsewhere, instead of the files. `meanwhile` as for `load`.
        Raises SpecError, ComposeError."""
        hashing = self._start_hashing()
        try:
            if meanwhile:
                meanwhile()
            document = parse(config)
            hashed = hashing.finish(config, LOAD_TIMEOUT)
        except BaseException:
            hashing.kill()
            raise
        name = str(document.get("name", ""))
        self._loaded = LoadedProject(name, self.directory, config, document, _hashes(hashed), from_files=False)
        return self._loaded

    def hashes(self, config: str) -> dict[str, str]:
        """The `com.docker.compose.config-hash` labels that containers created from `config` get, by service.
        Raises SpecError, ComposeError."""
        hashing = self._start_hashing()
        return _hashes(hashing.finish(config, LOAD_TIMEOUT))

    def create(
        self,
        service: str,
        total: int,
        config: str | None = None,
        *,
        others: Mapping[str, int] | None = None,
        timeout: float = CREATE_TIMEOUT,
    ) -> None:
        """Have `total` containers of the service, the existing ones (in whatever state) counted: create what is missing
        without starting it. Nothing is started, recreated, removed, pulled or built, other services are not touched.

        `config` None: from the user's files as they are now; else from that resolved project. `others` says how many
        containers, in whatever state, the project's other services have (None: Compose is asked when it matters).
        A `total` below what exists would make Compose remove some: the caller counts under the service's lock.
        A paused or dead container of the service makes Compose fail after creating the new ones.
        Raises ImageNotFound, UsageError (no such service), ComposeError, EngineError.
        """
        with counts_hold(self.directory) as locks:
            pinned = self._pinned(service, config, others)
            self._run("up", service, config, timeout, keep_open=(*locks, *self._keep_open()), arguments=[
                "--no-start", "--no-recreate", "--no-build", "--pull", "never",
                "--remove-orphans=false",  # COMPOSE_REMOVE_ORPHANS may say otherwise
                *(part for name, count in pinned.items() for part in ("--scale", f"{name}={count}")),
                *(() if pinned else ("--no-deps",)), "--scale", f"{service}={total}", service,
            ])  # fmt: skip

    def _pinned(self, service: str, config: str | None, others: Mapping[str, int] | None) -> dict[str, int]:
        needed = dependencies(self._document(service, config), service)
        if needed and others is None:
            others = self._count(config)
        return {name: (others or {}).get(name, 0) for name in needed}

    def _document(self, service: str, config: str | None) -> Mapping[str, Any]:
        known = self._loaded
        if config is None:
            found = known if known and service in (known.document.get("services") or {}) else self.load([service])
            return found.document
        return known.document if known and known.config == config else parse(config)

    def _count(self, config: str | None) -> Mapping[str, int]:
        everything = replace(self._options, profiles=(ALL_PROFILES,))
        flags = self._flags(everything) if config is None else self._flags_of(config, everything)
        listing = self._start([*self.program, *flags, "ps", "-a", "--format", "json"], with_input=config is not None)
        output = listing.finish(config, LOAD_TIMEOUT)
        if output.code != 0:
            raise words.config_error(output.stderr)
        return counted(output.stdout)

    def pull(
        self,
        service: str,
        config: str | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        timeout: float = PULL_TIMEOUT,
    ) -> None:
        """Pull the service's image as its `pull_policy` says, with the Docker CLI's credentials. `progress` gets
        Compose's lines. Raises ImageNotFound with the registry's words, EngineError, ComposeError, Interrupted."""
        self._run("pull", service, config, timeout, arguments=[service], progress=progress, fetches=True)

    def build(
        self, service: str, *, progress: Callable[[str], None] | None = None, timeout: float = BUILD_TIMEOUT
    ) -> None:
        """Build the service's image. `progress` gets the builder's lines. Raises BuildFailed, ComposeError,
        Interrupted."""
        self._run("build", service, None, timeout, arguments=[service], progress=progress, fetches=True)

    def abandon(self) -> None:
        """From another thread: end the pull or build that is under way, and let none begin. What else goes on is left
        to whoever began it."""
        self._abandoned.set()
        if (fetching := self._fetching) is not None:
            fetching.abandon()

    def start_job(
        self,
        service: str,
        argv: Sequence[str],
        config: str,
        environment: Mapping[str, str],
        label: str,
        *,
        timeout: float = CREATE_TIMEOUT,
    ) -> None:
        """Start `argv` in a one-off container of the service as that resolved project has it, with this label
        (`name=value`) and these variables besides its own; nothing is pulled or built, no other service is touched.
        Returns once it has started. Raises DeployFailed when it cannot be, ComposeError, EngineError."""
        variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
        self._run("run", service, never_pulled(config, service), timeout, keep_open=self._keep_open(), arguments=[
            "--detach", "--no-deps", "--no-TTY", "--label", label, *variables, service, *argv,
        ])  # fmt: skip

    def _run(
        self,
        command: str,
        service: str,
        config: str | None,
        timeout: float,
        *,
        arguments: Sequence[str],
        progress: Callable[[str], None] | None = None,
        keep_open: Sequence[int] = (),
        fetches: bool = False,
    ) -> None:
        flags = self._flags(self._options) if config is None else self._flags_of(config, self._options)
        argv = [*self.program, *flags, "--ansi", "never", "--progress", "plain", command, *arguments]
        process = self._start(argv, with_input=config is not None, merge=True, keep_open=keep_open)
        if fetches:
            self._fetching = process
            if self._abandoned.is_set():  # before there was anything to end
                process.abandon()
        try:
            output = process.stream(config, timeout, progress or _ignore)
        finally:
            self._fetching = None
        if fetches and self._abandoned.is_set() and output.code != 0:
            raise Interrupted(f"service {service}: interrupted while its image was fetched; nothing was touched")
        if output.code != 0:
            raise words.command_error(command, service, output.stdout)

    def _load(self, options: Options, meanwhile: Callable[[], object] | None) -> LoadedProject:
        resolving = self._start([*self.program, *self._flags(options), "config"])
        with ThreadPoolExecutor(1) as beside:
            hashing: Process | None = None
            try:
                # Hashed from the resolved project: from the files, `config --hash` leaves out what env_file brings in,
                # and differs from the label that `up` sets. Started now, so that only its reading is waited for.
                hashing = self._start_hashing()
                both = beside.submit(_resolved_and_hashed, resolving, hashing)
                if meanwhile:
                    meanwhile()
                resolved, hashed = both.result()
                if hashed is None:
                    raise words.config_error(resolved.stderr, self.files)
                document = parse(resolved.stdout)
            except BaseException:
                resolving.kill()
                if hashing:
                    hashing.kill()
                raise
        self._loaded = LoadedProject(
            name=str(document.get("name", "")),
            directory=self.directory,
            config=resolved.stdout,
            document=document,
            hashes=_hashes(hashed),
            files=self.files,
            warnings=words.warnings(resolved.stderr),
            lossy=lost_lines(resolved.stdout),
        )
        return self._loaded

    def _start_hashing(self) -> Process:
        """It waits for a resolved project as its input; every service in that was active when it was resolved."""
        options = replace(self._options, files=("-",), project_directory=self.directory, profiles=(ALL_PROFILES,))
        return self._start([*self.program, *self._flags(options), "config", "--hash", "*"], with_input=True)

    def _start(
        self, argv: Sequence[str], *, with_input: bool = False, merge: bool = False, keep_open: Sequence[int] = ()
    ) -> Process:
        return Process(argv, self._environment, self._cwd, with_input=with_input, merge=merge, keep_open=keep_open)

    def _flags(self, options: Options) -> list[str]:
        flags = [part for file in options.files for part in ("-f", file)]
        if options.project_name:
            flags += ["-p", options.project_name]
        if options.project_directory:
            flags += ["--project-directory", options.project_directory]
        flags += [part for file in options.env_files for part in ("--env-file", file)]
        return flags + [part for profile in options.profiles for part in ("--profile", profile)]

    def _flags_of(self, config: str, options: Options) -> list[str]:
        # the name is passed on: COMPOSE_PROJECT_NAME would win over the one in the text
        resolved = replace(
            options,
            files=("-",),
            project_name=_project_name(config) or options.project_name,
            project_directory=self.directory,
        )
        return self._flags(resolved)

    def _active_profiles(self) -> tuple[str, ...]:
        if self._options.profiles:
            return self._options.profiles
        set_here = self._environment.get("COMPOSE_PROFILES")
        if set_here is None:
            named = find.named_env_files(self._options.env_files, self._environment, self._cwd)
            set_here = find.said_in_env_files(named, self.directory, self._environment).get("COMPOSE_PROFILES", "")
        return tuple(p.strip() for p in set_here.split(",") if p.strip())


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        raise UsageError(f"there is no current directory: {error.strerror}", hint="cd to one that exists") from error


def _ignore(_line: str) -> None:
    """For callers that do not watch."""


def _project_name(config: str) -> str:
    found = re.search(r"^name:[ ]*(.+?)[ ]*$", config, re.MULTILINE)
    return found[1].strip("\"'") if found else ""


def _resolved_and_hashed(resolving: Process, hashing: Process) -> tuple[Output, Output | None]:
    """What one says is the other's input; None for what is not to be hashed."""
    resolved = resolving.finish(None, LOAD_TIMEOUT)
    return resolved, hashing.finish(resolved.stdout, LOAD_TIMEOUT) if resolved.code == 0 else None


def _hashes(output: Output) -> dict[str, str]:
    if output.code != 0:
        raise words.config_error(output.stderr)
    return {service: label for service, _, label in (line.partition(" ") for line in output.stdout.splitlines())}
