"""Killing the program at every point of a kind of run, in one project under one load, and looking after each recovery.

Nothing here sleeps: a run dies at a point of its own work (`killed`), the next one is waited for, then the world is
read from outside.
"""

from __future__ import annotations

import fcntl
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.e2e.projects import Container, Shop, docker
from tests.load import Load, Mix

ROOT = Path(__file__).resolve().parents[2]
KEPT_IMAGES = 3  # x-rollout.keep unless said otherwise
VERSIONS = ("1", "2", "3")

# Every kind of client, none longer than a drain that is repeated a hundred times should take.
MIX = replace(Mix.light(), arrivals=5.0, stream_seconds=0.6, upload_seconds=0.4, upgrade_seconds=0.6)


@dataclass(frozen=True, slots=True)
class Point:
    """Where a run is killed: `3:begun` is before step 3 is journalled, `3:done` after its end was."""

    number: int
    moment: str
    step: str = ""

    @property
    def at(self) -> str:
        return f"{self.number}:{self.moment}"

    def __str__(self) -> str:
        return f"{self.at} {self.step}".strip()


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of run. `verb`: deploy, or rollback (`--to` a revision). `loses`: 503 by design while nothing runs."""

    name: str
    web: Mapping[str, Any]
    verb: str = "deploy"
    loses: bool = False
    sick: bool = False  # the run that dies deploys what never gets healthy, so that it dies before or in its undo

    def __str__(self) -> str:
        return self.name


ROLLING = Way("rolling", {"deploy": {"update_config": {"parallelism": 1}}})
BLUE_GREEN = Way("blue-green", {"x-rollout": {"strategy": "blue-green", "keep_warm": "10m"}})
RECREATE = Way("recreate", {"x-rollout": {"strategy": "recreate"}}, loses=True)
ROLLBACK = Way("rollback", {}, verb="rollback")
UNDO = Way(
    "undo",
    {
        "deploy": {"update_config": {"parallelism": 1, "order": "stop-first"}},
        "x-rollout": {"health": {"healthy_deadline": "2s", "timeout": "1s"}},
    },
    sick=True,
)
WAYS = (ROLLING, BLUE_GREEN, RECREATE, ROLLBACK, UNDO)


def image_ids() -> dict[str, str]:
    """Image id -> version of the test application."""
    return {docker("image", "inspect", "-f", "{{.Id}}", f"rollout-test/app:{v}"): v for v in VERSIONS}


@dataclass
class Sweep:
    """A project, its load, and what happened at each point."""

    shop: Shop
    load: Load
    way: Way
    rows: list[str] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=image_ids)

    # --- runs

    def argv(self, version: str) -> list[str]:
        """The command that brings the service to this version; the Compose file says so too."""
        self.shop.tag(version)
        return ["rollback", "web", "--to", version] if self.way.verb == "rollback" else ["deploy", "web"]

    def die(self, at: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run the program to its death at that point."""
        done = self.run_to(at, argv)
        assert done.returncode == -signal.SIGKILL, f"not killed at {at}: {done}\n{self.shop.describe()}"
        return done

    def run_to(self, at: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run the program, which is killed at that point if it comes to it."""
        environment = {**self.shop.environment(), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "tests.faults.killed", "--at", at, "--", *argv], cwd=self.shop.directory,
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def points(self) -> list[Point]:
        """Every point of one such run, by doing it once to its end."""
        target, _ = self.targets()
        self.die_or_end(target, None)
        steps = last_steps(self.shop)
        found = []
        for number, (step, done) in enumerate(steps, 1):
            found += [Point(number, "begun", step), *([Point(number, "done", step)] if done else [])]
        return found

    def die_or_end(self, version: str, at: str | None) -> None:
        """The run that is to die: at that point, or (None) not at all."""
        if not self.way.sick:
            argv = self.argv(version)
            self.shop.rollout(*argv) if at is None else self.die(at, argv)
            return
        good = (self.shop.directory / "compose.yaml").read_text()
        self.shop.services["web"].setdefault("environment", {})["HEALTH"] = "fail"
        self.shop.write()
        try:
            self.shop.rollout("deploy", "web", code=1) if at is None else self.die(at, ["deploy", "web"])
        finally:
            del self.shop.services["web"]["environment"]["HEALTH"]
            (self.shop.directory / "compose.yaml").write_text(good)

    def targets(self) -> tuple[str, str]:
        """Two versions to go to: one of which nothing runs, and another that is not the live one."""
        live = self.live_version()
        running = {self.versions[c.image] for c in self.shop.containers()}
        fresh = next(v for v in VERSIONS if v not in running)
        return fresh, next(v for v in VERSIONS if v not in (live, fresh))

    def live_version(self) -> str:
        (version,) = {self.versions[c.image] for c in self.routed()}
        return version

    def at_each(self, points: Sequence[Point]) -> None:
        """Die there, recover; every other time by a run with another target. As `N:done` and `N+1:begun` are next to
        each other, every instant meets both; the end has only the former, and the same target ends best there."""
        for point in points:
            target, other = self.targets()
            before = self.live_version()
            self.die_or_end(target, point.at)
            if self.way.sick:
                target = before
            same = point.moment == "begun" or point is points[-1]
            self.recover(str(point), target if same else other)
            if same and self.keeps_warm:
                assert self.warm_versions() == {before}, f"after a death at {point}\n{self.shop.describe()}"

    @property
    def keeps_warm(self) -> bool:
        return "keep_warm" in self.way.web.get("x-rollout", {})

    def warm_versions(self) -> set[str]:
        return {self.versions[c.image] for c in self.shop.containers() if c.id in warm_ids(self.shop)}

    def recover(self, point: str, version: str) -> None:
        """The next run, to its end, and everything that must be true after it."""
        began = time.monotonic()
        done = self.shop.rollout(*self.argv(version), code=None)
        took = time.monotonic() - began
        assert done.code == 0, f"after a death at {point}: {done}\n{self.shop.describe()}"
        assert "Traceback" not in done.said, done
        progress = self.load.progress()
        row = f"{self.shop.edge} {self.way} | {point} | -> {version} | {progress['total']} | {progress['failed']}"
        self.rows.append(f"{row} | {took:.1f} s")
        print(self.rows[-1], flush=True)
        self.converged(point, version, progress)

    # --- what must be true

    def converged(self, point: str, version: str, progress: Mapping[str, Any]) -> None:
        where = f"after a death at {point}\n{self.shop.describe()}"
        assert self.live_version() == version, where
        if not self.way.loses:
            assert progress["failed"] == 0, f"{self.load.report().describe()}\n{where}"
        assert set(progress["by_class"]) <= {"http_503"}, f"{self.load.report().describe()}\n{where}"
        assert {line["in_flight"] for line in self.shop.term_lines()} <= {0}, where
        self.only_what_is_wanted(where)
        assert unfinished(self.shop) == [], where
        assert lock_is_free(self.shop), where

    def only_what_is_wanted(self, where: str) -> None:
        """The declared replicas in the pool, the warm ones beside it, nothing else anywhere."""
        found = self.shop.containers()
        routed = self.routed()
        assert len(routed) == 2, where
        assert self.shop.pool() == {address_of(c) for c in routed}, where
        loaded = self.shop.in_force()
        assert loaded == self.shop.pool(), f"the proxy sends to {loaded} {where}"
        warm = warm_ids(self.shop)
        assert {c.id for c in found} - {c.id for c in routed} == warm, where
        assert {c.state for c in found} == {"running"}, where
        assert len(warm) in ((0, 2) if self.keeps_warm else (0,)), where
        assert self.shop.leftover_files() == set(), where
        assert len(self.shop.keep_tags()) <= KEPT_IMAGES, where

    def routed(self) -> list[Container]:
        pool = self.shop.pool()
        return [c for c in self.shop.running() if address_of(c) in pool]


def address_of(container: Container) -> str:
    return f"{next(iter(container.addresses.values()), '')}:8000"


def lock_is_free(shop: Shop) -> bool:
    with (shop.directory / ".rollout/locks/web.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def last_steps(shop: Shop) -> list[tuple[str, bool]]:
    """(kind, whether it ended well) of each step of the last rollout, as journalled."""
    rows = query(
        shop,
        "SELECT step, done_at IS NOT NULL FROM step WHERE rollout = (SELECT max(rollout) FROM step) ORDER BY seq",
    )
    return [(row[0], bool(row[1])) for row in rows]


def unfinished(shop: Shop) -> list[Any]:
    return query(shop, "SELECT id, state FROM rollout WHERE state IN ('running', 'undoing', 'paused')")


def warm_ids(shop: Shop) -> set[str]:
    return {i for (ids,) in query(shop, "SELECT replicas FROM warm") for i in json.loads(ids)}


def query(shop: Shop, sql: str) -> list[Any]:
    with closing(sqlite3.connect(shop.directory / ".rollout/state.db", timeout=10)) as db:
        return db.execute(sql).fetchall()
