"""One deploy in a project of a thousand services: what reading, planning and rendering cost, in a process of its own.

`python bench/scale.py SERVICES` prints the figures as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

SERVICES = 1000
PROXIES = ("nginx", "haproxy")
ONE = """\
  s{0}:
    image: app:{0}
    environment: {{ A: '1', B: two }}
    deploy: {{ replicas: 2 }}
    x-rollout: {{ port: 8000, health: {{ path: /healthz }}, drain_timeout: 30s }}
"""


def measure(proxy: str, services: int = SERVICES) -> dict[str, float]:
    """Seconds and MB of one deploy's own work, imports of everything a deploy imports included in the memory."""
    argv = [sys.executable, __file__, proxy, str(services)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _main(proxy: str, services: int) -> None:
    from rollout.compose import Compose, Options

    with tempfile.TemporaryDirectory(prefix="rollout-bench-") as name:
        directory = Path(name)
        (directory / "rollout.d").mkdir()
        file = directory / "compose.yaml"
        file.write_text(_compose_file(proxy, services))
        began = time.perf_counter()
        loaded = Compose(Options((str(file),))).load()
        loading = time.perf_counter() - began
        figures = _one_deploy(proxy, directory, loaded.config)
    figures["compose_seconds"] = loading
    figures["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(figures))


def _compose_file(proxy: str, services: int) -> str:
    head = f"name: scale\nx-rollout: {{ proxy: {{ type: {proxy}, service: edge, config: ./rollout.d }} }}\nservices:\n"
    return head + "  edge: { image: edge }\n" + "".join(ONE.format(n) for n in range(services))


def _one_deploy(proxy: str, directory: Path, config: str) -> dict[str, float]:
    from rollout import spec, strategies
    from rollout.compose.document import parse
    from rollout.model import Pool, Project, ReplicaState, RevisionKey, Upstream
    from rollout.model import Replica as Container
    from rollout.plan import Observed

    for module in ("wiring", "proxies.nginx", "proxies.haproxy", "engines.docker", "actions"):
        import_module(f"rollout.{module}")

    def pool(project: Project, service: str, last: int) -> Pool:
        number = int(service[1:])
        upstreams = [
            Upstream(f"{service}-{host:012x}", f"10.{host}.{number // 250}.{number % 250 + 1}", 8000)
            for host in (1, last)
        ]
        return Pool(service, tuple(upstreams), project.services[service].pool)

    marks = [time.perf_counter()]
    document = parse(config)
    project = spec.read_project(document, str(directory), config)
    marks.append(time.perf_counter())
    key, former = RevisionKey("b" * 64, "sha256:" + "b" * 64), RevisionKey("a" * 64, "sha256:" + "a" * 64)
    running = tuple(
        Container(
            f"{n:064x}", f"scale-s7-{n}", "s7", n, former, ReplicaState.RUNNING, addresses={"scale": f"10.9.9.{n}"}
        )
        for n in (1, 2)
    )
    observed = Observed(key, running, frozenset(c.id for c in running))
    plan = strategies.plan(project.services["s7"], observed)
    assert plan.steps
    marks.append(time.perf_counter())
    write = {"nginx": _write_nginx, "haproxy": _write_haproxy}[proxy]
    write(project, [pool(project, name, 2) for name in project.services])  # what was there before
    marks.append(time.perf_counter())
    write(project, [pool(project, "s7", 3)])
    done = time.perf_counter()
    return {"read_seconds": marks[1] - marks[0], "plan_seconds": marks[2] - marks[1], "render_seconds": done - marks[3]}


def _write_nginx(project: object, pools: Iterable[object]) -> None:
    """A complete generation, durable and in force: the other services' files are carried over from the one before."""
    from rollout.proxies.nginx_check import entry
    from rollout.proxies.nginx_files import Generations
    from rollout.proxies.nginx_render import Renderer
    from rollout.proxies.render import Templates

    generations = Generations(project.proxy.config)  # type: ignore[attr-defined]
    base = generations.current()
    files = Renderer(Templates("nginx"), 8099).generation(generations.files(base), pools, "8099", ["10.0.0.0/8"])  # type: ignore[arg-type]
    name = generations.write(files, base)
    generations.publish(name, entry("/etc/nginx/rollout.d"))
    generations.keep(name, base)


def _write_haproxy(project: object, pools: Iterable[object]) -> None:
    """The one file of each service."""
    from rollout.proxies.haproxy_config import ConfigDirectory, encode
    from rollout.proxies.render import Templates

    templates, files = Templates("haproxy"), ConfigDirectory(project.proxy.config)  # type: ignore[attr-defined]
    for pool in pools:
        values = {"service": pool.service, "upstreams": pool.upstreams, "options": pool.options}  # type: ignore[attr-defined]
        files.write(pool.service, encode(pool) + templates.render("backend.cfg.j2", **values))  # type: ignore[arg-type, attr-defined]


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
