"""Soak: deploys, rollbacks, aborts, deaths of the controller and faults at random, for SOAK_SECONDS under load, with
and without a sidecar, which comes and goes; replicas are killed, the proxy is, and the engine's answers are spoilt.

    make soak                          ten minutes
    SOAK_SECONDS=3600 SOAK_SEED=7 make soak

Half of the time behind nginx, half behind HAProxy. Not one request may fail, but what was inside a replica that was
killed while it served; and nothing may be left over. A proxy that dies takes with it what is under way, so there is no
load while it does.
"""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pytest

from tests.e2e.deaths import NOBODY_ASKED, Deaths
from tests.e2e.projects import PROGRAM, Edge, Running, Shop, docker, eventually, healthy, in_pool, running
from tests.faults.engine_proxy import EngineProxy
from tests.faults.spoilt import DEPLOYED, LEAVING, UNCHANGED, Storm
from tests.load import Load, Mix, Report

SECONDS = float(os.environ.get("SOAK_SECONDS") or 120)
SEED = int(os.environ.get("SOAK_SEED") or time.time())
EDGES = (Edge("nginx", "1.30"), Edge("haproxy", "3.0"))
STEPS = ("start", "check", "switch", "drain", "stop", "remove")
TEMPLATES = {"nginx": "nginx/upstream.conf.j2", "haproxy": "haproxy/backend.cfg.j2"}
RELOAD = {"nginx": "HUP", "haproxy": "USR2"}
WAITS = ("--wait-lock", "60")  # for what a sidecar goes on with, although who had asked for it was killed
SERVED = 3  # operations between two turns of the sidecar, which comes or goes
KEPT_TAGS = 3  # `keep` of a service that does not say
MIX = Mix.standard()
# requests that its clients can have under way at once, of those that do not think for most of the time
UNDER_WAY = MIX.get + MIX.post + MIX.fresh + MIX.preconnected + MIX.uploads + MIX.streams + MIX.upgrades + 20
SPOILT = 0.02  # of rollout's calls of the engine, while it is at fault
SPARE_THREADS = 8  # of the sidecar: a pool of them grows up to six with the first requests
SPARE_FILES = 20  # open files of the proxy: a connection more or less at the instant of counting


@dataclass(frozen=True)
class Footprint:
    """What is there. Workers: the processes in the proxy's container, of which threads and open files are as well."""

    containers: int
    files: int
    workers: int
    tags: int
    threads: int
    open_files: int


