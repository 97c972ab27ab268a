"""The proxy misbehaves in the middle of a deploy: it dies, is restarted with other files, is reloaded by somebody else,
does not answer, or keeps old workers for ever because a client stays.

What is under way in a proxy dies with it, whatever deploys; everything else must be served, and the next run converges.
A reload that is refused although the test passed is in e2e/test_failed_deploys.py.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import shutil
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from rollout.proxies.nginx_workers import GENERATIONS
from tests.e2e.projects import EDGES, Edge, Shop, app_service, docker, echoes, eventually, in_pool, running, serving
from tests.faults.middle import EDGE_PAIR, MIDDLES, STEPS, SWITCHED, lossless, rolling, stopped_at, true_end
from tests.faults.sweep import MIX, ROLLING, Point, Sweep, query
from tests.load import Load

pytestmark = [pytest.mark.faults]

HAPROXY = EDGES[2]


def served(load: Load, requests: int = 100) -> None:
    """So many more requests, none of them lost."""
    load.wait_for(load.progress()["total"] + requests)
    assert load.progress()["failed"] == 0, load.report().describe()


# --- it dies ---------------------------------------------------------------------------------------------------


def die_and_come_back(
    edge: Edge, directory: Path, points: tuple[Point, ...], meanwhile: Callable[[Shop], None]
) -> None:
    """The proxy is restarted at each of these points of a deploy, after something was done to it."""
    with running(edge, directory, **ROLLING.web) as shop:
        for point in points:
            with shop.load(MIX) as before:
                sweep = Sweep(shop, before, ROLLING)
                target, _ = sweep.targets()
                files, version = shop.directory / "former", sweep.live_version()
                shutil.copytree(shop.directory / "edge/rollout.d", files, symlinks=True)
                shop.tag(target)
                before.wait_for(50)
                with stopped_at(point, shop, "deploy", "web") as run:
                    served(before, 20)
                    meanwhile(shop)
                    shop.restart_edge()
                    with shop.load(MIX) as after:
                        after.wait_for(20)
                        run.signal(signal.SIGCONT)
                        done = true_end(run.end(), 0, 1)
                        assert sweep.live_version() == (version if done.code else target), f"{point}: {done}"
                        shop.rollout("deploy", "web")
                        served(after)
                        sweep.load = after
                        sweep.converged(str(point), target, after.progress())
                        seen = f"{before.progress()['failed']} lost with the proxy, then {after.progress()['total']}, 0"
                        print(f"{edge} | {meanwhile.__name__} | {point} | exit {done.code} | {seen}")
                shutil.rmtree(files)


def kill_it(shop: Shop) -> None:
    """Nothing more than that."""


def files_from_before(shop: Shop) -> None:
    """A backup of its configuration is restored: it names the old replicas, which still run or have been stopped."""
    live = shop.directory / "edge/rollout.d"
    for path in live.iterdir():  # the directory itself is mounted
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    shutil.copytree(shop.directory / "former", live, symlinks=True, dirs_exist_ok=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_killed_and_restarted_in_the_middle(edge: Edge, short_directory: Path) -> None:
    die_and_come_back(edge, short_directory, MIDDLES, kill_it)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_restarted_with_the_files_from_before(edge: Edge, short_directory: Path) -> None:
    """Where the old replicas, still there, would be stopped while they serve."""
    die_and_come_back(edge, short_directory, (SWITCHED, Point(9, "begun", "drain")), files_from_before)


# --- it is reloaded by somebody else ---------------------------------------------------------------------------


def reload(shop: Shop) -> None:
    """As `docker kill --signal HUP edge`, to its end."""
    before = set(shop.edge_processes())
    docker("kill", "--signal", "HUP" if shop.edge.type == "nginx" else "USR2", shop.running("edge")[0].id)
    eventually(lambda: any("worker" in line or "haproxy" in line for line in set(shop.edge_processes()) - before), "it")
    eventually(lambda: shop.answers() in ("1", "2", "3"), "an answer of the reloaded proxy")


def reloaded_at(edge: Edge, directory: Path, numbers: range) -> None:
    with rolling(edge, directory) as sweep:
        for number in numbers:
            point = Point(number, "begun", STEPS[number - 1])
            target, _ = sweep.targets()
            sweep.shop.tag(target)
            with stopped_at(point, sweep.shop, "deploy", "web") as run:
                reload(sweep.shop)
            done = true_end(run.end(), 0)
            print(f"{edge} | reloaded | {point} | exit {done.code} | {sweep.load.progress()['total']} requests")
            sweep.converged(str(point), target, sweep.load.progress())
            lossless(sweep)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("edge", EDGE_PAIR, ids=str)
def test_reloaded_by_somebody_else_at_every_step(edge: Edge, short_directory: Path) -> None:
    """HAProxy forgets with it every server that was added at run time: only its files are left."""
    reloaded_at(edge, short_directory, range(1, len(STEPS) + 1))


@pytest.mark.daily
@pytest.mark.timeout(240)
def test_haproxy_reloaded_between_switch_and_drain(short_directory: Path) -> None:
    reloaded_at(HAPROXY, short_directory, range(SWITCHED.number, SWITCHED.number + 1))


# --- HAProxy's sockets -----------------------------------------------------------------------------------------


@contextmanager
def gone(path: Path) -> Iterator[None]:
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        aside.rename(path)


@contextmanager
def nonsense(path: Path) -> Iterator[None]:
    """Somebody else answers there, and not as HAProxy does."""

    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.recv(4096)
                self.request.sendall(b"220 mail.example ESMTP\n# pxname,\x00\xff,,\n\n")

    with gone(path), socketserver.ThreadingUnixStreamServer(str(path), Babble) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


Spoil = Callable[[Path], contextlib.AbstractContextManager[None]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("spoilt", [gone, nonsense])
@pytest.mark.parametrize("name", ["admin.sock", "master.sock"])
def test_haproxys_socket(name: str, spoilt: Spoil, short_directory: Path) -> None:
    """It is not there, or somebody else's: the deploy says so, stops nothing in use, and the next goes on."""
    with rolling(HAPROXY, short_directory) as sweep:
        for point in MIDDLES:
            socket_of_it(sweep, point, name, spoilt)


