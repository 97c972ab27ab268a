"""One deploy and one rollback under light load, behind each proxy, on whatever engine DOCKER_HOST names.

    python -m tests.faults.smoke DIRECTORY nginx-1.30 haproxy-3.0
    python -m tests.faults.smoke DIRECTORY nginx-1.30 --at drain -- docker exec ENGINE restart-it
    python -m tests.faults.smoke DIRECTORY nginx-1.30 --serve -- docker exec ENGINE restart-it

With `--at STEP`, the command after `--` runs when that step of the deploy begins; with `--serve`, beside a sidecar.
Prints one line for each proxy.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.e2e.projects import Edge, Shop, docker, eventually, healthy, in_pool, project, running
from tests.faults.spoilt import HAPROXY, MIX, NGINX
from tests.load import Load

EDGES = {str(edge): edge for edge in (NGINX, HAPROXY)}


def smoke(edge: Edge, directory: Path) -> str:
    """Deploy, then roll back; 0 failed requests, nothing left. The figures, for people."""
    with running(edge, directory) as shop, shop.load(MIX) as load:
        load.wait_for(30)
        shop.tag("2")
        deployed = shop.rollout("deploy", "web")
        assert shop.answers() == "2"
        shop.settled()
        back = shop.rollout("rollback", "web")
        assert shop.answers() == "1"
        shop.settled()
        return f"{lossless(shop, load)}; deploy {deployed.seconds:.1f} s, rollback {back.seconds:.1f} s"


def interrupted(edge: Edge, directory: Path, step: str, command: Sequence[str], *, lossy: bool) -> str:
    """Run the command when that step of a deploy begins; the next run must converge. `lossy`: it takes traffic down."""
    again = {"restart": "always"}
    with running(edge, directory, **again) as shop, shop.load(MIX) as load:
        load.wait_for(30)
        shop.tag("2")
        run = shop.spawn("deploy", "web")
        run.wait_for("step_started", step=step)
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        done = run.end(120)
        assert done.code in _allowed(step, lossy=lossy), done
        assert "Traceback" not in done.said, done
        assert "bug in rollout" not in done.said, done
        eventually(lambda: docker("version", "--format", "{{.Server.Version}}", check=False), "the engine's next life")
        if lossy:
            shop.compose("up", "-d", "edge")
            eventually(lambda: shop.running("edge"), "the proxy, after the engine")
        shop.rollout("deploy", "web")
        assert shop.answers() == "2"
        shop.settled()
        told = "not counted" if lossy else lossless(shop, load)
        why = next((line for line in done.out.splitlines() if '"event":"error"' in line), "")
        return f"restarted at {step}: exit {done.code} after {done.seconds:.1f} s, then 0; {told} {why}".rstrip()


def followed(edge: Edge, directory: Path, command: Sequence[str]) -> str:
    """Run the command, which takes everything down, beside a sidecar, and again with the sidecar killed and started
    anew like everything else: the proxy must have the right pool, with nobody's help."""
    told = []
    with project(edge, directory, restart="always") as shop:
        shop.services["edge"]["restart"] = "always"
        shop.write()
        sidecar = shop.spawn("serve")
        healthy(shop)
        shop.compose("up", "-d")
        in_pool(shop)
        for killed in (False, True):
            before = {c.started for c in shop.running()}
            if killed:
                sidecar.process.kill()
                sidecar.end()
            began = time.monotonic()
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            eventually(lambda: docker("version", "--format", "{{.Server.Version}}", check=False), "the engine", 60)
            if killed:
                sidecar = shop.spawn("serve")
            eventually(partial(_all_started_anew, shop, before), "all replicas, after the engine", 60)
            in_pool(shop)
            eventually(lambda: shop.answers() == "1", "an answer")
            told.append(f"right after {time.monotonic() - began:.1f} s")
            healthy(shop)  # HAProxy's own files may have been right before it has begun to look
        sidecar.signal(signal.SIGTERM)
        done = sidecar.end()
        assert done.code == 0, done
    return "; with the sidecar killed too: ".join(told)


def _all_started_anew(shop: Shop, before: set[str]) -> bool:
    found = shop.running()
    return len(found) == 2 and not before & {c.started for c in found}


def _allowed(step: str, *, lossy: bool) -> set[int]:
    """With the containers running on, a restart of the engine is waited out: what has switched is finished."""
    if lossy:
        return {0, 1, 4, 5}
    return {0} if step in {"drain", "stop"} else {0, 1, 4}


def lossless(shop: Shop, load: Load) -> str:
    load.wait_for(load.progress()["total"] + 30)
    report = load.report()
    assert report.failed == 0, f"{report.describe()}\n{shop.describe()}"
    assert {line["in_flight"] for line in shop.term_lines()} <= {0}, shop.term_lines()
    return f"{report.total:,} requests, {report.failed} failed"


def main(argv: Sequence[str]) -> None:
    said, command = (list(argv), []) if "--" not in argv else (
        list(argv[: argv.index("--")]), list(argv[argv.index("--") + 1 :])
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("edges", nargs="+", choices=EDGES)
    parser.add_argument("--at", default="")
    parser.add_argument("--lossy", action="store_true")
    parser.add_argument("--serve", action="store_true")
    asked = parser.parse_args(said)
    for name in asked.edges:
        folder = Path(tempfile.mkdtemp(dir=asked.directory))
        if asked.serve:
            told = followed(EDGES[name], folder / "p", command)
        elif command:
            told = interrupted(EDGES[name], folder, asked.at, command, lossy=asked.lossy)
        else:
            told = smoke(EDGES[name], folder)
        print(f"{name}: {told}")


if __name__ == "__main__":
    main(sys.argv[1:])