@dataclass(frozen=True)
class Weight:
    """What a sidecar takes. Memory in MiB."""

    memory: int
    threads: int
    open_files: int

    @classmethod
    def of(cls, pid: int) -> Weight:
        """Of a process that runs."""
        said = Path(f"/proc/{pid}/status").read_text()
        resident = int(said.partition("VmRSS:")[2].split()[0])
        return cls(resident // 1024, _entries(pid, "task"), _entries(pid, "fd"))


class Operations:
    """What is done to the project, at random. Each leaves a name for the count, and the exit code was looked at."""

    def __init__(self, shop: Shop, engine: EngineProxy, seed: int) -> None:
        self.shop, self.engine, self.random = shop, engine, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.came_of_it: Counter[str] = Counter()
        self.memory: list[int] = []  # KiB, of the largest process of each operation
        self.clean = True  # no unfinished rollout is left
        self.sidecar: Running | None = None
        self.weights: list[Weight] = []  # of each sidecar, when it was at work and before it ended
        self.load: Load | None = None
        self.reports: list[Report] = []  # of each stretch of the load
        self.deaths = Deaths(MIX)

    def one(self) -> None:
        weighted = {
            self.deploy: 5, self.blue_green: 2, self.force: 1, self.roll_back: 2, self.look: 1, self.scale: 1,
            self.interrupted: 2, self.killed: 3, self.reloaded: 1, self.broken_image: 2, self.broken_template: 1,
            self.aborted: 2, self.new_replica_killed: 1, self.replica_killed: 1, self.proxy_restarted: 1,
            self.engine_at_fault: 2,
        }  # fmt: skip
        operation = self.random.choices(list(weighted), list(weighted.values()))[0]
        self.done[operation.__name__.replace("_", " ")] += 1
        operation()

    def turn(self) -> None:
        """The sidecar comes, or goes: told to, or killed."""
        if self.sidecar is None:
            self.sidecar = self.shop.spawn("serve")
            healthy(self.shop)
            self.done["sidecar came"] += 1
            self.weigh()
            return
        kill = self.random.random() < 1 / 3
        self.done["sidecar killed" if kill else "sidecar ended"] += 1
        self.end_serving(signal.SIGKILL if kill else signal.SIGTERM)
        self.clean = self.clean and not kill

    def close(self) -> None:
        """Whatever happened, neither a load nor a sidecar is left."""
        self.end_load()
        if self.sidecar is not None:
            self.end_serving(signal.SIGKILL)

    def begin_load(self) -> None:
        self.load = self.shop.load(MIX).__enter__()

    def end_load(self) -> None:
        """Each client ends what it is at. Nothing when there is none."""
        if self.load is not None:
            load, self.load = self.load, None
            load.__exit__(None, None, None)
            self.reports.append(load.report())

    def end_serving(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Nothing when none serves."""
        if self.sidecar is not None:
            self.weigh()
            self.sidecar.signal(number)
            done = self.sidecar.end()
            assert done.code == (0 if number == signal.SIGTERM else -number), done
            self.sidecar = None

    def weigh(self) -> None:
        assert self.sidecar is not None
        self.weights.append(Weight.of(self.sidecar.process.pid))

    def deploy(self) -> None:
        self.shop.tag(self.random.choice("123"))
        self.run("deploy", "web")

    def blue_green(self) -> None:
        self.shop.tag(self.random.choice("123"))
        self.run("deploy", "web", "--strategy", "blue-green")

    def force(self) -> None:
        self.run("deploy", "web", "--force")

    def roll_back(self) -> None:
        self.settle()
        self.run("rollback", "web", codes=(0, 2))  # 2: there is nothing to go back to yet

    def look(self) -> None:
        for verb in ("status", "plan", "history", "check"):
            self.run(verb, codes=(0, 1))

    def scale(self) -> None:
        self.shop.service("web", deploy={"replicas": self.random.choice((2, 3))})
        self.run("deploy", "web")

    def interrupted(self) -> None:
        self.cut_short(signal.SIGINT)

    def killed(self) -> None:
        self.cut_short(signal.SIGKILL)

    def reloaded(self) -> None:
        """The operator's own reload of the proxy, in the middle of a deploy."""
        self.settle()
        self.shop.tag(self.random.choice("123"))
        run = self.shop.spawn("deploy", "web", "--force", *WAITS)
        run.wait_for("step_started", step=self.random.choice(STEPS))
        docker("kill", "--signal", RELOAD[self.shop.edge.type], self.shop.running("edge")[0].id)
        assert run.end().code == 0

    def inside(self) -> int:
        """How many of the requests that failed were inside a replica when it was killed."""
        failures = [failure for report in self.reports for failure in report.failures]
        return sum(self.deaths.explain(one) and one.cls not in NOBODY_ASKED for one in failures)

    def lost_nothing(self) -> None:
        told = "\n".join(report.describe() for report in self.reports)
        assert sum(report.failed for report in self.reports) == self.inside(), told
        assert self.inside() <= len(self.deaths.at) * UNDER_WAY, told

    def aborted(self) -> None:
        """By another process, at any step: taken back, or it was through before."""
        self.settle()
        self.shop.tag(self.random.choice("123"))
        run = self.shop.spawn("deploy", "web", "--force", *WAITS)
        run.wait_for("step_started", step=self.random.choice(STEPS))
        asked = self.shop.rollout("abort", "web", code=None)
        done = run.end()
        assert (asked.code, done.code) in ((0, 1), (0, 0), (2, 0)), f"{asked}\n{done}"
        self.came_of_it["taken back"] += done.code

    def new_replica_killed(self) -> None:
        """Before it has had any request: the deploy fails, and nothing is lost."""
        self.settle()
        before = {c.id for c in self.shop.containers()}
        with self.changed(**{"x-rollout": {"health": {"min_healthy_time": "10s"}}}):  # no switch to it meanwhile
            run = self.shop.spawn("deploy", "web", "--force", *WAITS)
            run.wait_for("step_started", step="check")
            docker("kill", self.random.choice([c.id for c in self.shop.running() if c.id not in before]))
            done = run.end()
        assert done.code == 1, done

    def replica_killed(self) -> None:
        """One that serves, beside a sidecar; and it is started again."""
        self.settle()
        if self.sidecar is None:
            self.turn()
        wanted = self.shop.running()
        in_pool(self.shop, len(wanted), seconds=60)
        one = self.random.choice(wanted)
        with self.deaths.now():
            docker("kill", one.id)
        in_pool(self.shop, len(wanted) - 1, seconds=60)
        docker("start", one.id)
        in_pool(self.shop, len(wanted), seconds=60)

    def proxy_restarted(self) -> None:
        """In the middle of a deploy, which ends as it may; the next converges."""
        self.settle()
        self.end_load()
        self.shop.tag(self.random.choice("123"))
        run = self.shop.spawn("deploy", "web", "--force", *WAITS)
        run.wait_for("step_started", step=self.random.choice(STEPS))
        self.shop.restart_edge()
        done = run.end()
        assert done.code in (0, 1, 4, 5) and "Traceback" not in done.said, done
        self.run("deploy", "web")
        self.begin_load()

    def engine_at_fault(self) -> None:
        """It answers what it should not, or not at all, also to a sidecar; what is left undone is for the next run."""
        self.settle()
        self.shop.tag(self.random.choice("123"))
        self.engine.spoilt.clear()
        self.engine.decide = Storm(self.random.getrandbits(32), SPOILT)
        done = self.shop.rollout("deploy", "web", "--force", *WAITS, code=None)
        self.engine.decide = lambda _: None
        self.came_of_it["calls spoilt"] += len(self.engine.spoilt)
        assert done.code in UNCHANGED | {DEPLOYED, LEAVING} and "Traceback" not in done.said, done
        self.run("deploy", "web")

    def cut_short(self, number: signal.Signals) -> None:
        self.shop.tag(self.random.choice("123"))
        run = self.shop.spawn("deploy", "web", "--force", *WAITS)
        run.wait_for("step_started", step=self.random.choice(STEPS))
        run.signal(number)
        code = run.end().code
        assert code in (0, 130, -signal.SIGKILL), code
        self.clean = number == signal.SIGINT

    def broken_image(self) -> None:
        self.settle()
        sick = self.random.choice(({"CRASH_AT_START": "1"}, {"HEALTH": "fail"}))
        with self.changed(environment=sick, **{"x-rollout": {"health": {"healthy_deadline": "3s"}}}):
            self.run("deploy", "web", codes=(1,))

    def broken_template(self) -> None:
        self.settle()
        file = self.shop.directory / "templates" / TEMPLATES[self.shop.edge.type]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{% if %}" if self.random.random() < 0.5 else "no such word;\n")
        self.shop.proxy["templates"] = "./templates"
        self.shop.write()
        try:
            self.run("deploy", "web", "--force", codes=(1,))
        finally:
            del self.shop.proxy["templates"]
            self.shop.write()

    @contextmanager
    def changed(self, **web: object) -> Iterator[None]:
        good = (self.shop.directory / "compose.yaml").read_text()
        before = copy.deepcopy(self.shop.services)
        self.shop.service("web", **web)
        try:
            yield
        finally:
            self.shop.services = before
            (self.shop.directory / "compose.yaml").write_text(good)

    def settle(self) -> None:
        """What was killed is finished or undone first: its recovery is not this operation's business."""
        if not self.clean:
            self.run("deploy", "web")

    def run(self, *argv: str, codes: tuple[int, ...] = (0,)) -> None:
        """The real program, and what its largest process (it or Compose) took."""
        argv += WAITS if argv[0] in ("deploy", "rollback") else ()
        with (self.shop.directory.parent / "said").open("w+") as said:
            process = subprocess.Popen([PROGRAM, *argv], cwd=self.shop.directory, stdout=said, stderr=said,
                                       env=self.shop.environment())  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read()
        assert process.returncode in codes, f"{argv}: {process.returncode}\n{text}\n{self.shop.describe()}"
        if argv[0] in ("deploy", "rollback"):
            self.memory.append(usage.ru_maxrss)
            self.clean = True


def footprint(shop: Shop) -> Footprint:
    edge = shop.running("edge")[0].id
    pids = [line.split()[0] for line in shop.edge_processes()]
    threads = sum(_entries(int(pid), "task") for pid in pids)
    opened = sum(_entries(int(pid), "fd") for pid in pids)
    count = len(docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={shop.name}").split())
    files = sum(1 for folder in ("edge", ".rollout") for path in (shop.directory / folder).rglob("*") if path.is_file())
    assert edge
    return Footprint(count, files, len(pids), len(shop.keep_tags()), threads, opened)


def _entries(pid: int, folder: str) -> int:
    return len(list(Path(f"/proc/{pid}", folder).iterdir()))


def settled(shop: Shop) -> Footprint:
    """As after a plain deploy of version 1 to two replicas, when the last old worker has ended."""
    shop.service("web", deploy={"replicas": 2})
    shop.tag("1")
    shop.rollout("deploy", "web", "--force")
    shop.settled()
    eventually(lambda: not shop.old_workers(), "the end of the last old worker", 60)
    return footprint(shop)


def table(rows: list[tuple[str, object, object]]) -> str:
    head = ("", "start", "end")
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(3)]
    return "\n".join("  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)) for row in [head, *rows])


@contextmanager
def fallible(shop: Shop, path: Path) -> Iterator[EngineProxy]:
    """All that rollout asks of the engine goes by here, until the end of the block."""
    with EngineProxy(path) as engine:
        shop.env["DOCKER_HOST"] = engine.url
        try:
            yield engine
        finally:
            del shop.env["DOCKER_HOST"]


@pytest.mark.e2e
@pytest.mark.timeout(0)
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_soak(edge: Edge, short_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say: Callable[[str], None] = lambda text: _shown(capsys, text)  # noqa: E731
    say(f"\nsoak behind {edge} for {SECONDS / 2:.0f} s, SOAK_SEED={SEED}")
    with running(edge, short_directory / "p") as shop, fallible(shop, short_directory / "engine.sock") as engine:
        operations = Operations(shop, engine, SEED)
        operations.run("deploy", "web", "--force")
        operations.turn()
        operations.run("deploy", "web", "--force")  # so that its audit record is there as well
        operations.end_serving()
        before = settled(shop)
        with closing(operations):
            operations.begin_load()
            until = time.monotonic() + SECONDS / 2
            while time.monotonic() < until or len(operations.weights) < 3:
                if operations.done.total() % (SERVED + 1) == SERVED:
                    operations.turn()
                operations.one()
            operations.settle()
            if operations.sidecar is None:
                operations.turn()  # what a killed one has left is its successor's
            operations.end_serving()
            operations.end_load()
        after = settled(shop)
    names = [f.name.replace("_", " ") for f in fields(Footprint)]
    memory, weights = operations.memory, operations.weights
    came, total, inside = weights[0], sum(r.total for r in operations.reports), operations.inside()
    rows: list[tuple[str, object, object]] = [
        ("operations", "", sum(operations.done.values())),
        ("requests", "", total),
        ("failed", "", sum(r.failed for r in operations.reports) - inside),
        ("inside a replica that was killed", "", inside),
        *zip(names, astuple(before), astuple(after), strict=True),
        ("controller memory, MiB", memory[0] // 1024, memory[-1] // 1024),
        *(
            (f"sidecar {f.name.replace('_', ' ')}", getattr(came, f.name), max(getattr(w, f.name) for w in weights))
            for f in fields(Weight)
        ),
    ]
    say(table(rows))
    told = (*operations.done.most_common(), *operations.came_of_it.items())
    say(", ".join(f"{count} {name}" for name, count in told))
    operations.lost_nothing()
    assert total > 1000 and sum(operations.done.values()) >= 3
    same = ("containers", "workers", "threads")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert after.tags <= KEPT_TAGS and after.files <= before.files
    assert after.open_files <= before.open_files + SPARE_FILES
    assert max(memory[-3:]) < memory[0] * 1.2
    for weight in weights:
        assert weight.memory < came.memory * 1.3, weights
        assert weight.threads <= came.threads + SPARE_THREADS, weights
        assert weight.open_files <= came.open_files + SPARE_FILES, weights


def _shown(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(text)
