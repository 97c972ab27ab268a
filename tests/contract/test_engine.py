"""What every engine must do (`ports.Engine`, `ports.Images`), the real one and the fake alike.

An implementation joins by a `Bench` and a line in BENCHES. What only the real engine can show is in tests/e2e.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Protocol

import pytest

from rollout.errors import EngineError
from rollout.model import Replica, ReplicaState
from rollout.ports import Clock, Engine, Images
from rollout.waiting import wait_for
from tests.contract.docker_bench import DockerBench
from tests.contract.fake_bench import FakeBench

KEPT = f"rollout-contract/kept-{os.getpid()}:1"


class Bench(Protocol):
    """An engine with one service in it, of which nothing has been created yet."""

    engine: Engine
    images: Images
    clock: Clock
    service: str
    config: str  # the project as Compose resolves it
    image: str  # a reference the engine has

    def die(self, replica_id: str) -> None:
        """Make the replica exit by itself, with a failure."""

    def close(self) -> None:
        """Remove everything; check what can only be checked afterwards."""


BENCHES: dict[str, type[Bench]] = {"docker": DockerBench, "fake": FakeBench}


@pytest.fixture(params=BENCHES, ids=str)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = BENCHES[request.param]()
    try:
        yield made
    finally:
        made.close()


def running(bench: Bench, count: int = 1) -> list[str]:
    ids = bench.engine.create(bench.service, count, None)
    for replica_id in ids:
        bench.engine.start(replica_id)
    return ids


def seen(bench: Bench, replica_id: str) -> Replica:
    replica = bench.engine.inspect(replica_id)
    assert replica is not None
    return replica


def gone(bench: Bench) -> str:
    (replica_id,) = bench.engine.create(bench.service, 1, None)
    bench.engine.remove(replica_id)
    return replica_id


def test_a_service_without_containers_has_no_replicas(bench: Bench) -> None:
    assert bench.engine.replicas(bench.service) == []
    assert bench.engine.replicas("no-such-service") == []


def test_create_makes_that_many_and_starts_none(bench: Bench) -> None:
    ids = bench.engine.create(bench.service, 2, None)
    found = bench.engine.replicas(bench.service)
    assert len(set(ids)) == 2
    assert {replica.id for replica in found} == set(ids)
    assert [replica.number for replica in found] == [1, 2]
    for replica in found:
        assert replica.state is ReplicaState.CREATED
        assert replica.service == bench.service
        assert replica.addresses == {}
        assert len(replica.id) == 64
        assert replica.key.config_hash
        assert replica.key.image_id == bench.images.image_id(bench.image)


def test_create_adds_to_what_is_there_in_whatever_state(bench: Bench) -> None:
    stays, stopped = running(bench, 2)
    bench.engine.stop(stopped, 1.0)
    (never_started,) = bench.engine.create(bench.service, 1, None)
    before = {replica.id: replica for replica in bench.engine.replicas(bench.service)}

    new = bench.engine.create(bench.service, 1, None)

    after = {replica.id: replica for replica in bench.engine.replicas(bench.service)}
    assert set(after) == {stays, stopped, never_started, *new}
    assert {replica_id: after[replica_id] for replica_id in before} == before


def test_replicas_are_sorted_by_number(bench: Bench) -> None:
    bench.engine.create(bench.service, 3, None)
    numbers = [replica.number for replica in bench.engine.replicas(bench.service)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 3


def test_a_started_replica_runs_and_has_an_address(bench: Bench) -> None:
    (replica_id,) = running(bench)
    (replica,) = bench.engine.replicas(bench.service)
    assert replica.id == replica_id
    assert replica.running
    assert list(replica.addresses.values()) != [""]
    assert len(replica.addresses) == 1


def test_all_replicas_are_those_of_each_service(bench: Bench) -> None:
    assert bench.engine.all_replicas() == {}
    running(bench, 2)
    bench.engine.create(bench.service, 1, None)
    assert bench.engine.all_replicas() == {bench.service: bench.engine.replicas(bench.service)}


def test_what_happens_to_a_service_is_a_hint(bench: Bench) -> None:
    """Also what happened before anybody iterates; each of the three alone is enough to look again."""
    (replica_id,) = bench.engine.create(bench.service, 1, None)
    for change in (bench.engine.start, bench.die, bench.engine.remove):
        next_second(bench)  # a watch tells all of the second that it begins in
        watch = bench.engine.watch()
        change(replica_id)
        assert next(iter(watch)) == bench.service
        watch.close()


def next_second(bench: Bench) -> None:
    now = int(bench.clock.wall())
    wait_for(bench.clock, lambda: True if bench.clock.wall() >= now + 1 else None, timeout=10)


def test_a_watch_is_ended_from_another_thread(bench: Bench) -> None:
    watch = bench.engine.watch()
    closer = threading.Timer(0.2, watch.close)
    closer.start()
    assert list(watch) == []
    closer.join()
    watch.close()
    assert list(watch) == []


def test_inspect_agrees_with_the_list_and_knows_more(bench: Bench) -> None:
    (replica_id,) = running(bench)
    (listed,) = bench.engine.replicas(bench.service)
    inspected = seen(bench, replica_id)
    same = ("id", "name", "service", "number", "key", "state", "health", "addresses", "created_at")
    assert {name: getattr(listed, name) for name in same} == {name: getattr(inspected, name) for name in same}
    assert inspected.started_at > 0
    assert inspected.exit_code is None
    assert inspected.restart_count == 0


def test_starting_what_runs_does_nothing(bench: Bench) -> None:
    (replica_id,) = running(bench)
    before = seen(bench, replica_id)
    bench.engine.start(replica_id)
    assert seen(bench, replica_id) == before


def test_starting_what_is_gone_is_an_error(bench: Bench) -> None:
    replica_id = gone(bench)
    with pytest.raises(EngineError, match=replica_id[:12]):
        bench.engine.start(replica_id)


def test_stop_returns_once_it_has_exited(bench: Bench) -> None:
    (replica_id,) = running(bench)
    bench.engine.stop(replica_id, None)
    replica = seen(bench, replica_id)
    assert replica.state is ReplicaState.EXITED
    assert replica.exit_code is not None
    assert replica.addresses == {}


def test_stop_does_nothing_when_there_is_nothing_to_stop(bench: Bench) -> None:
    (replica_id,) = bench.engine.create(bench.service, 1, None)
    bench.engine.stop(replica_id, 1.0)
    assert seen(bench, replica_id).state is ReplicaState.CREATED
    bench.engine.start(replica_id)
    bench.engine.stop(replica_id, 1.0)
    bench.engine.stop(replica_id, 1.0)
    assert seen(bench, replica_id).state is ReplicaState.EXITED
    bench.engine.remove(replica_id)
    bench.engine.stop(replica_id, 1.0)


def test_what_was_stopped_can_be_started_again(bench: Bench) -> None:
    (replica_id,) = running(bench)
    bench.engine.stop(replica_id, 1.0)
    bench.engine.start(replica_id)
    assert seen(bench, replica_id).running


def test_remove_leaves_nothing_and_may_be_repeated(bench: Bench) -> None:
    stays, removed = running(bench, 2)
    bench.engine.stop(removed, 1.0)
    bench.engine.remove(removed)
    assert bench.engine.inspect(removed) is None
    assert [replica.id for replica in bench.engine.replicas(bench.service)] == [stays]
    bench.engine.remove(removed)


def test_remove_refuses_what_still_runs(bench: Bench) -> None:
    (replica_id,) = running(bench)
    with pytest.raises(EngineError, match="running"):
        bench.engine.remove(replica_id)
    assert seen(bench, replica_id).running


def test_a_replica_that_dies_has_exited_with_its_code(bench: Bench) -> None:
    (replica_id,) = running(bench)
    bench.die(replica_id)
    wait_for(bench.clock, lambda: None if seen(bench, replica_id).running else True, timeout=10)
    replica = seen(bench, replica_id)
    assert replica.state is ReplicaState.EXITED
    assert replica.exit_code not in (None, 0)


def test_logs_are_the_last_lines(bench: Bench) -> None:
    (replica_id,) = running(bench)
    wait_for(bench.clock, lambda: bench.engine.logs(replica_id, 10) or None, timeout=10)
    assert len(bench.engine.logs(replica_id, 1)) == 1
    assert all(not line.endswith("\n") for line in bench.engine.logs(replica_id, 10))


def test_logs_of_what_is_gone_are_empty(bench: Bench) -> None:
    assert bench.engine.logs(gone(bench), 10) == []


def test_inspect_of_what_is_gone_is_none(bench: Bench) -> None:
    assert bench.engine.inspect(gone(bench)) is None
    assert bench.engine.inspect("0" * 64) is None


def test_exec_answers_the_exit_code(bench: Bench) -> None:
    (replica_id,) = running(bench)
    assert bench.engine.exec(replica_id, ["true"]).exit_code == 0


def test_exec_needs_a_running_container(bench: Bench) -> None:
    (replica_id,) = bench.engine.create(bench.service, 1, None)
    with pytest.raises(EngineError, match="not running"):
        bench.engine.exec(replica_id, ["true"])


def test_usage_of_a_running_replica(bench: Bench) -> None:
    (replica_id,) = running(bench)
    usage = bench.engine.usage(replica_id)
    assert usage is not None
    assert usage.memory_bytes > 0
    assert 0 < usage.cpu_seconds < 60


def test_usage_of_anything_else_is_none(bench: Bench) -> None:
    (replica_id,) = bench.engine.create(bench.service, 1, None)
    assert bench.engine.usage(replica_id) is None
    bench.engine.start(replica_id)
    bench.engine.stop(replica_id, 1.0)
    assert bench.engine.usage(replica_id) is None
    bench.engine.remove(replica_id)
    assert bench.engine.usage(replica_id) is None


def test_an_unknown_image_has_no_id(bench: Bench) -> None:
    assert bench.images.image_id("rollout-contract/no-such:1") is None
    assert bench.images.image_id("sha256:" + "0" * 64) is None


def test_a_tag_is_another_name_of_the_same_image(bench: Bench) -> None:
    image_id = bench.images.image_id(bench.image)
    assert image_id is not None
    bench.images.tag(image_id, KEPT)
    try:
        bench.images.tag(image_id, KEPT)
        assert bench.images.image_id(KEPT) == image_id
        assert bench.images.image_id(image_id) == image_id
        assert bench.images.tags(KEPT.rpartition(":")[0]) == [KEPT]
    finally:
        bench.images.untag(KEPT)
    bench.images.untag(KEPT)
    assert bench.images.tags(KEPT.rpartition(":")[0]) == []
    assert bench.images.image_id(bench.image) == image_id


# --- one-off containers ---------------------------------------------------------------------------------------------

SLOW = ["sleep", "0.5"]


def started(bench: Bench, *argv: str) -> str:
    return bench.engine.start_job(bench.service, argv or SLOW, bench.config, {"ROLLOUT_HOOK": "pre_deploy"})


def ended(bench: Bench, job: str) -> Replica:
    def look() -> Replica | None:
        replica = seen(bench, job)
        return replica if replica.state is ReplicaState.EXITED else None

    return wait_for(bench.clock, look, timeout=20.0)


def test_a_job_is_no_replica_and_is_found_until_it_is_removed(bench: Bench) -> None:
    assert bench.engine.jobs(bench.service) == []
    job = started(bench)
    assert bench.engine.jobs(bench.service) == [job] and bench.engine.replicas(bench.service) == []
    assert bench.engine.jobs("no-such-service") == []
    assert ended(bench, job).exit_code == 0
    assert bench.engine.jobs(bench.service) == [job]
    bench.engine.remove(job)
    assert bench.engine.jobs(bench.service) == []


def test_a_job_can_be_stopped(bench: Bench) -> None:
    job = started(bench, "sleep", "1000")
    bench.engine.stop(job, 1.0)
    assert seen(bench, job).state is ReplicaState.EXITED
    bench.engine.remove(job)


def test_a_jobs_output_is_read_once(bench: Bench) -> None:
    job = started(bench, "sh", "-c", "echo begun; sleep 1; echo ended")
    lines, mark = list[str](), ""
    while "ended" not in lines:
        output = bench.engine.output(job, mark)
        lines, mark = [*lines, *output.lines], output.mark
        bench.clock.sleep(0.1)
    assert lines == ["begun", "ended"]
    assert bench.engine.output(job, mark).lines == ()
    ended(bench, job)
    bench.engine.remove(job)
    assert bench.engine.output(job, mark).lines == ()
