"""Pools to nginx's files and back, against files kept beside the tests (tests/golden/nginx)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.errors import ProxyRejected
from rollout.model import Pool, PoolOptions, Upstream
from rollout.proxies.nginx_render import STATUS, Renderer, digest_of, pool_of
from rollout.proxies.nginx_status import listens, trusted
from rollout.proxies.render import Templates

GOLDEN = Path(__file__).parent.parent / "golden/nginx"
TWO = (Upstream("b1", "10.0.0.6", 8000, 5), Upstream("a1", "10.0.0.5", 8000), Upstream("c1", "fd00::1", 80))
POOLS = {
    "plain": Pool("web", TWO),
    "empty": Pool("web"),
    "leastconn": Pool("web", TWO[:1], PoolOptions(keepalive=0, keepalive_timeout=1.5, balance="leastconn")),
    "vhost": Pool("web", TWO[:1], PoolOptions(hosts=("shop.example", "*.shop.example"), balance="random")),
}


def generation(*pools: Pool, files: dict[str, bytes] | None = None) -> dict[str, bytes]:
    return Renderer(Templates("nginx"), 8099).generation(files or {}, pools, "8099", trusted({"net": "172.20.0.5"}))


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_renders_to_the_golden_file_and_is_read_back(name: str) -> None:
    content = generation(POOLS[name])["web.conf"]
    assert content.decode() == (GOLDEN / f"{name}.conf").read_text()
    assert pool_of(content) == POOLS[name]


def test_the_status_file_is_the_golden_one() -> None:
    assert generation()[STATUS].decode() == (GOLDEN / "status.conf").read_text()


@pytest.mark.parametrize(
    ("addresses", "locally", "lines"),
    [
        ({}, False, ["listen 8099;"]),
        ({"a": "172.20.0.5"}, False, ["listen 8099;"]),
        ({"a": "172.20.0.5", "b": "fd00::5"}, False, ["listen 8099;"]),
        ({"a": "fd00::5"}, False, ["listen 8099;", "listen [::]:8099;"]),
        ({"host": "127.0.0.1"}, True, ["listen 127.0.0.1:8099;"]),
    ],
)
def test_the_listener_is_where_the_proxy_can_be_reached(
    addresses: dict[str, str], locally: bool, lines: list[str]
) -> None:
    renderer = Renderer(Templates("nginx"), 8099)
    text = renderer.generation({}, [], listens(8099, addresses, locally=locally), trusted(addresses))[STATUS].decode()
    assert [line.strip() for line in text.splitlines() if "listen " in line] == lines


def test_equal_pools_give_equal_bytes_and_another_pool_another_digest() -> None:
    first = generation(Pool("web", TWO))
    assert generation(Pool("web", tuple(reversed(TWO)))) == first
    assert digest_of(first)
    assert digest_of(first).encode() in first[STATUS].split(b"\n", 1)[1]
    assert digest_of(generation(Pool("web", TWO[:1]))) != digest_of(first)


def test_other_services_stay_byte_for_byte_and_count_in_the_digest() -> None:
    plain = generation(POOLS["plain"])
    with_other = generation(POOLS["plain"], files={"other.conf": b"\xff whatever"})
    assert with_other["other.conf"] == b"\xff whatever"
    assert with_other["web.conf"] == plain["web.conf"]
    assert digest_of(with_other) != digest_of(plain)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"upstream web {}",
        b"# rollout: {",
        b"# rollout: []",
        b'# rollout: {"service": "web"}',
        b'# rollout: {"service": "web", "upstreams": [{"nonsense": 1}], "options": {"hosts": []}}',
        b"# rollout: \xff\xfe",
    ],
)
def test_a_damaged_header_is_no_pool(content: bytes | None) -> None:
    assert pool_of(content) is None


def test_a_service_may_not_take_the_name_of_our_own_file() -> None:
    with pytest.raises(ProxyRejected):
        generation(Pool("rollout-status"))


def test_who_may_ask_covers_an_address_pool_of_ones_own() -> None:
    assert trusted({"net": "172.20.0.5"}) == trusted({})
    assert trusted({"net": "100.64.3.2"})[-1] == "100.64.0.0/16"
