"""What the engine's answers and the kernel's files say, for those kinds that one machine cannot all show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.engines.docker import cgroup, jobs, reading
from rollout.engines.docker.calls import matching
from rollout.errors import EngineError
from rollout.model import Health, Usage
from rollout.ports import Process

ID = "5f" * 32


def listed(**changes: object) -> dict[str, object]:
    labels = {reading.SERVICE: "web", reading.NUMBER: "2", reading.CONFIG_HASH: "abc"}
    return {
        "Id": ID, "Names": ["/shop-web-2"], "Labels": labels, "State": "running", "Status": "Up 2 seconds",
        "ImageID": "sha256:1", "Image": "shop/web:1", "Created": 1700000000, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 2 seconds", Health.NONE),
        ("Up 2 seconds (health: starting)", Health.STARTING),
        ("Up About a minute (healthy)", Health.HEALTHY),
        ("Up 3 days (unhealthy)", Health.UNHEALTHY),
        ("Up 3 days (Paused)", Health.NONE),
        ("Exited (0) 2 hours ago", Health.NONE),
    ],
)
def test_health_in_the_list(status: str, health: Health) -> None:
    assert reading.listed(listed(Status=status)).health is health


def test_a_state_that_no_engine_had_until_now() -> None:
    with pytest.raises(EngineError, match="hibernating"):
        reading.listed(listed(State="hibernating"))


def test_ipv6_is_the_address_where_there_is_no_ipv4() -> None:
    networks = {
        "both": {"IPAddress": "10.0.0.2", "GlobalIPv6Address": "fd00::2"},
        "six": {"IPAddress": "", "GlobalIPv6Address": "fd01::2"},
        "none": {"IPAddress": "", "GlobalIPv6Address": ""},
        "null": None,
    }
    replica = reading.listed(listed(NetworkSettings={"Networks": networks}))
    assert replica.addresses == {"both": "10.0.0.2", "six": "fd01::2"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T22:13:20.5Z", 1700000000.5),
        ("2023-11-14T22:13:20.123456789Z", 1700000000.123456789),
        ("2023-11-15T00:13:20.25+02:00", 1700000000.25),
        ("2023-11-14T20:13:20-02:00", 1700000000.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
    ],
)
def test_timestamps(text: str, seconds: float) -> None:
    assert reading.timestamp(text) == pytest.approx(seconds, abs=1e-6)


class Printed:
    """As much of a connection as reading a container's output needs."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def call(self, _what: str, ask: Callable[[Any], bytes], _retry: object) -> bytes:
        return ask(SimpleNamespace(logs=lambda *_, **__: self.text))


@pytest.mark.parametrize("odd", ["10%\r20%\r30%", "a\fb", "a\x85b", "a\u2028b", "", "done\r"])
def test_a_line_of_output_ends_with_its_line_feed_whatever_else_is_in_it(odd: str) -> None:
    at = "2024-05-01T10:00:0{}.000000001Z"
    printed = "".join(f"{at.format(second)} {line}\n" for second, line in enumerate(["begun", odd, "ended"]))
    connection: Any = Printed(printed.encode())
    output = jobs.output(connection, "j" * 64, "")
    assert output.lines == ("begun", odd, "ended") and output.mark == at.format(2)
    assert jobs.output(connection, "j" * 64, output.mark).lines == ()


def test_usage_of_both_control_group_versions_in_a_sample() -> None:
    cpu = {"cpu_usage": {"total_usage": 1_500_000_000}}
    version_1 = {"usage": 1000, "stats": {"total_inactive_file": 300, "inactive_file": 100}}
    version_2 = {"usage": 1000, "stats": {"inactive_file": 100}}
    assert reading.usage({"cpu_stats": cpu, "memory_stats": version_1}) == Usage(1.5, 700)
    assert reading.usage({"cpu_stats": cpu, "memory_stats": version_2}) == Usage(1.5, 900)
    assert reading.usage({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}) is None


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_usage_from_a_unified_control_group(tmp_path: Path) -> None:
    group = f"system.slice/docker-{ID}.scope"
    written(tmp_path / "proc/42/cgroup", f"0::/{group}\n")
    written(tmp_path / "fs" / group / "memory.current", "1000\n")
    written(tmp_path / "fs" / group / "memory.stat", "anon 600\ninactive_file 250\n")
    written(tmp_path / "fs" / group / "cpu.stat", "usage_usec 2500000\nuser_usec 2000000\n")
    assert cgroup.usage(42, ID, tmp_path / "fs", tmp_path / "proc") == Usage(2.5, 750)
    assert cgroup.usage(42, "a" * 64, tmp_path / "fs", tmp_path / "proc") is None


def test_usage_from_separate_control_groups(tmp_path: Path) -> None:
    written(tmp_path / "proc/42/cgroup", f"4:memory:/docker/{ID}\n3:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n")
    written(tmp_path / "fs/memory/docker" / ID / "memory.usage_in_bytes", "1000\n")
    written(tmp_path / "fs/memory/docker" / ID / "memory.stat", "inactive_file 1\ntotal_inactive_file 250\n")
    written(tmp_path / "fs/cpuacct/docker" / ID / "cpuacct.usage", "2500000000\n")
    assert cgroup.usage(42, ID, tmp_path / "fs", tmp_path / "proc") == Usage(2.5, 750)


@pytest.mark.parametrize(
    ("line", "folder"),
    [(f"0::/system.slice/docker-{ID}.scope", f"system.slice/docker-{ID}.scope"),
     (f"8:pids:/docker/{ID}", f"pids/docker/{ID}")],
)  # fmt: skip
def test_processes_from_a_control_group(tmp_path: Path, line: str, folder: str) -> None:
    written(tmp_path / "proc/42/cgroup", f"{line}\n")
    written(tmp_path / "proc/42/cmdline", "nginx: master process nginx\0-g\0daemon off;\0")
    written(tmp_path / "proc/57/cmdline", "nginx: worker process\0\0\0")
    group = tmp_path / "fs" / folder
    written(group / "cgroup.procs", "42\n")
    written(group / "within" / "cgroup.procs", "57\n58\n")  # 58 has ended meanwhile

    def look(container: str = ID) -> list[Process] | None:
        return cgroup.processes(42, container, tmp_path / "fs", tmp_path / "proc")

    assert look() == [Process(42, "nginx: master process nginx -g daemon off;"), Process(57, "nginx: worker process")]
    assert look("a" * 64) is None
    written(group / "cgroup.procs", "42\n0\n")  # one that this pid namespace does not show
    assert look() is None


def test_usage_from_a_control_group_that_cannot_be_seen(tmp_path: Path) -> None:
    written(tmp_path / "proc/42/cgroup", f"0::/docker/{ID}\n")
    written(tmp_path / "proc/43/cgroup", "garbage\n")
    for pid in (41, 42, 43):
        assert cgroup.usage(pid, ID, tmp_path / "fs", tmp_path / "proc") is None


@pytest.mark.parametrize(
    ("method", "path", "listed"),
    [
        ("GET", "/v1.41/containers/json", True),
        ("GET", "/v1.51/images/shop/web:1/json", True),
        ("GET", "/_ping", True),
        ("POST", f"/v1.41/containers/{ID}/start", True),
        ("POST", "/v1.41/containers/create", False),
        ("DELETE", f"/v1.41/containers/{ID}", True),
        ("DELETE", "/v1.41/volumes/data", False),
        ("PUT", f"/v1.41/containers/{ID}/archive", False),
    ],
)
def test_the_table_of_requests(method: str, path: str, listed: bool) -> None:
    assert (matching(method, path) is not None) is listed
