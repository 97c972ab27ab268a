"""Is a replica ready? Docker's verdict and our own probe, both when there are both, seen from where the proxy is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from rollout.model import Health, HealthCheck, Pool, Replica, ReplicaState, ServiceSettings
from rollout.ports import Prober
from rollout.steps.output import LOG_LINES, legible
from rollout.steps.run import ReplicaFailed, Run
from rollout.waiting import FIRST_PAUSE

KILLED = 137  # 128 and the number of SIGKILL
_UNHEALTHY = "its health check says unhealthy"
PAUSE_GROWTH = 1.25  # so a pause is about a quarter of the wait until then: no replica is seen ready much too late


@dataclass(slots=True)
class _Watch:
    """What one wait has seen so far. Times are the run's clock."""

    begun: float
    restarts: int
    successes: int = 0
    since: float | None = None  # ready without a break since
    reason: str = "it was not probed yet"
    pause: float = FIRST_PAUSE


def why_never_ready(
    run: Run, replica_id: str, sleep: Callable[[float], None], given_up: Callable[[], bool] = lambda: False
) -> ReplicaFailed | None:
    """Wait until the replica is ready; None then, else why it will not be. Returns early, with None, when the run is
    interrupted or the wait `given_up`. `sleep` is called with the seconds until the next look.

    A container that exits, restarts or is declared unhealthy ends the wait at once; else the deadline does.
    """
    clock, check = run.ports.clock, run.settings.health
    first = run.ports.engine.inspect(replica_id)
    if first is None:
        return _failed(run, replica_id, replica_id[:12], "it was removed by somebody else")
    watch = _Watch(clock.now(), first.restart_count)
    deadline = watch.begun + check.healthy_deadline
    if run.deadline and not (run.undoing or run.record.switched):
        deadline = min(deadline, run.deadline)
    while True:
        replica = run.ports.engine.inspect(replica_id)
        death = why_dead(replica, watch.restarts)
        if replica is None or death:
            return _failed(run, replica_id, first.name, death or "it was removed by somebody else", replica)
        if _ready(run, replica, watch):
            return None
        if run.ending():
            return None
        if clock.now() >= deadline:
            waited = f"not ready after {clock.now() - watch.begun:.3g} s: {watch.reason}"
            return _failed(run, replica_id, first.name, waited, replica)
        if given_up():
            return None
        sleep(min(watch.pause, max(0.0, deadline - clock.now())))
        watch.pause = min(watch.pause * PAUSE_GROWTH, check.interval)


def why_dead(replica: Replica | None, restarts: int) -> str | None:
    """The reason that no further waiting can mend, or None."""
    if replica is None:
        return "it was removed by somebody else"
    if replica.state in (ReplicaState.EXITED, ReplicaState.DEAD):
        return f"it exited with code {replica.exit_code}{_killed(replica)}"
    if replica.state is ReplicaState.RESTARTING or replica.restart_count > restarts:
        return "it exited and was restarted"
    if replica.state is not ReplicaState.RUNNING:
        return f"it is {replica.state}"
    if replica.health is Health.UNHEALTHY:
        return _UNHEALTHY
    return None


def _killed(replica: Replica) -> str:
    """The engine does not always hear that memory was the reason."""
    if replica.out_of_memory:
        return ": the kernel killed it at its memory limit"
    return " (it was killed: out of memory?)" if replica.exit_code == KILLED else ""


def why_not_ready(run: Run, replica: Replica) -> str | None:
    return why_unready(run.ports.prober, run.settings, run.network, replica)


def ready_pool(run: Run, ids: Collection[str], needed: Collection[str] = ()) -> Pool:
    """The pool of those of `ids` that are where they were found ready. One that has another address has been restarted
    since: it must pass a probe first, unless nothing would be left. Raises ReplicaFailed for what is `needed` and not
    among them."""
    replicas = run.replicas()
    fit = [i for i in ids if i in replicas and stays_ready(run, replicas[i])]
    lost = [i for i in needed if i not in fit]
    if lost:
        raise ReplicaFailed(
            f"service {run.service}: ready before the switch, and no longer: {', '.join(i[:12] for i in lost)}",
            lost,
            details=[line for i in lost for line in last_words(run, i)],
        )
    return run.pool_of(fit or ids, replicas)


def stays_ready(run: Run, replica: Replica) -> bool:
    """Whether it may take traffic where it is: found ready there before, or by a probe now."""
    upstream = run.upstream(replica)
    if upstream is None or not replica.running or replica.health is Health.UNHEALTHY:
        return False
    if run.ready_at.get(replica.id) != upstream:
        # the list may still say that it runs there, and somebody else by now be where it was: its probe would pass
        there = run.ports.engine.inspect(replica.id)
        if there is None or run.upstream(there) != upstream or why_not_ready(run, there) is not None:
            return False
        run.ready_at[replica.id] = upstream
    return True


def last_words(run: Run, replica_id: str) -> list[str]:
    """The end of its output, as details of an error."""
    return [f"log: {legible(line)}" for line in run.ports.engine.logs(replica_id, LOG_LINES)]


def why_unready(prober: Prober, settings: ServiceSettings, network: str, replica: Replica) -> str | None:
    """One look: None when Docker and our probe both pass."""
    if replica.health is Health.STARTING:
        return "its health check is still starting"
    if replica.health is Health.UNHEALTHY:
        return _UNHEALTHY
    host = replica.addresses.get(network, "")
    if not host:
        return f"it has no address on network {network}"
    reason = prober.probe(replica, host, _probe_of(settings.health), settings.port)
    return None if reason is None else legible(reason)


def _probe_of(check: HealthCheck) -> HealthCheck:
    """A HEALTHCHECK runs inside the container; whether the *proxy* can reach the port is seen only from outside."""
    if check.path or check.tcp or check.command:
        return check
    return HealthCheck(tcp=True, port=check.port, timeout=check.timeout)


def _ready(run: Run, replica: Replica, watch: _Watch) -> bool:
    check, now = run.settings.health, run.ports.clock.now()
    reason = why_not_ready(run, replica)
    if reason is not None:
        watch.reason, watch.successes, watch.since = reason, 0, None
        run.say(f"{replica.name}: {reason}")
        return False
    watch.successes += 1
    if watch.since is None:
        watch.since = now
        watch.pause = FIRST_PAUSE  # the confirming probes follow closely (PROXIES 9: 5 ms apart is enough)
    watch.reason = f"only {watch.successes} of {check.healthy_threshold} probes in a row passed"
    steady = run.ports.clock.now() - watch.since >= check.min_healthy_time
    ready = watch.successes >= check.healthy_threshold and steady
    if ready and (upstream := run.upstream(replica)) is not None:
        run.ready_at[replica.id] = upstream
    return ready


def _failed(run: Run, replica_id: str, name: str, reason: str, replica: Replica | None = None) -> ReplicaFailed:
    details = [f"health: {legible(line)}" for line in (replica.health_log[-3:] if replica is not None else ())]
    details += last_words(run, replica_id)
    return ReplicaFailed(
        f"service {run.service}: new replica {name} is not ready: {reason}", [replica_id], details=details
    )
