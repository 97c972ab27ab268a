"""One pass of keeping a service as it is meant to be, without deploying anything new."""

from __future__ import annotations

from rollout import membership, recover, warm
from rollout.events import Sink
from rollout.model import Revision, RevisionKey, ServiceSettings
from rollout.ports import RolloutRecord
from rollout.steps.run import Ports, Run


def sync_once(ports: Ports, settings: ServiceSettings, emit: Sink, *, wait_lock: float = 0.0) -> frozenset[str]:
    """Finish or undo what an interrupted run left, make the pool follow the replicas, stop what was warm long enough.
    Answers the ids in the pool. Raises LockHeld when a rollout is under way, NotUndone, ProxyUnreachable."""
    service = settings.name
    with ports.lock.hold(service, "sync", wait_lock):
        network = ports.proxy.network(settings)
        recover.converge(ports, settings, network, emit)
        live = ports.journal.live(service) or Revision(service, 0, RevisionKey("", ""), "", "", 0.0)
        record = RolloutRecord(0, service, "sync", "running", settings.strategy, live, (), None, False, 0.0)
        run = Run(ports, settings, record, emit, network, live=set())
        routed = membership.sync(run)
        warm.retire_expired(run, live.key)
        return routed
