"""What `ports.Host` promises, over this host and over the fake of the simulation."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout import host
from rollout.clock import SystemClock
from rollout.errors import DeployFailed
from rollout.host import HostPrograms
from rollout.ports import Clock, ExecResult, Host
from tests.simulation.fakes import FakeClock, FakeHost
from tests.simulation.world import Program, World

VARIABLES = {"ROLLOUT_HOOK": "post_switch"}


@dataclass
class Bench:
    host: Host
    clock: Clock
    directory: Path
    said: list[str] = field(default_factory=list)

    def run(self, program: str, timeout: float = 20.0, given_up: Callable[[], bool] = lambda: False) -> ExecResult:
        return self.host.run([program], VARIABLES, timeout, self.said.append, given_up)


def real(directory: Path) -> Bench:
    clock = SystemClock()
    for name, line in {"./good": "exit 0", "./bad": "exit 3", "./slow": "sleep 100"}.items():
        (directory / name).write_text(f"#!/bin/sh\necho begun\n{line}\n")
        (directory / name).chmod(0o755)
    return Bench(HostPrograms("shop", str(directory), clock), clock, directory)


def fake(directory: Path) -> Bench:
    world = World()
    world.programs = {
        "./good": Program(), "./bad": Program(3), "./slow": Program(0, 100.0), "./missing": Program(127),
    }  # fmt: skip
    return Bench(FakeHost(world), FakeClock(world), directory)


@pytest.fixture(params=[real, fake])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    made: Bench = request.param(tmp_path)
    return made


def test_it_answers_the_exit_code_and_says_each_line(bench: Bench) -> None:
    assert bench.run("./good") == ExecResult(0, "begun")
    assert bench.run("./bad") == ExecResult(3, "begun")
    assert bench.said == ["begun", "begun"]


def test_a_missing_program_is_an_exit_code(bench: Bench) -> None:
    assert bench.run("./missing").exit_code == 127


def test_what_takes_too_long_is_ended(bench: Bench) -> None:
    began = bench.clock.now()
    with pytest.raises(DeployFailed, match=r"longer than 0\.4 s"):
        bench.run("./slow", timeout=0.4)
    assert bench.clock.now() - began < 30, "it would have taken 100"


def test_what_is_given_up_is_ended(bench: Bench) -> None:
    began = bench.clock.now()
    bench.run("./slow", timeout=90.0, given_up=lambda: bool(bench.said))
    assert bench.clock.now() - began < 30, "it would have taken 100"


# --- of this host alone ---------------------------------------------------------------------------------------------


def script(directory: Path, text: str) -> str:
    file = directory / "hook"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return "./hook"


def test_it_runs_in_the_project_directory_with_the_variables_and_no_input(tmp_path: Path) -> None:
    bench = real(tmp_path)
    result = bench.run(script(tmp_path, 'pwd; echo "$ROLLOUT_HOOK $ROLLOUT_PROJECT"; wc -c'))
    assert result.output.split() == [str(tmp_path), "post_switch", "shop", "0"]


def test_nothing_of_it_is_left_when_it_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "GRACE", 0.5)
    bench, found = real(tmp_path), list[str]()

    def begun() -> bool:
        found[:] = running(nap)
        return len(found) == 2

    nap = f"sleep 980.{os.getpid()}"
    bench.run(script(tmp_path, f"trap '' TERM; {nap} & echo begun; {nap}"), timeout=60, given_up=begun)
    assert len(found) == 2, "it had something that could be left"
    until = time.monotonic() + 30  # killed is not yet gone
    while left := running(nap):
        assert time.monotonic() < until, left
        time.sleep(0.01)


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    gc.collect()  # what it would close in between might be opened anew under the same number
    bench, threads, files = real(tmp_path), set(threading.enumerate()), open_files()
    nap = f"sleep 970.{os.getpid()}"
    try:
        began = bench.clock.now()
        leave = f"setsid sh -c 'touch away; exec {nap}' & until test -e away; do sleep 0.01; done"
        assert bench.run(script(tmp_path, f"{leave}; echo begun; printf unended")).output == "begun\nunended"
        assert bench.clock.now() - began < host.GRACE
        assert (set(threading.enumerate()) - threads, open_files() - files) == (set(), set())
        assert running(nap)
    finally:
        subprocess.run(["pkill", "-f", nap], check=True)


def test_who_prints_faster_than_it_is_told_is_ended_in_time_all_the_same(tmp_path: Path) -> None:
    bench = real(tmp_path)
    lines = iter(range(10**9))

    def slowly(_: str) -> None:
        next(lines)
        bench.clock.sleep(0.00002)

    began = bench.clock.now()
    with pytest.raises(DeployFailed, match="longer than 1 s"):
        bench.host.run([script(tmp_path, "exec yes")], VARIABLES, 1.0, slowly, lambda: False)
    assert bench.clock.now() - began < 30, "what the pipe holds at its end is told as well"
    assert next(lines) > 100


def test_a_line_without_an_end_is_told_in_parts(tmp_path: Path) -> None:
    bench = real(tmp_path)
    bench.run(script(tmp_path, "head -c 50000000 /dev/zero | tr '\\0' x"), timeout=60)
    assert sum(map(len, bench.said)) == 50_000_000 and max(map(len, bench.said)) < 2 * host.LONGEST_LINE


def test_a_flood_is_told_whole(tmp_path: Path) -> None:
    bench = real(tmp_path)
    result = bench.run(script(tmp_path, "seq 1 100000"))
    assert bench.said == [str(n) for n in range(1, 100001)]
    assert result.output.splitlines() == bench.said[-host.KEPT_LINES :]


def open_files() -> set[tuple[str, str]]:
    found = set()
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add((link.name, str(link.readlink())))
    return found


def running(command: str) -> list[str]:
    return subprocess.run(["pgrep", "-f", command], capture_output=True, text=True, check=False).stdout.split()


def test_arguments_reach_it_as_they_are(tmp_path: Path) -> None:
    bench = real(tmp_path)
    odd = ["$(touch pwned)", "; touch pwned", "a b", "*", "-x", "ü\nnewline"]
    program = script(tmp_path, 'for a in "$@"; do printf "[%s]" "$a"; done')
    result = bench.host.run([program, *odd], VARIABLES, 20.0, bench.said.append, lambda: False)
    assert result.output == "".join(f"[{a}]" for a in odd)
    assert not (tmp_path / "pwned").exists()