@pytest.mark.daily
@pytest.mark.timeout(240)
def test_haproxys_socket_is_gone_when_the_old_replica_should_be_drained(short_directory: Path) -> None:
    with rolling(HAPROXY, short_directory) as sweep:
        socket_of_it(sweep, SWITCHED, "admin.sock", gone)


def socket_of_it(sweep: Sweep, point: Point, name: str, spoilt: Spoil) -> None:
    shop, version = sweep.shop, sweep.live_version()
    target, _ = sweep.targets()
    shop.tag(target)
    shop.service("web", **{"x-rollout": {"drain_timeout": f"{LIMIT:g}s"}})
    held = [upgraded(shop, "web") for _ in range(HELD_EACH)] if point.number <= SWITCHED.number else []
    with contextlib.ExitStack() as stack:
        with stopped_at(point, shop, "deploy", "web") as run:
            stack.enter_context(spoilt(shop.directory / "run" / name))
        done = true_end(run.end(), 0, 1, 4, 5)
        served(sweep.load, 50)
    for client in held:
        assert echoes(client), f"stopped under a live connection: {done}\n{shop.describe()}"
        client.close()
    print(f"{name} {spoilt.__name__} | {point} | exit {done.code} | {sweep.load.progress()['total']} requests")
    if point.number < SWITCHED.number:
        assert done.code == 4, f"nothing was begun that needs the proxy to be taken back: {done}"
    if done.code in (1, 4):
        assert sweep.live_version() == version, f"{point}: {done}\n{shop.describe()}"
    shop.rollout("deploy", "web")
    sweep.converged(f"{point} {name}", target, sweep.load.progress())
    lossless(sweep)


# --- clients that stay for ever --------------------------------------------------------------------------------

DEPLOYS = 20
CYCLES = GENERATIONS + 2
HELD_EACH = 4  # so that each of the two workers has some
LIMIT = 2.0  # seconds of drain


def upgraded(shop: Shop, service: str) -> socket.socket:
    """A WebSocket, as good as: an upgraded connection that echoes."""
    client = socket.create_connection((shop.address("edge"), 80), timeout=10)
    head = f"GET /upgrade HTTP/1.1\r\nHost: {service}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    client.sendall(head.encode())
    assert b" 101 " in client.recv(4096)
    client.settimeout(20.0)
    return client


