"""What only the real engine can show; what every engine must do is in tests/contract/test_engine.py."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from rollout.engines.docker import ContainerProcess, DockerEngine, DockerRegistry
from rollout.engines.docker.calls import ENGINE_CALLS, matching
from rollout.engines.docker.cgroup import usage as cgroup_usage
from rollout.errors import ComposeError, DeployFailed, EngineError, ProxyUnreachable
from rollout.model import Health, Replica, ReplicaState
from rollout.ports import Mount
from rollout.waiting import wait_for
from tests.contract.docker_bench import APP, DockerBench

pytestmark = pytest.mark.e2e

NGINX = "rollout-test/nginx:1.26"
SLEEPER = {"image": APP, "command": ["sleep", "600"], "stop_grace_period": "1s", "init": True}


@contextmanager
def project(services: Mapping[str, Any], **others: Any) -> Iterator[DockerBench]:
    bench = DockerBench(services, **others)
    try:
        yield bench
    finally:
        bench.close()


def started(bench: DockerBench, service: str = "web") -> str:
    (replica_id,) = bench.docker.create(service, 1, None)
    bench.docker.start(replica_id)
    return replica_id


def look(bench: DockerBench, replica_id: str) -> Replica:
    replica = bench.docker.inspect(replica_id)
    assert replica is not None
    return replica


def until(bench: DockerBench, true: Callable[[], bool], timeout: float = 60) -> None:
    wait_for(bench.clock, lambda: true() or None, timeout=timeout)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


# --- start and create -----------------------------------------------------------------------------------------


def test_a_program_that_does_not_exist_is_a_failed_deploy() -> None:
    with project({"web": {"image": APP, "command": ["no-such-program"]}}) as bench:
        (replica_id,) = bench.docker.create("web", 1, None)
        with pytest.raises(DeployFailed, match=r"no-such-program.*executable file not found"):
            bench.docker.start(replica_id)
        assert not look(bench, replica_id).running


def test_a_port_that_is_taken_is_a_failed_deploy() -> None:
    with project({"first": {**SLEEPER, "ports": ["80"]}, "web": SLEEPER}) as bench:
        taken = docker("port", started(bench, "first"), "80").splitlines()[0].rpartition(":")[2]
        bench.project.write({"web": {**SLEEPER, "ports": [f"{taken}:80"]}})
        (replica_id,) = bench.docker.create("web", 1, None)
        with pytest.raises(DeployFailed, match=r"port is already allocated|address already in use"):
            bench.docker.start(replica_id)


def test_a_mount_that_is_missing_is_a_failed_deploy(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    mount = {"type": "bind", "source": str(source), "target": "/data", "bind": {"create_host_path": False}}
    with project({"web": {**SLEEPER, "volumes": [mount]}}) as bench:
        (replica_id,) = bench.docker.create("web", 1, None)
        source.rmdir()
        with pytest.raises(DeployFailed, match=str(source)):
            bench.docker.start(replica_id)


def test_create_that_fails_leaves_no_container_behind() -> None:
    with project({"web": SLEEPER}) as bench:

        def half(service: str, total: int, config: str | None) -> None:
            bench.project.create(service, total, config)
            raise ComposeError("and then it failed")

        def one_too_few(service: str, total: int, config: str | None) -> None:
            bench.project.create(service, total - 1, config)

        kept = started(bench)
        with pytest.raises(ComposeError, match="and then it failed"):
            bench.make_engine(half).create("web", 2, None)
        with pytest.raises(EngineError, match="2 new containers of web were asked for, Compose made 1"):
            bench.make_engine(one_too_few).create("web", 2, None)
        assert [replica.id for replica in bench.docker.replicas("web")] == [kept]


def test_compose_up_afterwards_recreates_nothing() -> None:
    with project({"web": {**SLEEPER, "deploy": {"replicas": 1}}}) as bench:
        replica_id = started(bench)
        bench.project("up", "--detach", "--no-build")
        assert [replica.id for replica in bench.docker.replicas("web")] == [replica_id]


# --- stop and remove ------------------------------------------------------------------------------------------


def test_an_app_that_ignores_sigterm_is_killed_at_the_limit() -> None:
    environment = {"ON_TERM": "ignore"}
    with project({"web": {"image": APP, "environment": environment, "stop_grace_period": "1s"}}) as bench:
        replica_id = started(bench)
        until(bench, lambda: bench.docker.logs(replica_id, 1) != [])
        begun = time.monotonic()
        bench.docker.stop(replica_id, 2.0)
        assert 1.9 < time.monotonic() - begun < 9, "neither the container's own second nor the engine's ten"
        assert look(bench, replica_id).exit_code == 137


def test_without_a_limit_the_container_s_own_counts() -> None:
    environment = {"ON_TERM": "ignore"}
    with project({"web": {"image": APP, "environment": environment, "stop_grace_period": "1s"}}) as bench:
        replica_id = started(bench)
        until(bench, lambda: bench.docker.logs(replica_id, 1) != [])
        begun = time.monotonic()
        bench.docker.stop(replica_id, None)
        assert 0.9 < time.monotonic() - begun < 9, "not the engine's ten"


def test_the_stop_signal_is_the_service_s_own() -> None:
    command = ["sh", "-c", "trap 'echo got USR1; exit 7' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"]
    service = {"image": APP, "command": command, "stop_signal": "SIGUSR1", "stop_grace_period": "10s"}
    with project({"web": service}) as bench:
        replica_id = started(bench)
        until(bench, lambda: bench.docker.logs(replica_id, 1) == ["ready"])
        bench.docker.stop(replica_id, None)
        assert bench.docker.logs(replica_id, 1) == ["got USR1"]
        assert look(bench, replica_id).exit_code == 7


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_a_restart_policy_does_not_bring_back_what_was_stopped(policy: str) -> None:
    with project({"web": {**SLEEPER, "restart": policy}}) as bench:
        stopped, crashed = bench.docker.create("web", 2, None)
        for replica_id in (stopped, crashed):
            bench.docker.start(replica_id)
        bench.docker.stop(stopped, 1.0)
        before = look(bench, stopped)
        assert before.state is ReplicaState.EXITED
        # the policy works: one that crashed later is back, so the stopped one would be as well
        # (detached: the command may itself be killed with its container)
        docker("exec", "--detach", crashed, "sh", "-c", "kill -TERM 1")
        until(bench, lambda: look(bench, crashed).restart_count == 1 and look(bench, crashed).running)
        assert look(bench, stopped) == before


def test_a_paused_replica_can_be_stopped() -> None:
    with project({"web": SLEEPER}) as bench:
        replica_id = started(bench)
        docker("pause", replica_id)
        assert look(bench, replica_id).state is ReplicaState.PAUSED
        assert not look(bench, replica_id).running
        bench.docker.stop(replica_id, 1.0)
        assert look(bench, replica_id).state is ReplicaState.EXITED


def test_remove_takes_anonymous_volumes_along_and_leaves_named_ones() -> None:
    with project({"web": {**SLEEPER, "volumes": ["/scratch", "kept:/kept"]}}, volumes={"kept": {}}) as bench:
        replica_id = started(bench)
        names = docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", replica_id).split()
        bench.docker.stop(replica_id, 1.0)
        bench.docker.remove(replica_id)
        left = set(docker("volume", "ls", "--quiet").splitlines())
        assert left & set(names) == {f"{bench.project.name}_kept"}


# --- what is seen ---------------------------------------------------------------------------------------------


def test_others_containers_are_not_seen_and_not_touched() -> None:
    with project({"web": SLEEPER}) as bench, project({"web": SLEEPER}) as others:
        own, foreign = started(bench), started(others)
        bench.project("run", "--detach", "--rm", "web", "sleep", "600")
        assert [replica.id for replica in bench.docker.replicas("web")] == [own]
        assert bench.docker.inspect(foreign) is None
        assert bench.docker.logs(foreign, 5) == []
        bench.docker.stop(foreign, 0.0)
        bench.docker.remove(foreign)
        with pytest.raises(EngineError):
            bench.docker.start(foreign)
        assert look(others, foreign).running


def test_docker_s_health_in_the_list_and_in_detail() -> None:
    healthcheck = {"test": ["CMD-SHELL", "test ! -e /sick || (echo no database; exit 1)"], "interval": "200ms"}
    with project({"web": {**SLEEPER, "healthcheck": {**healthcheck, "retries": 1}}}) as bench:

        def is_now(health: Health) -> bool:
            (listed,) = bench.docker.replicas("web")
            return listed.health is health and look(bench, listed.id).health is health

        (replica_id,) = bench.docker.create("web", 1, None)
        assert is_now(Health.NONE)
        bench.docker.start(replica_id)
        assert look(bench, replica_id).health in (Health.STARTING, Health.HEALTHY)
        until(bench, lambda: is_now(Health.HEALTHY))
        docker("exec", replica_id, "touch", "/sick")
        until(bench, lambda: is_now(Health.UNHEALTHY))
        assert look(bench, replica_id).health_log[-1] == "exit code 1: no database"
        bench.docker.stop(replica_id, 1.0)
        assert is_now(Health.NONE)


def test_addresses_by_network() -> None:
    services = {"web": {**SLEEPER, "networks": ["front", "back"]}}
    with project(services, networks={"front": {}, "back": {"internal": True}}) as bench:
        addresses = look(bench, started(bench)).addresses
        assert set(addresses) == {f"{bench.project.name}_front", f"{bench.project.name}_back"}
        assert len(set(addresses.values())) == 2


def test_usage_is_the_engine_s_own_number_without_asking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with project({"web": SLEEPER}) as bench:
        replica_id = started(bench)
        docker("exec", replica_id, "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")

        def was_asked() -> bool:
            return any(path.endswith("/stats") for _, path in bench.requests.made)

        direct = bench.docker.usage(replica_id)
        assert not was_asked(), "an engine may take a second to answer"
        monkeypatch.setattr("rollout.engines.docker.engine.cgroup.usage", lambda *_: None)
        asked = bench.docker.usage(replica_id)
        assert was_asked()
        assert direct is not None
        assert asked is not None
        assert 0.05 < direct.cpu_seconds <= asked.cpu_seconds < direct.cpu_seconds + 0.5
        assert asked.memory_bytes == pytest.approx(direct.memory_bytes, rel=0.5)


def test_usage_of_another_process_with_that_pid_is_not_taken() -> None:
    assert cgroup_usage(1, "f" * 64) is None
    assert cgroup_usage(2**22 + 1, "f" * 64) is None


# --- commands -------------------------------------------------------------------------------------------------


def test_exec() -> None:
    with project({"web": SLEEPER}) as bench:
        replica_id = started(bench)

        def run(*argv: str, **settings: Any) -> tuple[int, str]:
            result = bench.docker.exec(replica_id, argv, **settings)
            return result.exit_code, result.output

        code, output = run("sh", "-c", "echo out; echo err >&2; exit 3")
        assert (code, sorted(output.splitlines())) == (3, ["err", "out"])  # the engine may swap the two streams
        assert run("echo", "$HOME; a  b") == (0, "$HOME; a  b\n")
        assert run("id", "-u", user="65534") == (0, "65534\n")
        assert run("no-such-program")[0] == 127
        assert run("/no/such/program")[0] == 127
        assert run("/etc/passwd")[0] == 126
        code, output = run("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
        assert (code, len(output)) == (0, 3_000_000)
        begun = time.monotonic()
        with pytest.raises(EngineError, match=r"timed out after 0\.3s"):
            run("sleep", "60", timeout=0.3)
        with pytest.raises(EngineError, match=r"timed out after 0\.5s"):
            run("sh", "-c", "while echo busy; do sleep 0.1; done", timeout=0.5)
        began = bench.clock.now()
        with pytest.raises(EngineError, match="timed out after 2s"):
            run("sh", "-c", "for i in 1 2 3 4; do sleep 1.5; echo $i; done; exec sleep 60", timeout=2.0)
        assert bench.clock.now() - began < 6.0, "the limit is on all of it, not on each silence: that would be 8 s"
        assert time.monotonic() - begun < 30


def test_the_first_output_of_a_command_is_never_lost() -> None:
    with project({"web": SLEEPER}) as bench:
        replica_id = started(bench)
        for number in range(10):
            assert bench.docker.exec(replica_id, ["echo", str(number)]).output == f"{number}\n"


# --- the proxy's container ------------------------------------------------------------------------------------


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[tuple[DockerBench, ContainerProcess, Path]]:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "web.conf").write_text("# pools\n")
    (tmp_path / "nested").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "below").mkdir()
    (tmp_path / "one.conf").write_text("one\n")
    (tmp_path / "link").symlink_to(tmp_path / "conf.d")
    service = {
        "image": NGINX,
        "stop_grace_period": "1s",
        "volumes": [
            f"{tmp_path}/conf.d:/etc/rollout.d",
            f"{tmp_path}/nested:/etc/rollout.d/nested:ro",
            f"{tmp_path}/one.conf:/etc/one.conf:ro",
            f"{tmp_path}/hidden:/srv",
            "data:/data",
        ],
        "tmpfs": ["/srv/below"],
    }
    with project({"edge": service}, volumes={"data": {}}) as bench:
        bench.project("up", "--detach", "edge")
        yield bench, ContainerProcess(bench.connection, bench.project.name, service="edge"), tmp_path


def test_the_proxy_s_mounts(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    bench, process, here = edge
    assert process.mount(str(here / "conf.d")) == Mount("/etc/rollout.d")
    assert process.mount(str(here / "conf.d" / "web.conf")) == Mount("/etc/rollout.d/web.conf")
    assert process.mount(str(here / "link" / "web.conf")) == Mount("/etc/rollout.d/web.conf")
    assert process.mount(str(here / "nested")) == Mount("/etc/rollout.d/nested", read_only=True)
    assert process.mount(str(here / "one.conf")) == Mount("/etc/one.conf", single_file=True, read_only=True)
    assert process.mount(str(here / "hidden" / "x")) == Mount("/srv/x")
    assert process.mount(str(here / "hidden" / "below")) is None  # the tmpfs hides it
    assert process.mount(str(here / "conf.d" / "nested" / "x")) is None  # another mount hides it
    assert process.mount(str(here)) is None
    assert process.mount("/somewhere/else") is None
    volume = docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{bench.project.name}_data")
    assert process.mount(f"{volume}/x") == Mount("/data/x")

    assert process.host_path("/etc/rollout.d/web.conf") == str(here / "conf.d" / "web.conf")
    assert process.host_path("/etc/rollout.d/nested/x") == str(here / "nested" / "x")
    assert process.host_path("/etc/one.conf") == str(here / "one.conf")
    assert process.host_path("/data/x") == f"{volume}/x"
    assert process.host_path("/srv/below/x") is None
    assert process.host_path("/etc/passwd") is None


def test_the_kernel_and_the_engine_list_the_same_processes(
    edge: tuple[DockerBench, ContainerProcess, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, process, _ = edge
    asks = Mock(wraps=bench.connection.client.top)
    monkeypatch.setattr(bench.connection.client, "top", asks)

    def from_the_engine() -> set[tuple[int, str]]:
        with monkeypatch.context() as blind:
            blind.setattr("rollout.engines.docker.container.cgroup.processes", lambda *_: None)
            return {(p.pid, p.title) for p in process.processes()}

    until(bench, lambda: any("nginx" in p.title for p in process.processes()))  # the engine's own program until then
    asks.assert_not_called()
    # nginx has only just begun, and names its processes one after the other
    until(bench, lambda: {(p.pid, p.title) for p in process.processes()} == from_the_engine())
    asks.assert_called()


def test_the_proxy_s_processes_and_signals(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    bench, process, _ = edge

    def workers() -> set[int]:
        return {p.pid for p in process.processes() if p.title == "nginx: worker process"}

    until(bench, lambda: len(workers()) > 0)
    assert any(p.title.startswith("nginx: master process") for p in process.processes())
    assert process.argv()[0].endswith("nginx")
    old = workers()
    process.signal("HUP")
    until(bench, lambda: len(workers()) > 0 and not workers() & old)
    assert process.exec(["nginx", "-t"]).exit_code == 0


def test_the_proxy_s_output_since(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    bench, process, _ = edge
    since = bench.clock.wall()
    docker("exec", process.identity().partition("@")[0], "sh", "-c", "echo to-stdout >/proc/1/fd/1")
    docker("exec", process.identity().partition("@")[0], "sh", "-c", "echo to-stderr >/proc/1/fd/2")
    until(bench, lambda: {"to-stdout", "to-stderr"} <= set(process.output(since)))
    assert "to-stdout" in process.output(0)
    assert process.output(bench.clock.wall() + 1) == []


def test_the_proxy_s_files(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    _, process, _ = edge
    assert process.read("/etc/one.conf") == b"one\n"
    assert process.read("/etc/rollout.d/web.conf") == b"# pools\n"
    os_release = process.read("/etc/os-release")  # a symbolic link
    assert os_release is not None
    assert b"ID=debian" in os_release
    assert process.read("/etc/no-such-file") is None
    assert process.read("/etc/passwd/below") is None
    assert process.read("/etc") is None


def test_the_proxy_s_identity_changes_with_a_restart(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    bench, process, _ = edge
    first = process.identity()
    assert process.identity() == first
    bench.project("restart", "--timeout", "1", "edge")
    second = process.identity()
    assert second != first
    bench.project("up", "--detach", "--force-recreate", "--timeout", "1", "edge")
    third = process.identity()
    assert third.partition("@")[0] != second.partition("@")[0]
    assert process.processes() != []


def test_commands_beside_the_proxy(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    """By a shell that is kept open where there is one, with the same results as by the engine itself."""
    bench, process, _ = edge

    def run(*argv: str, **settings: Any) -> tuple[int, str]:
        result = process.exec(argv, **settings)
        return result.exit_code, result.output

    def shells() -> int:
        return sum("IFS= read" in p.title for p in process.processes())

    assert run("echo", "$HOME; a  b", '"', "", "'$(id)'") == (0, "$HOME; a  b \"  '$(id)'\n")
    assert run("sh", "-c", "echo out; echo err >&2; printf end; exit 3") == (3, "out\nerr\nend")
    assert run("id", "-u", user="65534") == (0, "65534\n")
    assert run("no-such-program")[0] == 127
    assert run("exit", "0")[0] == 127, "a name is a program's, not one of the shell's own commands"
    assert run("/etc/passwd")[0] == 126
    assert run("echo", "two\nlines") == (0, "two\nlines\n")
    code, output = run("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
    assert (code, len(output)) == (0, 3_000_000)
    for script in ("sleep 4", "i=0; while [ $i -lt 40 ]; do i=$((i + 1)); echo busy; sleep 0.1; done"):
        with pytest.raises(EngineError, match=r"timed out after 0\.3s"):
            run("sh", "-c", script, timeout=0.3)
    assert run("echo", "again") == (0, "again\n")
    until(bench, lambda: shells() == 2)  # one for each user; those whose command took too long have ended with it
    bench.connection.close()
    until(bench, lambda: shells() == 0)


def test_an_image_without_a_shell() -> None:
    with project({"edge": SLEEPER | {"volumes": ["/dev/null:/bin/sh:ro", "/dev/null:/bin/dash:ro"]}}) as bench:
        bench.project("up", "--detach", "--no-build")
        process = ContainerProcess(bench.connection, bench.project.name, service="edge")
        assert [process.exec(["echo", "once"]).output for _ in range(2)] == ["once\n"] * 2


def test_a_proxy_that_is_not_running(edge: tuple[DockerBench, ContainerProcess, Path]) -> None:
    bench, process, _ = edge
    assert process.describe() == "the proxy (service edge)"
    process.identity()
    assert process.describe() == f"container {bench.project.name}-edge-1 (service edge)"
    bench.project("stop", "--timeout", "1", "edge")
    calls: tuple[Callable[[], object], ...] = (
        process.identity,
        process.argv,
        process.processes,
        process.networks,
        lambda: process.exec(["true"]),
        lambda: process.signal("HUP"),
        lambda: process.mount("/x"),
    )
    for call in calls:
        with pytest.raises(ProxyUnreachable, match="not running") as caught:
            call()
        assert caught.value.hint == "docker compose up -d edge"
    named = ContainerProcess(bench.connection, bench.project.name, container=f"{bench.project.name}-edge-1")
    with pytest.raises(ProxyUnreachable) as caught:
        named.processes()
    assert caught.value.hint.startswith(f"docker start {bench.project.name}-edge-1;")
    bench.project("start", "edge")
    assert named.identity() == process.identity()


def test_a_proxy_that_keeps_crashing_is_not_running() -> None:
    with project({"edge": {"image": APP, "command": ["false"], "restart": "always"}}) as bench:
        bench.project("up", "--detach", "--no-build")
        (replica,) = bench.docker.replicas("edge")
        until(bench, lambda: look(bench, replica.id).restart_count >= 5)  # each pause is twice the one before
        until(bench, lambda: look(bench, replica.id).state is ReplicaState.RESTARTING)
        process = ContainerProcess(bench.connection, bench.project.name, service="edge")
        with pytest.raises(ProxyUnreachable):
            process.identity()
        bench.docker.stop(replica.id, 0.0)
        assert look(bench, replica.id).state is ReplicaState.EXITED


def test_a_container_is_found_by_its_whole_name() -> None:
    with project({"edge": SLEEPER}) as bench:
        bench.project("up", "--detach", "--no-build", "--scale", "edge=2")
        docker("rename", f"{bench.project.name}-edge-2", f"{bench.project.name}-edge-11")
        for number in (1, 11):
            name = f"{bench.project.name}-edge-{number}"
            process = ContainerProcess(bench.connection, bench.project.name, container=name)
            assert process.exec(["true"]).exit_code == 0
            assert process.describe() == f"container {name}"
        service = ContainerProcess(bench.connection, bench.project.name, service="edge")
        with pytest.raises(EngineError, match="2 running containers"):
            service.identity()


def test_the_proxy_s_networks() -> None:
    services = {
        "edge": {**SLEEPER, "networks": ["front"]},
        "inside": {**SLEEPER, "network_mode": "service:edge"},
        "host": {**SLEEPER, "network_mode": "host"},
        "alone": {**SLEEPER, "network_mode": "none"},
    }
    with project(services, networks={"front": {}}) as bench:
        bench.project("up", "--detach")

        def networks(service: str) -> Mapping[str, str]:
            return ContainerProcess(bench.connection, bench.project.name, service=service).networks()

        assert list(networks("edge")) == [f"{bench.project.name}_front"]
        assert networks("inside") == networks("edge")
        assert networks("host") == {"host": "127.0.0.1"}
        assert networks("alone") == {}


# --- the published table of requests --------------------------------------------------------------------------


def test_every_row_of_the_table_is_a_request_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with project({"web": SLEEPER}) as bench:
        engine: DockerEngine = bench.docker
        assert engine.version()
        replica_id = started(bench)
        process = ContainerProcess(bench.connection, bench.project.name, service="web")
        engine.logs(replica_id, 1)
        monkeypatch.setattr("rollout.engines.docker.container.cgroup.processes", lambda *_: None)
        process.processes()
        process.read("/etc/hostname")
        process.signal("WINCH")
        engine.exec(replica_id, ["true"])
        monkeypatch.setattr("rollout.engines.docker.engine.cgroup.usage", lambda *_: None)
        engine.usage(replica_id)
        image_id = engine.image_id(APP)
        assert image_id is not None
        engine.tag(image_id, f"{bench.project.name}:kept")
        assert engine.tags(bench.project.name) == [f"{bench.project.name}:kept"]
        engine.untag(f"{bench.project.name}:kept")
        engine.stop(replica_id, 1.0)
        engine.remove(replica_id)
        engine.watch().close()
        with pytest.raises(EngineError):
            DockerRegistry(bench.connection).offered("127.0.0.1:1/nobody/listens:1")
        # the first request of a connection precedes the recording
        made = {matching(*request) for request in bench.requests.made} | {matching("GET", "/_ping")}
        assert made == set(ENGINE_CALLS)
