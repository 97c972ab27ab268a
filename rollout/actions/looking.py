"""Status, history, check: what is there, as plain values that go to JSON as they are. Nothing is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rollout import preflight
from rollout.control import condition, standing
from rollout.errors import ProxyUnreachable, RolloutError, SpecError
from rollout.membership import replicas_of
from rollout.model import Finding, Health, Pool, Replica, Severity
from rollout.ports import Journal, RolloutRecord
from rollout.steps.run import routed_ids, upstream_name
from rollout.targets import live_revision
from rollout.wiring import Wired


def status(wired: Wired, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """The project, its proxy, and everything known of the services (default: all)."""
    names = wanted or tuple(wired.project.services)
    replicas = replicas_of(wired.ports.engine, names)
    return {
        "project": wired.project.name,
        "proxy": {"type": wired.project.proxy.type.value, "where": wired.process.describe(), **_proxy(wired)},
        "services": [_service(wired, name, replicas.get(name, ())) for name in names],
    }


def history(wired: Wired, service: str | None, limit: int) -> list[dict[str, Any]]:
    """Rollouts, newest first, ended ones with their receipt."""
    return [_rollout(record) for record in wired.ports.journal.history(service, limit)]


def rollout(wired: Wired, number: int) -> dict[str, Any] | None:
    """One rollout, None when there is none with this number."""
    record = wired.journal.rollout(number)
    return _rollout(record) if record else None


def revisions(wired: Wired, service: str) -> list[dict[str, Any]]:
    """The service's revisions, newest first."""
    ports = wired.ports
    live = live_revision(ports.journal, service, ports.engine.replicas(service), ports.proxy.pool(service))
    return [
        {"revision": r.number, "image": r.image, **asdict(r.key), "created_at": r.created_at,
         "live": live is not None and r.number == live.number}
        for r in ports.journal.revisions(service)
    ]  # fmt: skip


def check(wired: Wired, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Whether the project is safe to deploy (`ok`), what it consists of, and every finding."""
    compose = wired.compose.version()
    here = [
        *preflight.compose_version(compose),
        *preflight.state_directory(str(wired.state.path), wired.state.in_the_way()),
        *wired.writing(),
        *preflight.state_in_images(str(wired.state.path), _readers_of_the_state(wired, wanted)),
    ]
    found = [*here, *wired.findings(wanted), *_proxy_findings(wired, wanted)]
    errors = any(f.severity is Severity.ERROR for f in found)
    return {"ok": not errors, **_parts(wired, compose), "findings": [_finding(f) for f in found]}


def _readers_of_the_state(wired: Wired, wanted: Sequence[str]) -> list[str]:
    from rollout.watch.scope import build_contexts

    contexts = build_contexts(wired.loaded.document, wanted or wired.project.services)
    journal = str(wired.state.journal)
    return [name for name, found in contexts.items() if any(context.holds(journal) for context in found)]


def _service(wired: Wired, service: str, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Everything known of a service, JSON-able."""
    ports = wired.ports
    pool = ports.proxy.pool(service)
    live = live_revision(ports.journal, service, replicas, pool)
    warm, unfinished = ports.journal.warm(service), ports.journal.unfinished(service)
    return {
        "service": service,
        "live": {"revision": live.number, "image": live.image, **asdict(live.key)} if live else None,
        "wanted": wired.project.services[service].replicas,
        "stale": _stale(pool, replicas),
        "replicas": _replicas(wired, replicas, pool, frozenset(warm.replicas if warm else ())),
        "warm": {"revision": warm.revision, "until": warm.until} if warm else None,
        "unfinished": _unfinished(ports.journal, unfinished),
        "lock": wired.lock.holder(service),
    }


def _unfinished(journal: Journal, record: RolloutRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    wishes = journal.wishes(record.id)
    now = standing(wishes)
    return {
        "rollout": record.id,
        "what": record.what,
        "state": condition(record, now, journal.last_step(record.id)),
        "revision": record.target.number,
        "since": record.started_at,
        "switched": record.switched,
        "by": now.aborted or now.paused,
        "wishes": [asdict(wish) for wish in wishes],
    }


def _proxy(wired: Wired) -> dict[str, Any]:
    try:
        wired.process.identity()
    except ProxyUnreachable as error:
        return {"running": False, "reason": error.message}
    return {"running": True, "where": wired.process.describe()}


def _replicas(
    wired: Wired, replicas: Sequence[Replica], pool: Pool | None, warm: frozenset[str]
) -> list[dict[str, Any]]:
    numbers = {r.key: r.number for replica in replicas[:1] for r in wired.ports.journal.revisions(replica.service)}
    routed = routed_ids(pool, replicas)
    upstreams = {u.name: u for u in pool.upstreams} if pool else {}

    def one(replica: Replica) -> dict[str, Any]:
        own = next(iter(replica.addresses.values()), "")
        upstream = upstreams.get(upstream_name(replica))
        reached = upstream if upstream is not None and upstream.host in replica.addresses.values() else None
        return {
            "name": replica.name,
            "id": replica.id,
            "state": replica.state.value,
            "health": replica.health.value,
            "ready": replica.running and replica.health in (Health.NONE, Health.HEALTHY),
            "revision": numbers.get(replica.key),
            "image": replica.image,
            "address": reached.address if reached else own,
            "pool": "in" if replica.id in routed else "warm" if replica.id in warm else "out",
            "weight": reached.weight if reached else 0,
        }

    return [one(replica) for replica in replicas]


def _stale(pool: Pool | None, replicas: Sequence[Replica]) -> list[str]:
    """Addresses in the pool at which no replica is any more: it could not be changed, or was left as it was."""
    there = {(upstream_name(r), host) for r in replicas if r.running for host in r.addresses.values()}
    return [u.address for u in pool.upstreams if (u.name, u.host) not in there] if pool else []


def _parts(wired: Wired, compose: tuple[int, int]) -> dict[str, str]:
    return {
        "engine": f"Docker {wired.engine.version()}, API {wired.connection.client.api_version}",
        "compose": f"{compose[0]}.{compose[1]}, {' '.join(wired.compose.program)}",
        "project": f"{wired.project.name}, {wired.project.directory}",
        "services": ", ".join(wired.project.services),
        "proxy": f"{wired.project.proxy.type.value}, {wired.process.describe()}",
        "state": str(wired.state.path),
    }


def _proxy_findings(wired: Wired, services: Sequence[str]) -> list[Finding]:
    """What the proxy says of itself; that it cannot be reached is one of the things to find."""
    found: list[Finding] = []
    try:
        found += wired.proxy.findings()
        for name in services or tuple(wired.project.services):
            wired.proxy.network(wired.project.services[name])
    except SpecError as error:
        found += [Finding(Severity.ERROR, "spec", f.path, f.message, f.hint) for f in error.faults]
    except RolloutError as error:
        # without the upstreams that its configuration names it would not start
        rendered = any(wired.proxy.pool(name) is not None for name in wired.project.services)
        fix = error.hint if rendered else f"rollout render, then {error.hint}"
        found.append(Finding(Severity.ERROR, "proxy-unreachable", "x-rollout.proxy", error.message, fix))
    return found


def _rollout(record: RolloutRecord) -> dict[str, Any]:
    return {
        "rollout": record.id,
        "service": record.service,
        "what": record.what,
        "state": record.state,
        "strategy": record.strategy,
        "revision": record.target.number,
        "image": record.target.image,
        "started_at": record.started_at,
        "receipt": dict(record.receipt),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.value,
        "code": finding.code,
        "where": finding.where,
        "message": finding.message,
        "fix": finding.fix,
    }
