"""What in HAProxy's configuration loses requests: each finding says where, and the line to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import SpecError
from rollout.model import Finding, Pool, ProxySettings, ProxyType, Severity, Upstream
from rollout.proxies.haproxy import HAProxy
from rollout.proxies.haproxy_sockets import find_sockets
from tests.unit.haproxy_process import ARGV, FakeProcess

CLEAN = """\
global
  stats socket /run/haproxy/admin.sock mode 660 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  timeout http-keep-alive 15s
  option idle-close-on-response
frontend web
  bind :80
"""


def findings(tmp_path: Path, config: str = CLEAN, argv: str = ARGV) -> list[Finding]:
    process = FakeProcess(tmp_path, {"/etc/haproxy/haproxy.cfg": config} if config else {}, argv)
    proxy = ProxySettings(ProxyType.HAPROXY, str(tmp_path), container="edge")
    return HAProxy(proxy, process, SystemClock(), str(tmp_path / ".lock")).findings()


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def test_a_clean_configuration_has_none(tmp_path: Path) -> None:
    assert findings(tmp_path) == []


@pytest.mark.parametrize(
    ("written", "instead", "code", "where", "fix"),
    [
        ("  option idle-close-on-response\n", "", "haproxy-idle-close", ":10", "option idle-close-on-response"),
        ("keep-alive 15s", "keep-alive 30s", "haproxy-keep-alive", ":9", "timeout http-keep-alive 15s"),
        ("  timeout http-keep-alive 15s\n", "", "haproxy-keep-alive", ":3", "timeout http-keep-alive 15s"),
        ("  timeout connect 2s\n", "", "haproxy-timeout", ":3", "timeout connect 2s"),
        ("  timeout tunnel 1h\n", "", "haproxy-timeout-tunnel", ":3", "timeout tunnel 1h"),
        ("global\n", "global\n  hard-stop-after 30s\n", "haproxy-hard-stop-after", ":2", "drain_timeout"),
        ("global\n", "global\n  close-spread-time 2s\n", "haproxy-close-spread-time", ":2", "idle-close-on-response"),
        ("mode http\n", "mode http\n  retry-on empty-response\n", "haproxy-retry-post", ":5", "retry-on conn-failure"),
        ("mode http\n", "mode http\n  option persist\n", "haproxy-persist", ":5", "option redispatch"),
        ("mode http\n", "mode http\n  http-reuse never\n", "haproxy-http-reuse", ":5", "http-reuse safe"),
        ("mode http\n", "mode http\n  default-server check\n", "haproxy-default-server", ":5", "backend.cfg.j2"),
        (" level admin", "", "haproxy-stats-socket", ":2", "admin.sock mode 660 level admin"),
        (" level admin", " level user", "haproxy-stats-socket", ":2", "admin.sock mode 660 level admin"),
        ("/run/haproxy/admin", "/tmp/admin", "haproxy-stats-socket", ":2", "volumes:"),
        ("/run/haproxy/admin.sock", "ipv4@*:9999", "haproxy-stats-socket-tcp", ":2", "stats socket /var/run"),
    ],
)
def test_one_fault_one_finding(tmp_path: Path, written: str, instead: str, code: str, where: str, fix: str) -> None:
    assert written in CLEAN
    found = only(findings(tmp_path, CLEAN.replace(written, instead, 1)))
    assert (found.code, found.where) == (code, f"/etc/haproxy/haproxy.cfg{where}")
    assert fix in found.fix


@pytest.mark.parametrize(
    ("written", "instead", "code", "fix"),
    [
        ("-W ", "", "haproxy-master-worker", "-W"),
        ("-S /run/haproxy/master.sock,level,admin", "", "haproxy-master-socket", "-S /var/run/haproxy/master.sock"),
        ("/run/haproxy/master.sock", "/tmp/master.sock", "haproxy-master-socket", "volumes:"),
        (" -f /etc/haproxy/rollout.d", "", "haproxy-config-load", "-f /etc/haproxy/rollout.d"),
    ],
)
def test_the_command_line(tmp_path: Path, written: str, instead: str, code: str, fix: str) -> None:
    assert written in ARGV
    found = only(findings(tmp_path, argv=ARGV.replace(written, instead)))
    assert (found.severity, found.code, found.where) == (Severity.ERROR, code, "command line")
    assert fix in found.fix


def test_each_frontend_is_held_to_the_defaults_it_inherits(tmp_path: Path) -> None:
    config = CLEAN + (
        "defaults bare\n  mode http\nfrontend named from bare\n  bind :81\nfrontend last\n  bind :82\n"
        "frontend own\n  option idle-close-on-response\nfrontend raw\n  mode tcp\n"
    )
    assert [(f.code, f.where.partition(":")[2]) for f in findings(tmp_path, config)] == [
        ("haproxy-idle-close", "15"),
        ("haproxy-idle-close", "17"),
    ]


def test_no_runtime_socket_at_all(tmp_path: Path) -> None:
    config = CLEAN.replace("  stats socket /run/haproxy/admin.sock mode 660 level admin\n", "")
    found = only(findings(tmp_path, config))
    assert (found.severity, found.code) == (Severity.ERROR, "haproxy-stats-socket")


def test_a_configuration_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    assert only(findings(tmp_path, "")).code == "haproxy-config-unread"


def test_a_directory_the_proxy_does_not_see(tmp_path: Path) -> None:
    process = FakeProcess(tmp_path, {"/etc/haproxy/haproxy.cfg": CLEAN})
    settings = ProxySettings(ProxyType.HAPROXY, "/elsewhere", container="edge")
    found = HAProxy(settings, process, SystemClock(), str(tmp_path / ".lock")).findings()
    assert [f.code for f in found] == ["haproxy-config-mount"]


# --- where the sockets are ------------------------------------------------------------------------------------------


def sockets(
    tmp_path: Path, config: str = CLEAN, argv: str = ARGV, *, socket: str = "", master_socket: str = ""
) -> tuple[str, str]:
    process = FakeProcess(tmp_path, {"/etc/haproxy/haproxy.cfg": config}, argv)
    proxy = ProxySettings(
        ProxyType.HAPROXY, str(tmp_path), container="edge", socket=socket, master_socket=master_socket
    )
    found = find_sockets(proxy, process, SystemClock())
    return found.runtime.address, found.master.address


def test_sockets_are_found_where_haproxy_says_they_are(tmp_path: Path) -> None:
    assert sockets(tmp_path) == ("/host/run/admin.sock", "/host/run/master.sock")


def test_sockets_that_are_configured_are_not_looked_for(tmp_path: Path) -> None:
    assert sockets(tmp_path, "", "haproxy", socket="/a", master_socket="tcp:h:1") == ("/a", "tcp:h:1")


@pytest.mark.parametrize(
    ("written", "address"),
    [("ipv4@*:9999", "tcp:172.20.0.2:9999"), (":9999", "tcp:172.20.0.2:9999"), ("10.0.0.9:9999", "tcp:10.0.0.9:9999")],
)
def test_a_socket_on_the_network_is_reached_at_the_proxys_address(tmp_path: Path, written: str, address: str) -> None:
    assert sockets(tmp_path, CLEAN.replace("/run/haproxy/admin.sock", written))[0] == address


def test_the_first_socket_that_is_admin_and_shared_is_taken(tmp_path: Path) -> None:
    more = "global\n  stats socket /run/haproxy/user.sock\n  stats socket /tmp/x level admin\n"
    assert sockets(tmp_path, more + CLEAN)[0] == "/host/run/admin.sock"


def test_all_that_is_missing_is_told_at_once_with_the_lines_to_add(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        sockets(tmp_path, "global\n", "haproxy -W -f /etc/haproxy/haproxy.cfg")
    told = "\n".join(caught.value.details)
    assert "stats socket /var/run/haproxy/admin.sock mode 660 level admin" in told
    assert "-S /var/run/haproxy/master.sock" in told
    process = FakeProcess(tmp_path, {"/etc/haproxy/haproxy.cfg": "global\n"}, "haproxy -f /etc/haproxy/haproxy.cfg")
    settings = ProxySettings(ProxyType.HAPROXY, str(tmp_path), container="edge")
    with pytest.raises(SpecError):
        HAProxy(settings, process, SystemClock(), str(tmp_path / ".lock")).switch(
            Pool("web", (Upstream("a", "10.0.0.1", 80),))
        )
    assert not (tmp_path / "web.cfg").exists()
