"""`make bench-idle`: what the sidecar costs while nothing happens, and how soon it follows when something does.

Real containers, engine and nginx: 50 services of two replicas; then all 100 replicas die at once. A thousand services
are a recorded engine's (a list in memory), behind a real nginx and a real HAProxy. Writes bench/idle.json.
Exit 1 when a limit is exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import machine
from rollout.clock import SystemClock
from rollout.controller import Controller
from rollout.fanout import threads
from rollout.journal import SqliteJournal
from rollout.lock import FileLock
from rollout.model import Pool, Replica, ReplicaState, RevisionKey, ServiceSettings
from rollout.steps.run import Ports, upstream_of

HERE = Path(__file__).resolve().parent
PROGRAM = str(Path(sys.executable).with_name("rollout"))
SERVICES, REPLICAS, MANY = 50, 2, 1000
LIMITS = {
    "idle_cpu_percent": 0.5,
    "idle_memory_mb": 90.0,
    "growth_mb": 1.0,
    "reloads_for_100_deaths": 20,
    "haproxy_change_seconds": 1.0,
    "nginx_change_beyond_reload_seconds": 1.0,
}
NGINX = "worker_processes 2;\nevents {}\nhttp {\n    include /etc/nginx/rollout.d/*.conf;\n    access_log off;\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/idle.py", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long it is watched doing nothing")
    parser.add_argument("--note", default="", help="written beside the figures: what else the machine was doing")
    options = parser.parse_args()
    results: dict[str, Any] = {"seconds": options.seconds, "note": options.note, "load_before": machine.load()}
    for proxy in ("haproxy", "nginx"):
        results |= thousand(proxy)
        print(json.dumps(results), file=sys.stderr)
    results |= fifty(options.seconds)
    results["load_after"] = machine.load()
    results["machine"] = machine.describe(["rollout-test/nginx:1.30", "rollout-test/haproxy:3.0", "rollout-test/app:1"])
    results["limits"] = LIMITS
    over = {name: results[name] for name, limit in LIMITS.items() if results[name] > limit}
    (HERE / "idle.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    print(f"over their limits: {over}" if over else "all within their limits")
    return 1 if over else 0


# --- fifty real services ---------------------------------------------------------------------------------------


def fifty(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rollout-idle-") as name, _project(Path(name)) as (directory, sidecar):
        _until(lambda: _pools(directory) == SERVICES * REPLICAS, "all replicas in their pools", 300)
        first, began = _cpu(sidecar), time.monotonic()
        memory = []
        while time.monotonic() < began + seconds:
            time.sleep(seconds / 40)
            memory.append(_memory(sidecar))
        watched = time.monotonic() - began
        percent = 100 * (_cpu(sidecar) - first) / watched
        third = len(memory) // 3
        return {
            "idle_cpu_percent": round(percent, 3),
            "idle_memory_mb": max(memory),
            "growth_mb": round(max(memory[-third:]) - max(memory[third : 2 * third]), 2),
            **_bounce(directory),
        }


def _bounce(directory: Path) -> dict[str, Any]:
    """All replicas die at once, and their restart policy brings each back."""
    ids = _said("docker", "ps", "-q", "--filter", "label=com.docker.compose.project=rollout-idle").split()
    seen = json.loads(_said("docker", "inspect", *ids))
    apps = [c for c in seen if c["Config"]["Labels"]["com.docker.compose.service"] != "edge"]
    before, began = _generation(directory), time.monotonic()
    for container in apps:
        os.kill(container["State"]["Pid"], signal.SIGKILL)
    started = {c["Id"]: c["State"]["StartedAt"] for c in apps}

    def back() -> bool:
        now = json.loads(_said("docker", "inspect", *started))
        anew = all(c["State"]["Running"] and c["State"]["StartedAt"] != started[c["Id"]] for c in now)
        return anew and _pools(directory) == len(apps)

    _until(back, "all replicas back in their pools", 300)
    took = time.monotonic() - began
    return {"reloads_for_100_deaths": _generation(directory) - before, "all_back_seconds": round(took, 1)}


@contextlib.contextmanager
def _project(directory: Path) -> Iterator[tuple[Path, int]]:
    (directory / "rollout.d").mkdir()
    (directory / "nginx.conf").write_text(NGINX)
    service = {
        "image": "rollout-test/app:1", "restart": "always", "deploy": {"replicas": REPLICAS},
        "x-rollout": {"port": 8000, "health": {"path": "/healthz"}},
    }  # fmt: skip
    edge = {
        "image": "rollout-test/nginx:1.30",
        "volumes": ["./nginx.conf:/etc/nginx/nginx.conf:ro", "./rollout.d:/etc/nginx/rollout.d"],
    }
    services: dict[str, Any] = {"edge": edge, **{f"s{n}": service for n in range(SERVICES)}}
    proxy = {"type": "nginx", "service": "edge", "config": "./rollout.d"}
    content = {"name": "rollout-idle", "x-rollout": {"proxy": proxy}, "services": services}
    (directory / "compose.yaml").write_text(json.dumps(content))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        sidecar = subprocess.Popen([PROGRAM, "serve"], cwd=directory, stdout=log, stderr=log)
        try:
            _until(lambda: subprocess.run([PROGRAM, "serve", "--healthy"], cwd=directory, check=False,
                                          capture_output=True).returncode == 0, "a healthy sidecar", 60)  # fmt: skip
            subprocess.run(["docker", "compose", "up", "-d"], cwd=directory, check=True, capture_output=True)
            yield directory, sidecar.pid
        finally:
            sidecar.terminate()
            sidecar.wait(60)
            down = ["docker", "compose", "down", "--volumes", "--timeout", "0"]
            subprocess.run(down, cwd=directory, check=False, capture_output=True)


def _pools(directory: Path) -> int:
    files = (directory / "rollout.d/current").glob("s*.conf")
    return sum(file.read_text().count("max_fails=0;  # s") for file in files)


def _generation(directory: Path) -> int:
    return int(str((directory / "rollout.d/current").readlink()).removeprefix("gen-"))


def _cpu(pid: int) -> float:
    """Seconds, children included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2)


