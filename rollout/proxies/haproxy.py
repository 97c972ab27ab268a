"""HAProxy: a pool is switched through the runtime API in milliseconds, without a reload; the files always say the same.

A pool lives in two places: in the serving worker (`add server`, `set server`) and in the service's file. The worker is
changed first and confirmed, then the file; a crash between any two commands leaves a state from which the same switch,
or the one back, finds its way, because both begin by looking. What only a reload can change (a new backend, another
balance) goes file first, then a synchronous `reload` of the master, then is confirmed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence

from rollout.errors import Fault, NotUndone, ProxyRejected, ProxyUnreachable, RolloutError, SpecError
from rollout.model import Counted, Finding, InFlight, Pool, ProxySettings, Relief, ServiceSettings, Switched, Upstream
from rollout.ports import Clock, ProxyProcess
from rollout.proxies import haproxy_counters as counters
from rollout.proxies.haproxy_answers import Server, Target, Worker
from rollout.proxies.haproxy_candidate import Candidates
from rollout.proxies.haproxy_changes import Command, admit, leftovers, not_serving, retire
from rollout.proxies.haproxy_config import ConfigDirectory, ServerLine, server_lines, structure
from rollout.proxies.haproxy_cut import cut
from rollout.proxies.haproxy_socket import EVERY, Refused, Silent
from rollout.proxies.haproxy_sockets import Sockets, command_line, config_lines, find_sockets
from rollout.proxies.lock import exclusively
from rollout.waiting import DeadlinePassed, wait_for

CONFIRM_TIMEOUT = 10.0
ROUNDS = 3  # a reload by somebody else in the middle of a switch is met by looking again


class HAProxy:
    """The `Proxy` port over a running HAProxy (2.6 or later) in master-worker mode."""

    def __init__(self, settings: ProxySettings, process: ProxyProcess, clock: Clock, lock_path: str) -> None:
        self._settings = settings
        self._process = process
        self._clock = clock
        self._lock_path = lock_path
        self._files = ConfigDirectory(settings.config)
        self._candidates = Candidates(settings, process, self._files)
        self._sockets: Sockets | None = None
        self._deleted = counters.deleted_here(lock_path)

    # --- the port -------------------------------------------------------------------------------------------------

    def network(self, settings: ServiceSettings) -> str:
        mine = self._process.networks()
        if self._settings.host and settings.networks:
            return settings.networks[0]  # the host reaches every one of its bridges
        for name in settings.networks:
            if name in mine:
                return name
        wanted, there = ", ".join(settings.networks) or "none", ", ".join(mine) or "none"
        raise SpecError(
            [
                Fault(
                    f"services.{settings.name}.networks",
                    f"shares no network with {self._process.describe()}: it is on {wanted}, the proxy on {there}",
                    "put both on one network",
                )
            ]
        )

    def pool(self, service: str) -> Pool | None:
        return self._files.pool(service)

    def warm_up(self) -> None:
        self._process.warm_up()
        self._candidates.warm_up()

    def prepare(self, pool: Pool) -> None:
        with self._found_anew():  # what the switch will ask, and the drain after it: who cannot be asked is met now
            self._reach().runtime.worker()
            self._reach().master.workers()
        text = self._candidates.render(pool)
        if text != self._files.read(pool.service):
            self._candidates.test(pool.service, text)

    def switch(self, pool: Pool) -> Switched:
        text = self._candidates.render(pool)
        with self._found_anew(), exclusively(self._lock_path, self._clock):
            previous = self._files.pool(pool.service) or Pool(pool.service, (), pool.options)
            before = self._files.read(pool.service)
            live = self._reach().runtime.servers(pool.service)
            wanted = server_lines(text)
            reloaded = False
            if live is None or self._needs_reload(pool.service, before, text):
                self._load(pool.service, before, text)
                reloaded = True
            elif before != text or admit(pool.service, wanted, live) or retire(pool.service, wanted, live):
                reloaded = self._change(pool.service, before or "", text, live)
            # which workers still know the former pool is asked of them each time (`in_flight`): they come and go
            token = json.dumps({"removed": sorted(previous.names - pool.names)})
            return Switched(previous, pool, token, reloaded)

    def switch_all(self, pools: Sequence[Pool]) -> list[Switched | RolloutError]:
        """Backend by backend: the runtime API knows nothing else, and one that is refused touches no other."""
        outcomes: list[Switched | RolloutError] = []
        for pool in pools:
            try:
                outcomes.append(self.switch(pool))
            except (ProxyRejected, NotUndone, SpecError) as error:
                outcomes.append(error)
        return outcomes

    def identity(self) -> str:
        return self._process.identity()

    def fingerprints(self, services: Sequence[str]) -> dict[str, str]:
        identity = self._process.identity()
        with self._found_anew():
            runtime = self._reach().runtime
            worker, servers = runtime.worker().identity, runtime.servers(EVERY) or {}
        known: dict[str, list[str]] = {}
        for one in servers.values():
            if not (one.in_maintenance or one.draining):
                known.setdefault(one.backend, []).append(f"{one.name} {one.address} {one.weight}")
        return {name: "; ".join([identity, worker, *sorted(known.get(name, ()))]) for name in services}

    def holds(self, pool: Pool) -> bool:
        if self._files.pool(pool.service) != pool or self._files.reload_due(pool.service):
            return False
        wanted = server_lines(self._files.read(pool.service) or "")
        with self._found_anew():
            live = self._reach().runtime.servers(pool.service)
        return live is not None and not admit(pool.service, wanted, live) and not retire(pool.service, wanted, live)

    def in_flight(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> InFlight:
        service, target = switched.current.service if switched else None, Target.of(upstreams)
        with self._found_anew():
            first = self._look(service, target)
            # a thread that chose the server just before it left may not have counted itself in yet
            return self._look(service, target) if first.drained else first

    def cut(self, switched: Switched | None, upstreams: Sequence[Upstream]) -> int:
        service, target = switched.current.service if switched else None, Target.of(upstreams)
        with self._found_anew():
            return cut(self._reach(), self._process, self._clock, service, target)

    def forget(self, service: str, upstreams: Sequence[Upstream]) -> None:
        # a proxy that is gone keeps nothing; one that is back loaded the file without them
        with contextlib.suppress(ProxyUnreachable), self._found_anew(), exclusively(self._lock_path, self._clock):
            live = self._reach().runtime.servers(service) or {}
            idle = leftovers(server_lines(self._files.read(service) or ""), live)
            self._delete(service, [u.name for u in upstreams if u.name in idle], live)

    def old_workers(self) -> int:
        """Workers that only finish what they have. Raises ProxyUnreachable."""
        with self._found_anew():
            return max(0, len(self._reach().master.workers()) - 1)

    def relieve(self, limit: float) -> Relief:  # noqa: ARG002  # the same of every proxy
        """Nothing: a pool changes without a reload, and what a user's reloads leave is their `hard-stop-after`'s."""
        return Relief()

    def mark(self, service: str) -> str:
        with self._found_anew():
            runtime = self._reach().runtime
            with self._deleted.lock:
                return counters.marker(runtime.worker(), runtime.servers(service), self._clock.now())

    def count(self, service: str, marker: str) -> Counted:
        try:
            return self.count_and_mark(service, marker)[0]
        except RolloutError as error:
            return Counted(missing=error.message)

    def count_and_mark(self, service: str, marker: str) -> tuple[Counted, str]:
        with self._found_anew():
            runtime = self._reach().runtime
            with self._deleted.lock:
                live, worker, now = runtime.servers(service), runtime.worker(), self._clock.now()
                deleted = self._deleted.of(service)
        return counters.since(marker, worker, deleted, live or {}), counters.marker(worker, live, now)

    def findings(self) -> list[Finding]:
        from rollout.proxies.haproxy_lint import lint  # only looked for beside a deploy

        command = command_line(self._settings, self._process)
        mount = self._process.mount(self._settings.config)
        lines = config_lines(self._process, command, mount.path if mount else "")
        return lint(command, lines, mount, self._settings, self._process.host_path)

    def write_initial(self, pools: Sequence[Pool]) -> None:
        """Write the files for these pools, for `rollout render`. HAProxy need not run; one that does tests them first,
        and loads with the next switch what only a reload can change. Raises SpecError, ProxyRejected, StateError."""
        rendered = [(pool.service, self._candidates.render(pool)) for pool in pools]
        with exclusively(self._lock_path, self._clock):
            for service, text in rendered:
                before = self._files.read(service) if self._files.pool(service) else None
                if before == text:
                    continue
                with contextlib.suppress(ProxyUnreachable):
                    self._candidates.test(service, text)
                if before is not None and self._needs_reload(service, before, text):
                    self._files.mark_reload_due(service, True)
                self._files.write(service, text)

    # --- changing what is live ------------------------------------------------------------------------------------

    def _needs_reload(self, service: str, before: str | None, text: str) -> bool:
        if before is None or self._files.reload_due(service) or structure(before) != structure(text):
            return True
        was, will = server_lines(before), server_lines(text)
        return any(was[name].options != will[name].options for name in was.keys() & will.keys())

    def _change(self, service: str, before: str, text: str, live: Mapping[str, Server]) -> bool:
        """Through the runtime API; True when HAProxy could take the servers only by a reload."""
        wanted = server_lines(text)
        self._candidates.test(service, text)
        try:
            self._apply(service, wanted, live)
            if before != text:
                self._files.write(service, text)
            live = self._converge(service, wanted)
        except Exception as error:
            self._take_back(service, before, error)
            if isinstance(error, Refused) and "dynamic" in str(error):
                self._load(service, before, text)
                return True
            raise _told(error) from error
        self._delete(service, [n for n in leftovers(wanted, live) if n not in server_lines(before)], live)
        return False

    def _apply(self, service: str, wanted: Mapping[str, ServerLine], live: Mapping[str, Server]) -> None:
        """Make the worker's servers the wanted ones: first all in that are new, confirmed, then out those that go."""
        self._run(admit(service, wanted, live))
        entered = {n: line for n, line in wanted.items() if n not in live or not live[n].serving}
        if entered and (idle := not_serving(entered, self._live(service))):
            raise ProxyRejected("HAProxy does not use the new servers", details=idle)
        self._run(retire(service, wanted, live))

    def _converge(self, service: str, wanted: Mapping[str, ServerLine]) -> dict[str, Server]:
        """See that the worker's servers are the wanted ones, and make them so; how they are then."""
        for _ in range(ROUNDS):
            live = self._live(service)
            if not admit(service, wanted, live) and not retire(service, wanted, live):
                return live
            self._apply(service, wanted, live)
        raise ProxyRejected(f"HAProxy's servers of {service} do not become what they were set to")

    def _take_back(self, service: str, before: str, cause: Exception) -> None:
        """Bring file and worker back to `before`. Raises NotUndone when that fails with HAProxy running."""
        try:
            if self._files.read(service) != before:
                self._files.write(service, before)
            live = self._converge(service, server_lines(before))
            self._delete(service, leftovers(server_lines(before), live), live)
        except (RolloutError, Refused) as error:
            self._reraise_if_down(cause)
            raise NotUndone(
                f"the switch of {service} failed and could not be taken back: {error}",
                hint="once HAProxy answers again, run `rollout sync`: it brings HAProxy and its file together",
                details=[str(cause)],
            ) from cause

    def _reraise_if_down(self, cause: Exception) -> None:
        try:
            self._process.identity()
        except ProxyUnreachable:
            raise _told(cause) from cause  # when it comes back it loads the file, and that is as it was

    def _load(self, service: str, before: str | None, text: str) -> None:
        """Through the file and a reload. Raises ProxyRejected with the former file in force."""
        self._candidates.test(service, text)
        former = self._reach().runtime.worker()
        self._files.mark_reload_due(service, True)
        try:
            self._files.write(service, text)
            self._reload(service, former, server_lines(text))
        except Exception as error:
            self._unload(service, before, former, error)
            raise _told(error) from error
        self._files.mark_reload_due(service, False)

    def _reload(self, service: str, former: Worker, wanted: Mapping[str, ServerLine] | None) -> None:
        sockets = self._reach()
        log = sockets.master.reload()

        def live() -> bool | None:
            try:
                return serving()
            except ProxyUnreachable:  # between two workers
                return None

        def serving() -> bool | None:
            new, old = sockets.runtime.worker(), sockets.master.worker(former.pid)
            if new.pid == former.pid or new.stopping or (old and not old.stopping):
                return None
            there = sockets.runtime.servers(service)
            if wanted is None:
                return True
            settled = there is not None and not admit(service, wanted, there) and not retire(service, wanted, there)
            return settled or None

        try:
            wait_for(self._clock, live, timeout=CONFIRM_TIMEOUT, longest=0.05)
        except DeadlinePassed:
            raise ProxyRejected(
                f"HAProxy reloaded, but does not serve {service} as its file says",
                hint=f"is {self._settings.config} among the `-f` of its command line?",
                details=log,
            ) from None

    def _unload(self, service: str, before: str | None, former: Worker, cause: Exception) -> None:
        try:
            self._files.write(service, before)
            if self._reach().runtime.worker().pid != former.pid:
                now = self._reach().runtime.worker()
                self._reload(service, now, server_lines(before) if before is not None else None)
            self._files.mark_reload_due(service, False)
        except (RolloutError, Refused) as error:
            self._reraise_if_down(cause)
            raise NotUndone(
                f"the reload for {service} failed and could not be taken back: {error}",
                hint="run `rollout sync` once HAProxy answers again",
                details=[str(cause), *getattr(cause, "details", ())],
            ) from cause

    def _run(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._reach().runtime.run(command.text, command.says)

    def _live(self, service: str) -> dict[str, Server]:
        live = self._reach().runtime.servers(service)
        if live is None:
            raise ProxyRejected(f"HAProxy has lost the backend {service}: it was reloaded without its file")
        return live

    # --- looking ---------------------------------------------------------------------------------------------------

    def _look(self, service: str | None, target: Target) -> InFlight:
        """One rule for every worker, serving or stopping: it is done with a server that it does not have, or that is in
        maintenance with nothing in flight. A stopping worker cannot be switched, so else it has to end first."""
        master = self._reach().master
        busy, connections, workers = [], 0, master.workers()
        for pid in workers:
            try:
                servers = master.servers(pid, service) or {}
            except Silent:
                busy.append(pid)
                continue
            known = target.among(servers).values()
            if any(s.in_flight or not s.in_maintenance for s in known):
                busy.append(pid)
                connections += sum(s.in_flight for s in known)
        if not busy:
            return InFlight(drained=True)
        what = "1 worker" if len(busy) == 1 else f"{len(busy)} workers"
        return InFlight(False, connections, f"{what}, {connections} connection{'s' * (connections != 1)}")

    def _delete(self, service: str, names: Sequence[str], live: Mapping[str, Server]) -> None:
        runtime = self._reach().runtime
        for name in names:
            # refused: idle connections are still closing, and the next switch deletes it
            with contextlib.suppress(Refused), self._deleted.lock:
                runtime.run(f"del server {service}/{name}", says="Server deleted")
                self._deleted.add(service, live[name], self._clock.now())

    def _reach(self) -> Sockets:
        if self._sockets is None:
            self._sockets = find_sockets(self._settings, self._process, self._clock)
        return self._sockets

    @contextlib.contextmanager
    def _found_anew(self) -> Iterator[None]:
        """A proxy that cannot be reached may come back elsewhere: the next call looks for its sockets again."""
        try:
            yield
        except ProxyUnreachable:
            self._sockets = None
            raise


def _told(error: Exception) -> Exception:
    if isinstance(error, Refused):
        return ProxyRejected(f"HAProxy refused a change of its servers: {error}")
    return error