class Held:
    """WebSockets of another service that their clients never end; some more before each deploy. The end of each is seen
    as it comes, and not when somebody looks after the deploy, which lasts longer than its drain."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.open: dict[
            int, tuple[socket.socket, float]
        ] = {}  # by descriptor; and since when its worker may be an old one
        self.ended: list[float] = []  # seconds from then
        self.fresh: list[int] = []
        self._ends = select.epoll()
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._see)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()
        self._ends.close()
        for held in self.open.values():
            held[0].close()

    def more(self) -> None:
        self.fresh = []
        for _ in range(HELD_EACH):
            client = upgraded(self.shop, "chat")
            self.open[client.fileno()] = (client, time.monotonic())
            self.fresh.append(client.fileno())
            self._ends.register(client, select.EPOLLRDHUP)

    def switching(self) -> None:
        """Only with this switch the worker of those that came last becomes an old one. When it began is taken from the
        journal: whoever hears of it may be late, and would find them cut too soon."""
        ((began,),) = query(self.shop, "SELECT max(begun_at) FROM step WHERE step = 'switch'")
        since = time.monotonic() - (time.time() - began)
        with self._changing:
            self.open.update({fd: (self.open[fd][0], since) for fd in self.fresh if fd in self.open})

    def _see(self) -> None:
        while not self._over.is_set():
            for fd, _ in self._ends.poll(0.02):
                with self._changing:
                    client, since = self.open.pop(fd)
                self.ended.append(time.monotonic() - since)
                client.close()  # and so it is watched no more

    def judge(self) -> None:
        """None was cut before its time, and those that are left still answer."""
        assert all(seconds > LIMIT for seconds in self.ended), self.ended
        assert all(echoes(client) for client, _ in self.open.values())


def memory(shop: Shop) -> int:
    """KiB of all the proxy's processes; what they share is divided among them."""
    pids = [line.split()[0] for line in shop.edge_processes()]
    found = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(line.split()[1]) for text in found for line in text.splitlines() if line.startswith("Pss:"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_websockets_that_never_end(edge: Edge, short_directory: Path) -> None:
    """Twenty deploys with clients of another service held in every old worker: these pile up only so far, and nothing
    is cut that has not had its drain limit."""
    with running(edge, short_directory, **{"x-rollout": {"drain_timeout": f"{LIMIT:g}s"}}) as shop:
        shop.service("chat", **{**app_service(edge), "deploy": {"replicas": 1}})
        shop.rollout("deploy")
        sizes, counts = [], []
        with Held(shop) as held, shop.load(MIX) as load:
            sweep = Sweep(shop, load, ROLLING)
            load.wait_for(1000)  # HAProxy's memory is that of the most clients at once: all of them were there by then
            for number in range(DEPLOYS):
                held.more()
                shop.tag("123"[(number + 1) % 3])
                run = shop.spawn("deploy", "web")
                run.wait_for("step_started", step="switch")
                held.switching()
                true_end(run.end(), 0)
                counts.append(len(shop.old_workers()))
                sizes.append(memory(shop) // 1024)
                shop.settled()
                lossless(sweep)
            total = load.report().total
            held.judge()
        print(f"{edge}: {total} requests, 0 failed; {len(held.ended)} of {DEPLOYS * HELD_EACH} WebSockets ended")
        print(f"  old workers {counts}\n  MiB {sizes}")
        assert max(counts) <= 2 * GENERATIONS
        assert sizes[-1] <= max(sizes[: GENERATIONS + 2]) * 1.2, sizes
        if edge.type == "haproxy":
            assert not held.ended and not any(counts), "nothing was reloaded"
        else:
            assert held.ended, "nothing was bounded"


@pytest.mark.timeout(300)
def test_a_sidecar_bounds_the_old_workers_without_a_deploy(short_directory: Path) -> None:
    """A replica that dies and comes back, again and again: each time nginx is reloaded twice, and no deploy's drain
    comes to look. A worker that happened to get none of the WebSockets ends at once, so it goes on until too many are
    left."""
    limit: dict[str, Any] = {"x-rollout": {"drain_timeout": f"{LIMIT:g}s"}}
    with running(EDGES[0], short_directory, deploy={"replicas": CYCLES // 2}, **limit) as shop:
        shop.service("chat", deploy={"replicas": 1}, **limit)
        shop.rollout("deploy")
        counts = list[int]()
        with Held(shop) as held, serving(shop) as sidecar:
            victims = itertools.cycle([replica.id for replica in shop.running()])  # who dies often has to prove itself
            while max(counts, default=0) <= 2 * GENERATIONS:
                assert len(counts) < 2 * CYCLES, counts
                victim = next(victims)
                held.more()
                docker("kill", victim)
                in_pool(shop, CYCLES // 2 - 1)
                docker("start", victim)
                in_pool(shop, CYCLES // 2)
                counts.append(len(shop.old_workers()))
            told = sidecar.wait_for("warned", code="old-workers")
            eventually(lambda: len(shop.old_workers()) == 2 * GENERATIONS, "as many as may be, and no fewer")
            assert held.ended and held.open
            held.judge()
            ended = f"{len(held.ended)} of {len(counts) * HELD_EACH} WebSockets ended"
            print(f"old workers {counts}; {told['text']}; {ended}")
