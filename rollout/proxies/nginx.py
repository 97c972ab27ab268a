"""nginx, behind `ports.Proxy`: complete generations, tested before they are in force, loaded by a reload, seen live.

What is safe and why is measured in docs; the rules here are: nginx can never start or reload with a configuration that
was not tested; a switch is over when no worker of a former generation accepts connections any more and the listener
answers with the new digest; a drain is over when no worker that knows the old addresses can use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout.errors import Fault, ProxyRejected, ProxyUnreachable, RolloutError, SpecError, Unreachable
from rollout.model import (
    Counted,
    Finding,
    InFlight,
    Pool,
    ProxySettings,
    Relief,
    ServiceSettings,
    Severity,
    Switched,
    Upstream,
)
from rollout.ports import Clock, ProxyProcess
from rollout.proxies import nginx_log
from rollout.proxies.nginx_check import FOLDER, entry, leads_to, plan_check
from rollout.proxies.nginx_drain import Drain
from rollout.proxies.nginx_files import Generations, Ledger, LedgerFile
from rollout.proxies.nginx_log import Mark
from rollout.proxies.nginx_program import Program
from rollout.proxies.nginx_reload import Reload
from rollout.proxies.nginx_render import Renderer, digest_of, file_of, pool_of
from rollout.proxies.nginx_status import StatusListener, listens, on_host, trusted
from rollout.proxies.nginx_workers import Token, pids_only, workers
from rollout.proxies.render import Templates

_TEST_HOLDS = 30.0  # seconds for which a configuration that passed need not be tested again


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What a switch would put in force: the files of a complete generation, and where nginx sees the directory."""

    files: Mapping[str, bytes]
    directory: str

    @property
    def digest(self) -> str:
        return digest_of(self.files)

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))


@dataclass(frozen=True, slots=True)
class _Passed:
    """When nginx has accepted a configuration, and how many seconds that took it."""

    at: float
    took: float


