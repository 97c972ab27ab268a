"""`make bench`: what a deploy costs beside the engine calls that no deploy can do without, in one run, interleaved.

Writes bench/results.json and bench/RESULTS.md. Exit 1 when a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import machine, scale
from bench.floor import Floor
from bench.stand import PROGRAM, Stand, standing
from bench.table import quoted, write_table

HERE = Path(__file__).resolve().parent
PROXIES = ("haproxy", "nginx")
# times the floor, medians
PROCESS_LIMITS = {"haproxy": 1.35, "nginx": 1.7}
COMMAND_LIMITS = {"haproxy": 2.4, "nginx": 2.8}
SCALE_SECONDS, SCALE_MB = 1.0, 150.0
HELP_SECONDS = 0.15


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured; the median counts")
    parser.add_argument("--note", default="", help="written beside the figures: what else the machine was doing")
    parser.add_argument("--quote", action="store_true", help="put the figures into README.md as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as parent, ExitStack() as stack:
        stands = {proxy: stack.enter_context(standing(proxy, Path(parent))) for proxy in PROXIES}
        floor = stack.enter_context(
            Floor(f"{stands['haproxy'].project}_default", "rollout-test/app:1", "rollout-bench-floor")
        )
        load_before = machine.load()
        floors = _measure(options.rounds, floor, stands)
    results = {
        "machine": machine.describe(
            ["rollout-test/nginx:1.30", "rollout-test/haproxy:3.0", "rollout-test/app (Python)"]
        ),
        "rounds": options.rounds,
        "load_average": {"before": load_before, "after": machine.load()},
        "note": options.note,
        "rows": [*_deploy_rows(floors, stands), *_scale_rows(), _help_row(options.rounds)],
        "floor_parts_ms": _medians(floor.parts),
        "phases_ms": {proxy: _medians(stand.phases) for proxy, stand in stands.items()},
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    table = write_table(results)
    (HERE / "RESULTS.md").write_text(table)
    if options.quote:
        _quote(quoted(results))
    print(table)
    return 0 if all(row["pass"] for row in results["rows"]) else 1


def _quote(text: str) -> None:
    readme = HERE.parent / "README.md"
    before, begin, rest = readme.read_text().partition("<!-- bench -->\n")
    _, end, after = rest.partition("<!-- /bench -->")
    readme.write_text(before + begin + text + end + after)


def _measure(rounds: int, floor: Floor, stands: Mapping[str, Stand]) -> list[float]:
    """Measure all, interleaved: a slow minute hits all alike. Returns the floor's times, the stands keep theirs."""
    floor.replace()  # the first has nothing to stop
    floor.parts.clear()
    floors = []
    for number in range(1, rounds + 1):
        for kind in ("process", "command"):
            floors.append(floor.replace())
            for stand in stands.values():
                took = stand.deploy_in_process() if kind == "process" else stand.deploy_by_command()
                stand.times[kind].append(took)
        print(f"round {number} of {rounds}: floor {floors[-1] * 1000:.0f} ms", *(
            f"{stand.proxy} {stand.times['process'][-1] * 1000:.0f} / {stand.times['command'][-1] * 1000:.0f} ms"
            for stand in stands.values()
        ), sep="  ", file=sys.stderr, flush=True)  # fmt: skip
    return floors


def _deploy_rows(floors: Sequence[float], stands: Mapping[str, Stand]) -> list[dict[str, Any]]:
    rows = [_row("the floor: create, start, first good probe, stop, remove", floors, "ms")]
    base = statistics.median(floors)
    for kind, what, limits in (
        ("process", "inside the process", PROCESS_LIMITS),
        ("command", "the whole command", COMMAND_LIMITS),
    ):
        for proxy in PROXIES:
            row = _row(f"{what}, {proxy}", stands[proxy].times[kind], "ms")
            ratio = statistics.median(stands[proxy].times[kind]) / base
            rows.append({**row, "ratio": ratio, "limit": f"{limits[proxy]:g} x floor", "pass": ratio <= limits[proxy]})
    return rows


def _scale_rows() -> list[dict[str, Any]]:
    rows = []
    for proxy in scale.PROXIES:
        runs = [scale.measure(proxy) for _ in range(3)]
        times = [run["read_seconds"] + run["plan_seconds"] + run["render_seconds"] for run in runs]
        what = f"{scale.SERVICES:,} services: read, plan and render one deploy, {proxy}"
        passed = statistics.median(times) <= SCALE_SECONDS
        rows.append({**_row(what, times, "ms"), "limit": f"{SCALE_SECONDS * 1000:.0f} ms", "pass": passed})
        memory = [run["memory_mb"] for run in runs]
        passed = max(memory) <= SCALE_MB
        rows.append({**_row(f"memory for that, {proxy}", memory, "MB"), "limit": f"{SCALE_MB:.0f} MB", "pass": passed})
    return rows


def _help_row(rounds: int) -> dict[str, Any]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([PROGRAM, "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    passed = statistics.median(times) <= HELP_SECONDS
    return {**_row("rollout --help", times, "ms"), "limit": f"{HELP_SECONDS * 1000:.0f} ms", "pass": passed}


def _row(what: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    factor = 1000 if unit == "ms" else 1
    return {
        "what": what,
        "unit": unit,
        "median": statistics.median(values) * factor,
        "min": min(values) * factor,
        "max": max(values) * factor,
        "ratio": None,
        "limit": "",
        "pass": True,
    }


def _medians(parts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: round(statistics.median(times) * 1000, 1) for name, times in parts.items()}


if __name__ == "__main__":
    sys.exit(main())
