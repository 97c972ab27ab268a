"""The files rollout writes for HAProxy, and what it reads of HAProxy's own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import ProxyRejected, StateError
from rollout.model import Pool, PoolOptions, ProxySettings, ProxyType, Upstream
from rollout.proxies.haproxy import HAProxy
from rollout.proxies.haproxy_config import ConfigDirectory, decode, encode, server_lines, structure
from rollout.proxies.haproxy_files import CommandLine, parse_command_line, parse_config, seconds, tokens
from tests.unit.haproxy_process import FakeProcess

GOLDEN = Path(__file__).parent.parent / "golden" / "haproxy"
POOLS = {
    "two": Pool("web", (Upstream("b1c2", "172.20.0.6", 8000), Upstream("a1b2", "172.20.0.5", 8000, 9))),
    "empty": Pool("web"),
    "options": Pool(
        "shop.api",
        (Upstream("a1b2", "fd00::5", 8000),),
        PoolOptions(keepalive=0, keepalive_timeout=0.25, balance="leastconn"),
    ),
}


def written(directory: Path, pool: Pool, templates: str = "") -> str:
    settings = ProxySettings(ProxyType.HAPROXY, str(directory), container="edge", templates=templates)
    HAProxy(settings, FakeProcess(directory), SystemClock(), str(directory / ".lock")).write_initial([pool])
    return (directory / f"{pool.service}.cfg").read_text()


@pytest.mark.parametrize("name", POOLS)
def test_the_rendered_file(name: str, tmp_path: Path) -> None:
    assert written(tmp_path, POOLS[name]) == (GOLDEN / f"{name}.cfg").read_text()


@pytest.mark.parametrize("name", POOLS)
def test_the_pool_is_read_back(name: str, tmp_path: Path) -> None:
    pool = POOLS[name]
    written(tmp_path, pool)
    assert ConfigDirectory(str(tmp_path)).pool(pool.service) == pool


def test_a_large_pool_is_read_back() -> None:
    pool = Pool("web", tuple(Upstream(f"u{i}", f"10.0.{i // 250}.{i % 250 + 1}", 80) for i in range(1000)))
    assert decode(encode(pool)) == pool


@pytest.mark.parametrize(
    "text",
    ["", "backend web\n", "# rollout: {}\n", "# rollout: nonsense\n", '# rollout: {"service": 1, "upstreams": 3}\n'],
)
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "web.cfg").write_text(text)
    with pytest.raises(StateError, match="not written by rollout"):
        ConfigDirectory(str(tmp_path)).pool("web")


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream("a b", "172.20.0.5", 80),
        Upstream("a\nserver x 1.2.3.4:80", "172.20.0.5", 80),
        Upstream("a;quit", "172.20.0.5", 80),
        Upstream("a", "shop.example", 80),
        Upstream("a", "172.20.0.5 check", 80),
        Upstream("a", "172.20.0.5", 0),
        Upstream("a", "172.20.0.5", 80, 257),
    ],
)
def test_what_is_no_name_or_address_never_reaches_haproxy(tmp_path: Path, upstream: Upstream) -> None:
    with pytest.raises(ProxyRejected):
        written(tmp_path, Pool("web", (upstream,)))
    assert not (tmp_path / "web.cfg").exists()


def test_a_template_of_ones_own_comes_first_and_cannot_lose_the_header(tmp_path: Path) -> None:
    (tmp_path / "own" / "haproxy").mkdir(parents=True)
    (tmp_path / "own" / "haproxy" / "backend.cfg.j2").write_text("backend {{ service }}\n    option httplog\n")
    (tmp_path / "conf").mkdir()
    text = written(tmp_path / "conf", POOLS["two"], str(tmp_path / "own"))
    assert text.endswith("backend web\n    option httplog\n")
    assert decode(text) == POOLS["two"]


def test_a_changed_structure_is_loaded_by_the_next_switch(tmp_path: Path) -> None:
    written(tmp_path, POOLS["two"])
    assert not ConfigDirectory(str(tmp_path)).reload_due("web")
    written(tmp_path, POOLS["empty"])
    assert not ConfigDirectory(str(tmp_path)).reload_due("web")
    written(tmp_path, Pool("web", options=PoolOptions(balance="leastconn")))
    assert ConfigDirectory(str(tmp_path)).reload_due("web")


def test_a_write_is_readable_by_haproxy_and_leaves_nothing(tmp_path: Path) -> None:
    files = ConfigDirectory(str(tmp_path))
    files.write("web", "text\n")
    assert stat.S_IMODE((tmp_path / "web.cfg").stat().st_mode) == 0o644
    files.write("web", None)
    files.write("web", None)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        ConfigDirectory(str(tmp_path / "gone")).write("web", "text\n")
    assert "x-rollout.proxy.config" in caught.value.hint


def test_the_candidate_is_all_files_with_one_replaced(tmp_path: Path) -> None:
    files = ConfigDirectory(str(tmp_path))
    files.write("web", "old\n")
    files.write("api", "api\n")
    (tmp_path / ".test-web").mkdir()  # a crash left it
    with files.candidate("web", "new\n") as name:
        inside = {path.name: path.read_text() for path in (tmp_path / name).iterdir()}
    assert inside == {"web.cfg": "new\n", "api.cfg": "api\n"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.cfg", "web.cfg"]
    assert (tmp_path / "web.cfg").read_text() == "old\n"


def test_a_server_line_keeps_its_options_and_those_of_default_server() -> None:
    text = (
        "backend web\n default-server inter 1s\n server a 10.0.0.1:80 weight 7 check # seven\n server b 10.0.0.2:80\n"
    )
    lines = server_lines(text)
    assert (lines["a"].address, lines["a"].weight) == ("10.0.0.1:80", 7)
    assert lines["a"].options == ("inter", "1s", "check")
    assert lines["b"].options == ("inter", "1s")
    assert structure(text) == structure("# another\nbackend web\n  default-server inter 1s\n")


# --- HAProxy's own files and command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            "haproxy -W -db -S /run/master.sock,level,admin -f /etc/haproxy.cfg -f /etc/rollout.d",
            CommandLine("haproxy", ("/etc/haproxy.cfg", "/etc/rollout.d"), True, "/run/master.sock"),
        ),
        (
            "docker-entrypoint.sh haproxy -f /usr/local/etc/haproxy/haproxy.cfg",
            CommandLine("haproxy", ("/usr/local/etc/haproxy/haproxy.cfg",), True, ""),
        ),
        ("docker-entrypoint.sh -f a.cfg", CommandLine("haproxy", ("a.cfg",), True, "")),
        ("/usr/sbin/haproxy -Ws -f a b -p /run/pid -L x -- c", CommandLine("/usr/sbin/haproxy", ("a", "b", "c"), True)),
        ("haproxy -db -f a.cfg", CommandLine("haproxy", ("a.cfg",), False)),
        ("", CommandLine("haproxy")),
    ],
)
def test_the_command_line_is_read(argv: str, expected: CommandLine) -> None:
    assert parse_command_line(argv.split()) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("  server a 1.2.3.4:80  # comment", ("server", "a", "1.2.3.4:80")),
        ("log-format \"a b\" 'c # d'", ("log-format", "a b", "c # d")),
        (r"acl x path /a\ b \# c", ("acl", "x", "path", "/a b", "#", "c")),
        ('stats socket "$SOCKET"', ("stats", "socket", "$SOCKET")),
        ("   # nothing", ()),
    ],
)
def test_a_line_is_read_as_haproxy_reads_it(line: str, words: tuple[str, ...]) -> None:
    assert tokens(line) == words


def test_each_line_knows_its_section() -> None:
    lines = parse_config("h.cfg", "global\n nbthread 2\n\nfrontend web from base\n bind :80\n")
    assert [(line.where, line.kind) for line in lines][-1] == ("h.cfg:5", "frontend")
    assert lines[-1].section == ("frontend", "web", "from", "base")


@pytest.mark.parametrize(("text", "value"), [("15s", 15.0), ("500ms", 0.5), ("2000", 2.0), ("1h", 3600.0), ("x", None)])
def test_times(text: str, value: float | None) -> None:
    assert seconds(text) == value