class Nginx:
    """The nginx that `settings` name, running in `process`.

    `lock_path` is a file in rollout's state directory: the lock between the processes that change this proxy.
    """

    def __init__(self, settings: ProxySettings, process: ProxyProcess, clock: Clock, lock_path: str) -> None:
        self._settings = settings
        self._process = process
        self._clock = clock
        self._generations = Generations(settings.config)
        self._ledger = LedgerFile(lock_path, clock)
        self._renderer = Renderer(Templates("nginx", settings.templates), settings.status_port)
        self._program = Program(process, clock, settings.binary, settings.main_config)
        self._status = StatusListener(settings.status_port)
        self._reload = Reload(process, self._program, clock, self._live)
        self._drain = Drain(process, clock, self._program.config)
        self._tested: dict[tuple[str, str], _Passed] = {}  # by (proxy, digest)

    # --- ports.Proxy ----------------------------------------------------------------------------------------

    def network(self, settings: ServiceSettings) -> str:
        networks = self._process.networks()
        if on_host(networks) and settings.networks:
            return settings.networks[0]  # the host reaches every network
        for name in settings.networks:
            if name in networks:
                return name
        fault = Fault(
            f"services.{settings.name}.networks",
            f"{self._process.describe()} cannot reach it: it is on {_listed(networks)}, "
            f"{settings.name} on {_listed(settings.networks)}",
            "put both on one network",
        )
        raise SpecError([fault])

    def pool(self, service: str) -> Pool | None:
        return pool_of(self._generations.read(file_of(service)))

    def warm_up(self) -> None:
        self._process.warm_up()
        self._program.config()
        self._renderer.warm_up()

    def prepare(self, pool: Pool) -> None:
        with self._ledger.hold():
            self._reload.workers()  # the switch could not be confirmed without
            base = self._generations.current()
            candidate = self._candidate([pool], base)
            if candidate.files == self._generations.files(base) or self._passed(candidate):
                return
            name = self._generations.write(candidate.files, base, durably=False)
            try:
                self._test(candidate, name)
            finally:
                self._generations.remove(name)

    def switch(self, pool: Pool) -> Switched:
        with self._ledger.hold():
            return self._switch([pool])[0]

    def switch_all(self, pools: Sequence[Pool]) -> list[Switched | RolloutError]:
        with self._ledger.hold():
            return self._switch_those_it_takes(pools)

    def identity(self) -> str:
        return self._process.identity()

    def fingerprints(self, services: Sequence[str]) -> dict[str, str]:
        # whoever starts or reloads nginx, it loads what is in force on disk; only a change that was not seen through
        # may have left another configuration live
        pending = self._ledger.read().pending
        return dict.fromkeys(services, f"{self._process.identity()} {pending}".strip())

    def holds(self, pool: Pool) -> bool:
        if self.pool(pool.service) != pool or not self._ledger.read().settled(self._process.identity()):
            return False
        return self._live() == digest_of(self._generations.files(self._generations.current()))

    def in_flight(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        identity = self._process.identity()
        token = Token.of(switched.token) if switched else None
        if token is not None and token.identity != identity:
            return InFlight(True, detail="nginx was restarted")
        if not upstreams or (token is not None and not token.workers):
            return InFlight(True)  # no worker was left that knew them
        if not self._ledger.read().settled(identity):
            return InFlight(False, detail="a reload has not been seen through yet")
        return self._drain.in_flight(token or Token(identity, ()), switched if token else None, upstreams)

    def cut(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> int:
        identity = self._process.identity()
        token = Token.of(switched.token) if switched else None
        if token is not None and token.identity != identity:
            return 0
        unpaired = pids_only(self._program.config()) if token is None else token.unpaired
        return self._drain.cut(token or Token(identity, (), unpaired), switched if token else None, upstreams)

    def forget(self, service: str, upstreams: Sequence[Upstream]) -> None:
        """Nothing to forget: nginx's workers end with what they know."""

    def old_workers(self) -> int:
        """Workers that only finish what they have. Raises ProxyUnreachable."""
        return len(workers(self._process.processes()).ending)

    def relieve(self, limit: float) -> Relief:
        """Old workers pile up with every reload while clients stay. End the oldest of more than eight generations, if
        they have had `limit` seconds. Asked again and again, by one who keeps this object. Raises ProxyUnreachable."""
        return self._drain.relieve(self._process.identity(), limit)

    def mark(self, service: str) -> str:  # noqa: ARG002  # one log holds every service
        return self._here().text()

    def count(self, service: str, marker: str) -> Counted:  # noqa: ARG002  # one log holds every service
        return self._counted(marker, None)

    def count_and_mark(self, service: str, marker: str) -> tuple[Counted, str]:  # noqa: ARG002  # as above
        here = self._here()
        return self._counted(marker, here), here.text()

    def findings(self) -> list[Finding]:
        from rollout.proxies.nginx_lint import lint  # only looked for beside a deploy

        found = self._directory_findings()
        config = self._program.config()
        directory = self._settings.config if found else self._directory()
        if config.problem:
            message = f"nginx would not start with the configuration on disk: {'; '.join(config.problem)}"
            hint = "`rollout render` writes the upstreams of services that are still to come"
            found.append(Finding(Severity.ERROR, "nginx-config", config.main, message, hint))
        try:
            self._reload.workers()
        except ProxyUnreachable as error:
            found.append(Finding(Severity.ERROR, "nginx-workers", config.main, error.message, error.hint))
        if config.files and not leads_to(config, directory):
            fault = self._not_included(directory)
            found.append(Finding(Severity.ERROR, "nginx-include", config.main, fault.message, fault.hint))
        names = [name.removesuffix(".conf") for name in self._generations.files(self._generations.current())]
        return [*found, *lint(config, directory, names)]

    # --- offline --------------------------------------------------------------------------------------------

    def write_initial(self, pools: Sequence[Pool], seen: str = "") -> None:
        """Put a configuration with these pools (empty ones answer 503) in force on disk, without a reload, so that an
        nginx whose files name their upstreams can start. Services on disk that are not in `pools` stay as they are.

        `seen` is where nginx sees the directory: only a running one can be asked. One that would load it tests it
        first. Raises SpecError, ProxyRejected, StateError.
        """
        with self._ledger.hold():
            base = self._generations.current()
            running = self._running()
            if running or not seen:
                seen = self._directory()
            candidate = self._candidate(pools, base, seen)
            if candidate.files == self._generations.files(base):
                return
            name = self._generations.write(candidate.files, base)
            try:
                if running and leads_to(self._program.config(), seen):
                    self._test(candidate, name)
                self._generations.publish(name, entry(seen))
            except BaseException:
                self._generations.remove(name)
                raise
            self._generations.keep(name, base)
            self._program.forget()

    # --- a change -------------------------------------------------------------------------------------------

    def _switch(self, pools: Sequence[Pool]) -> list[Switched]:
        """All of them in one generation, within the ledger's hold."""
        ledger, base = self._ledger.read(), self._generations.current()
        previous = [self.pool(pool.service) or Pool(pool.service) for pool in pools]
        candidate = self._candidate(pools, base)
        identity = self._process.identity()
        same = candidate.files == self._generations.files(base) and ledger.settled(identity)
        pairs = list(zip(previous, pools, strict=True))
        if base is not None and same and self._live() == candidate.digest:
            self._generations.tidy(base)
            # nothing left a pool: no token says which workers knew it
            return [Switched(was, pool) for was, pool in pairs]
        token = self._token(identity, self._replace(candidate, base, ledger, identity), ledger)
        return [Switched(was, pool, token, reloaded=True) for was, pool in pairs]

    def _switch_those_it_takes(self, pools: Sequence[Pool]) -> list[Switched | RolloutError]:
        """One generation when nginx takes it, else those it refuses are found by halves."""
        try:
            return [*self._switch(pools)]
        except ProxyRejected as error:
            if len(pools) == 1 or not self._sound():
                return [error] * len(pools)
        half = len(pools) // 2
        return [*self._switch_those_it_takes(pools[:half]), *self._switch_those_it_takes(pools[half:])]

    def _sound(self) -> bool:
        """Whether nginx would take what is in force now: else no pool is at fault."""
        base = self._generations.current()
        candidate = self._candidate([], base)
        name = self._generations.write(candidate.files, base, durably=False)
        try:
            self._test(candidate, name)
        except ProxyRejected:
            return False
        finally:
            self._generations.remove(name)
        return True

    def _candidate(self, pools: Iterable[Pool], base: str | None, directory: str = "") -> _Candidate:
        self._generations.require()
        networks = self._process.networks() if not directory or self._running() else {}
        local = self._settings.host or on_host(networks)
        listen = listens(self._settings.status_port, networks, locally=local)
        files = self._renderer.generation(self._generations.files(base), pools, listen, trusted(networks))
        return _Candidate(files, directory or self._directory())

    def _replace(self, new: _Candidate, base: str | None, ledger: Ledger, identity: str) -> frozenset[int]:
        """Test it, put it in force, see it live; the pids of all workers before it that are still there then, those of
        a reload by somebody else in the meantime included. On an error the former one is."""
        good = base if ledger.settled(identity) else self._generations.existing(ledger.good) or base
        name = self._generations.write(new.files, base)
        try:
            passed = self._passed(new) or self._test(new, name)
            before = self._reload.workers()
            self._ledger.update(good=good or "", pending=identity)
            self._generations.publish(name, entry(new.directory))
        except BaseException:
            self._put_back(name, good, new.directory)
            self._ledger.update(pending=ledger.pending)
            raise
        try:
            now = self._reload.load(
                before,
                new.digest,
                new.size,
                lambda: self._put_back(name, good, new.directory),
                tested=passed.took,
            )
        except ProxyRejected:
            self._ledger.update(pending="")
            raise
        except Unreachable:
            # whether it was loaded is not known: the next switch finds out, since the ledger says so
            self._put_back(name, good, new.directory)
            raise
        self._ledger.write(Ledger(good=name, unpaired=pids_only(self._program.config())))
        self._generations.keep(name, good)
        return now.ending

    def _put_back(self, name: str, good: str | None, directory: str) -> str:
        """The former generation in force on disk, the new one gone; the former's digest."""
        if self._generations.current() == name:
            if good is None:
                self._generations.unpublish()
            else:
                self._generations.publish(good, entry(directory))
        self._generations.remove(name)
        return digest_of(self._generations.files(good))

    def _test(self, candidate: _Candidate, name: str) -> _Passed:
        """Have nginx test the generation within the user's own configuration, where it is loaded by nothing else."""
        generation = f"{candidate.directory}/{name}"
        check = plan_check(self._program.config(), candidate.directory, generation)
        if check is None:
            raise SpecError([self._not_included(candidate.directory)])
        with self._generations.folder(name, FOLDER) as folder:
            check.write(folder)
            began = self._clock.now()
            words = self._program.test(f"{generation}/{FOLDER}/{check.main}")
        if words:
            raise ProxyRejected(
                "nginx refuses the new configuration; nothing was changed",
                details=[check.original(word, generation) for word in words],
            )
        now = self._clock.now()
        passed = _Passed(now, now - began)
        self._tested = {(self._process.identity(), candidate.digest): passed}
        return passed

    def _passed(self, candidate: _Candidate) -> _Passed | None:
        tested = self._tested.get((self._process.identity(), candidate.digest))
        return tested if tested is not None and self._clock.now() - tested.at < _TEST_HOLDS else None

    def _token(self, identity: str, pids: frozenset[int], ledger: Ledger) -> str:
        # what the workers of the former generation do is what their configuration said
        unpaired = ledger.unpaired or pids_only(self._program.config())
        return Token(identity, tuple(sorted(pids)), unpaired).text()

    # --- the proxy ------------------------------------------------------------------------------------------

    def _live(self) -> str:
        return self._status.digest(self._process.networks())

    def _running(self) -> bool:
        try:
            self._process.identity()
        except ProxyUnreachable:
            return False
        return True

    def _directory(self) -> str:
        """Where nginx sees the directory. Raises SpecError when it does not, or sees a file that never changes."""
        mount = self._process.mount(self._settings.config)
        name = self._settings.config
        if mount is None:
            raise SpecError([_fault(f"{self._process.describe()} does not see {name}", f"{name}:/etc/nginx/rollout.d")])
        if mount.single_file:
            message = f"{name} is mounted as a single file: {self._process.describe()} would never see a new one"
            raise SpecError([_fault(message, f"{name}:{mount.path}")])
        return mount.path.rstrip("/")

    def _not_included(self, directory: str) -> Fault:
        line = f"include {directory}/*.conf;"
        return Fault(
            "x-rollout.proxy.config",
            f"no include in {self._process.describe()} leads to {directory}: what rollout writes there is never loaded",
            f"write in http {{}}, above any access_log that uses the format rollout: {line}",
        )

    def _directory_findings(self) -> list[Finding]:
        try:
            self._generations.require()
            self._directory()
        except SpecError as error:
            return [
                Finding(Severity.ERROR, "nginx-mount", fault.path, fault.message, fault.hint) for fault in error.faults
            ]
        return []

    # --- counting -------------------------------------------------------------------------------------------

    def _log_paths(self) -> dict[str, str]:
        """The access logs that count, and where this host sees them; empty: in the proxy's own output."""
        files = nginx_log.log_files(self._program.config())
        return {file: "" if nginx_log.to_output(file) else self._process.host_path(file) or "" for file in files}

    def _here(self) -> Mark:
        sizes = {file: nginx_log.size(path) for file, path in self._log_paths().items() if path}
        return Mark(self._clock.wall(), sizes)

    def _counted(self, marker: str, until: Mark | None) -> Counted:
        try:
            since, paths = Mark.read(marker), self._log_paths()
            return nginx_log.counted(self._lines(paths, since, until)) if paths else Counted(missing=nginx_log.MISSING)
        except (ValueError, TypeError, KeyError):
            return Counted(missing="it is not known where counting began")
        except (RolloutError, OSError) as error:
            return Counted(missing=f"the access log cannot be read: {error}")

    def _lines(self, paths: Mapping[str, str], since: Mark, until: Mark | None) -> Iterator[str]:
        for file, path in paths.items():
            if path:
                yield from nginx_log.lines(path, since.sizes.get(file, 0), until.sizes.get(file, 0) if until else None)
        if "" in paths.values():
            yield from self._process.output(since.at, until.at if until else None)


def _fault(message: str, volume: str) -> Fault:
    return Fault("x-rollout.proxy.config", message, f'mount the directory: volumes: ["{volume}"]')


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "no network"
