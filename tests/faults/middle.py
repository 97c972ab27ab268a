"""A deploy that stops itself in the middle (SIGSTOP, at a point of its own work), so that something can be done to the
world right there, and goes on: the same middle every time."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.projects import EDGES, Done, Edge, Running, Shop, eventually, running
from tests.faults.sweep import MIX, ROLLING, ROOT, Point, Sweep

EDGE_PAIR = (EDGES[1], EDGES[2])
# rolling, one by one, two replicas
STEPS = ("start", "check", "switch", "drain", "stop", "start", "check", "switch", "drain", "stop", "remove")
STARTED, SWITCHED, HALF_DONE = Point(2, "begun", "check"), Point(4, "begun", "drain"), Point(6, "begun", "start")
MIDDLES = (STARTED, SWITCHED, HALF_DONE)
FIRST_SWITCH = 3
MORE = 20  # requests


@contextmanager
def rolling(edge: Edge, directory: Path) -> Iterator[Sweep]:
    """At its end no request has failed, also none that was still under way then."""
    with running(edge, directory, **ROLLING.web) as shop:
        with shop.load(MIX) as load:
            load.wait_for(30)
            yield Sweep(shop, load, ROLLING)
        report = load.report()
        assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"


def spawn(shop: Shop, at: str, number: str, *argv: str) -> Running:
    return begin(shop, ["tests.faults.killed", "--at", at, "--signal", number, "--"], *argv)


def begin(shop: Shop, module: list[str], *argv: str) -> Running:
    """The program as this module of ours runs it."""
    environment = {**shop.environment(), "PYTHONPATH": str(ROOT)}
    return Running([sys.executable, "-m", *module, *argv, "--json"], shop.directory, environment)


def stops(run: Running) -> bool:
    """Whether it has come to the point where it stops itself; False: it ended before."""
    stat = Path(f"/proc/{run.process.pid}/stat")

    def state() -> str | None:
        try:
            found = stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "Z"
        return found if found in "TZ" else None

    return eventually(state, "its stop, or its end", 90) == "T"


@contextmanager
def stopped_at(point: Point, shop: Shop, *argv: str) -> Iterator[Running]:
    """The program, stopped there for the length of the block; then it goes on."""
    run = spawn(shop, point.at, "STOP", *argv)
    try:
        assert stops(run), f"it never came to {point}: {run.end()}"
        yield run
    finally:
        run.signal(signal.SIGCONT)


def true_end(done: Done, *codes: int) -> Done:
    assert done.code in codes, done
    assert "Traceback" not in done.said, done
    if done.code:
        finished = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
        assert done.err.strip() or any("error" in event for event in finished), f"it failed and did not say why: {done}"
    return done


def lossless(sweep: Sweep) -> None:
    """So far, and it goes on: a service that answers nobody loses nothing for as long as its clients wait."""
    sweep.load.wait_for(sweep.load.progress()["total"] + MORE)
    progress = sweep.load.progress()
    assert progress["failed"] == 0, f"{sweep.load.report().describe()}\n{sweep.shop.describe()}"
    assert {line["in_flight"] for line in sweep.shop.term_lines()} <= {0}, sweep.shop.term_lines()