def _said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _until(look: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came: {what}")
        time.sleep(0.1)


# --- a thousand services ---------------------------------------------------------------------------------------

KEY = RevisionKey("hash", "sha256:image")


class Recorded:
    """As much of an engine as a pass asks for, without one."""

    def __init__(self) -> None:
        self.found = {f"s{n}": [_replica(n, copy) for copy in (1, 2)] for n in range(MANY)}

    def replicas(self, service: str) -> list[Replica]:
        return self.found[service]

    def all_replicas(self) -> dict[str, list[Replica]]:
        return self.found

    def inspect(self, replica_id: str) -> Replica | None:
        number = int(replica_id[:6], 16)
        return next((r for r in self.found[f"s{number}"] if r.id == replica_id), None)


def _replica(number: int, copy: int) -> Replica:
    address = {"net": f"10.{200 + copy}.{number // 250}.{number % 250 + 1}"}
    name = f"s{number}"
    return Replica(
        f"{number:06x}{copy:06x}".ljust(64, "0"), f"many-{name}-{copy}", name, copy, KEY, ReplicaState.RUNNING,
        addresses=address,
    )  # fmt: skip


def thousand(proxy: str) -> dict[str, Any]:
    """From the hint to the confirmed change, medians of ten; the whole project's first and idle passes."""
    with tempfile.TemporaryDirectory(prefix="rollout-many-") as name, _edge(proxy, Path(name)) as adapter:
        engine, clock = Recorded(), SystemClock()
        services = {n: ServiceSettings(n, 8000, networks=("net",)) for n in engine.found}
        journal = SqliteJournal(Path(name, "state.db"), clock)
        nobody: Any = None  # no images, no prober, no hooks: nothing here asks them
        recorded: Any = engine
        ports = Ports(
            recorded,
            nobody,
            adapter,
            nobody,
            journal,
            FileLock(Path(name, "locks"), clock),
            clock,
            threads,
            nobody,
            nobody,
        )
        controller = Controller(ports, lambda event: None, lambda candidate: True)
        controller._networks = dict.fromkeys(services, "net")  # the recorded engine's, which no proxy is on
        controller._proxy = adapter.identity()
        first = _timed(lambda: controller.one_pass(services))
        idle = statistics.median(_timed(lambda: controller.one_pass(services)) for _ in range(5))
        changes, bare = [], []
        for turn in range(10):
            service = f"s{turn * 37}"
            there = engine.found[service]
            engine.found[service] = there[:1] if len(there) == 2 else there
            changes.append(_timed(lambda s=service: controller.one_pass(services, {s})))  # type: ignore[misc]
            pool = adapter.pool(service)
            assert len(pool.upstreams) == 1, "the change is not in force"
            if proxy == "nginx":
                second = upstream_of(there[1], "net", 8000)
                assert second is not None
                both = Pool(service, (*pool.upstreams, second), pool.options)
                bare.append(_timed(lambda p=both: adapter.switch(p)))  # type: ignore[misc]
        journal.close()
    figures = {
        f"{proxy}_first_pass_seconds": round(first, 3),
        f"{proxy}_idle_pass_seconds": round(idle, 3),
        f"{proxy}_change_seconds": round(statistics.median(changes), 3),
    }
    if bare:
        figures["nginx_reload_seconds"] = round(statistics.median(bare), 3)
        figures["nginx_change_beyond_reload_seconds"] = round(statistics.median(changes) - statistics.median(bare), 3)
    return figures


@contextlib.contextmanager
def _edge(proxy: str, directory: Path) -> Iterator[Any]:
    """The adapter of a running proxy that has all the services in its files."""
    pools = [
        Pool(name, tuple(u for r in found if (u := upstream_of(r, "net", 8000))))
        for name, found in Recorded().found.items()
    ]
    if proxy == "haproxy":
        from tests.e2e.haproxy_bench import running_edge

        with running_edge("3.0", directory, initial=pools) as edge:
            yield edge.adapter()
        return
    from tests.e2e.nginx_bench import Bench

    with Bench(directory, "1.30") as bench:
        bench.edge.adapter().write_initial(pools, seen="/etc/nginx/rollout.d")
        bench.edge.start()
        yield bench.edge.adapter()


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
