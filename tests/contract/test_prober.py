"""What every prober must do (`ports.Prober`): the real one against real containers, the fake in its world.

How a real probe behaves towards strange servers is in tests/unit/test_probes.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import pytest

from rollout.model import HealthCheck, Replica
from rollout.ports import Clock, Engine, Prober
from rollout.probes import Probes
from rollout.waiting import wait_for
from tests.contract.docker_bench import APP, DockerBench
from tests.contract.fake_bench import FakeBench
from tests.simulation.fakes import FakeProber

PORT = 8000
CHECK = HealthCheck(path="/healthz", timeout=2.0)


class Bench(Protocol):
    """A prober, and an engine with a service whose replicas pass their check, or fail it."""

    prober: Prober
    engine: Engine
    clock: Clock
    service: str

    def __init__(self, *, healthy: bool) -> None: ...

    def close(self) -> None: ...


class RealProbes:
    def __init__(self, *, healthy: bool) -> None:
        environment = {"HEALTH": "ok" if healthy else "fail"}
        self.bench = DockerBench({"web": {"image": APP, "stop_grace_period": "1s", "environment": environment}})
        self.engine, self.clock, self.service = self.bench.engine, self.bench.clock, self.bench.service
        self.prober: Prober = Probes(self.engine, self.clock)

    def close(self) -> None:
        self.bench.close()


class FakeProbes:
    def __init__(self, *, healthy: bool) -> None:
        self.bench = FakeBench()
        for image in self.bench.world.images.values():
            image.healthy = healthy
        self.engine, self.clock, self.service = self.bench.engine, self.bench.clock, self.bench.service
        self.prober: Prober = FakeProber(self.bench.world)

    def close(self) -> None:
        self.bench.close()


BENCHES: dict[str, type[Bench]] = {"real": RealProbes, "fake": FakeProbes}


@pytest.fixture(params=BENCHES, ids=str)
def kind(request: pytest.FixtureRequest) -> type[Bench]:
    return BENCHES[request.param]


@contextmanager
def made(kind: type[Bench], *, healthy: bool) -> Iterator[tuple[Bench, Replica]]:
    bench = kind(healthy=healthy)
    try:
        (replica_id,) = bench.engine.create(bench.service, 1, None)
        bench.engine.start(replica_id)
        (replica,) = bench.engine.replicas(bench.service)
        yield bench, replica
    finally:
        bench.close()


def address(replica: Replica) -> str:
    return next(iter(replica.addresses.values()))


def become(bench: Bench, replica: Replica, wanted: str | None) -> None:
    """Probe until the answer is `wanted`; a replica takes a moment to boot."""

    def look() -> bool | None:
        return True if bench.prober.probe(replica, address(replica), CHECK, PORT) == wanted else None

    wait_for(bench.clock, look, timeout=10)


def test_a_ready_replica_passes_again_and_again(kind: type[Bench]) -> None:
    with made(kind, healthy=True) as (bench, replica):
        become(bench, replica, None)
        assert [bench.prober.probe(replica, address(replica), CHECK, PORT) for _ in range(3)] == [None] * 3


def test_a_sick_replica_fails_with_its_status(kind: type[Bench]) -> None:
    with made(kind, healthy=False) as (bench, replica):
        become(bench, replica, "HTTP 503")
        assert bench.prober.probe(replica, address(replica), CHECK, PORT) == "HTTP 503"


def test_a_replica_that_has_stopped_fails_and_raises_nothing(kind: type[Bench]) -> None:
    with made(kind, healthy=True) as (bench, replica):
        become(bench, replica, None)
        bench.engine.stop(replica.id, 1.0)
        assert bench.prober.probe(replica, address(replica), CHECK, PORT)


def test_a_real_command_runs_in_the_replica() -> None:
    with made(RealProbes, healthy=True) as (bench, replica):
        passes = HealthCheck(command=("python3", "-c", "import socket; socket.gethostname()"), timeout=5.0)
        fails = HealthCheck(command=("sh", "-c", "echo no database >&2; exit 3"), timeout=5.0)
        hangs = HealthCheck(command=("sleep", "30"), timeout=0.2)
        missing = HealthCheck(command=("no-such-program",), timeout=5.0)
        assert bench.prober.probe(replica, "", passes, PORT) is None
        assert bench.prober.probe(replica, "", fails, PORT) == "exit code 3: no database"
        assert bench.prober.probe(replica, "", hangs, PORT) == "timed out after 0.2s"
        assert str(bench.prober.probe(replica, "", missing, PORT)).startswith("exit code 127")
        bench.engine.stop(replica.id, 1.0)
        assert "not running" in str(bench.prober.probe(replica, "", passes, PORT))
