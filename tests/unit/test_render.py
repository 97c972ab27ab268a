"""Templates: whose is taken, what a fault in one is told as, and what never reaches one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.errors import ProxyRejected
from rollout.model import Pool, PoolOptions, Upstream
from rollout.proxies.render import Templates, built_in, checked_pool


def own(folder: Path, text: str) -> Templates:
    (folder / "nginx").mkdir(exist_ok=True)
    (folder / "nginx/upstream.conf.j2").write_text(text)
    return Templates("nginx", str(folder))


def test_the_users_template_is_taken_before_ours(tmp_path: Path) -> None:
    assert own(tmp_path, "mine: {{ service }}\n").render("upstream.conf.j2", service="web") == "mine: web\n"
    assert "log_format rollout" in own(tmp_path, "").render("status.conf.j2", digest="x", listen="1", trusted=[])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\ntwo {% for x in %}\n", "nginx/upstream.conf.j2, line 2: "),
        ("one\n\n{{ nonsense }}\n", "nginx/upstream.conf.j2, line 3: 'nonsense' is undefined"),
        ("{{ service.nonsense.more }}", "nginx/upstream.conf.j2, line 1: "),
        ("a\n{{ 1 / 0 }}", "nginx/upstream.conf.j2, line 2: division by zero"),
        ("{% include 'nginx/other.j2' %}", "template nginx/other.j2 not found"),
    ],
)
def test_a_fault_names_the_template_and_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProxyRejected) as refused:
        own(tmp_path, text).render("upstream.conf.j2", service="web")
    assert said in refused.value.message


def test_a_template_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ProxyRejected) as refused:
        Templates("nginx", str(tmp_path)).render("nothing.j2")
    assert "nginx/nothing.j2 not found" in refused.value.message
    assert str(built_in()) in refused.value.hint


ONE = Upstream("web-1", "10.0.0.5", 8000)


@pytest.mark.parametrize(
    "pool",
    [
        Pool("web;", (ONE,)),
        Pool("web\n", (ONE,)),
        Pool("../web", (ONE,)),
        Pool(".web", (ONE,)),
        Pool("", (ONE,)),
        Pool("web", (Upstream("a b", "10.0.0.5", 1),)),
        Pool("web", (Upstream("a\n", "10.0.0.5", 1),)),
        Pool("web", (Upstream("a", "localhost", 1),)),
        Pool("web", (Upstream("a", "10.0.0.5;", 1),)),
        Pool("web", (Upstream("a", "fe80::1%eth0;", 1),)),
        Pool("web", (Upstream("a", "10.0.0.5", 0),)),
        Pool("web", (Upstream("a", "10.0.0.5", 65536),)),
        Pool("web", (Upstream("a", "10.0.0.5", 1, 0),)),
        Pool("web", (Upstream("a", "10.0.0.5", 1), Upstream("a", "10.0.0.6", 1))),
        Pool("web", (ONE,), PoolOptions(hosts=("shop.example; }",))),
        Pool("web", (ONE,), PoolOptions(hosts=("shop example",))),
        Pool("web", (ONE,), PoolOptions(hosts=("",))),
        Pool("web", (ONE,), PoolOptions(hosts=("~.*",))),
        Pool("web", (ONE,), PoolOptions(balance="ip_hash; }")),
        Pool("web", (ONE,), PoolOptions(keepalive=-1)),
        Pool("web", (ONE,), PoolOptions(keepalive_timeout=float("nan"))),
    ],
)
def test_what_is_no_name_or_address_never_reaches_a_template(pool: Pool) -> None:
    with pytest.raises(ProxyRejected) as refused:
        checked_pool(pool)
    assert len(refused.value.details) == 1


def test_names_and_addresses_pass_and_all_faults_come_at_once() -> None:
    options = PoolOptions(hosts=("shop.example", "*.shop.example", "a-b.c_d.example."))
    pool = Pool("Web_2.x-y", (Upstream("ab12", "10.0.0.5", 1, 256), Upstream("c.d_e-f", "fd00::1", 65535)), options)
    assert checked_pool(pool) is pool
    with pytest.raises(ProxyRejected) as refused:
        checked_pool(Pool("we b", (Upstream("", "x", 0, 0),), PoolOptions(hosts=("x y",))))
    assert len(refused.value.details) == 6
