"""HAProxy's sockets over real UNIX and TCP sockets: what HAProxy would not say must be a clean error, never an act."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import ProxyRejected, ProxyUnreachable
from rollout.model import Upstream
from rollout.proxies.haproxy_answers import Target, parse_info, parse_servers
from rollout.proxies.haproxy_socket import ControlSocket, Master, Refused, Runtime, Silent

HEADER = "# pxname,svname,qcur,scur,stot,econ,eresp,wretr,wredis,status,req_tot,hrsp_5xx,srv_abrt,uweight,addr,\n"
INFO = "Name: HAProxy\nVersion: 3.0.11\nPid: 8\nStopping: 0\nStart_time_sec: 1700000000\n\n"
PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
1               master          2 [failed: 1]   0d00h00m41s     3.0.11
# workers
12              worker          0               0d00h00m00s     3.0.11
# old workers
8               worker          2               0d00h04m58s     3.0.11
# programs
9               program         0               0d00h04m58s     3.0.11

"""


@contextmanager
def answering(path: Path, answer: Callable[[str], bytes]) -> Iterator[ControlSocket]:
    """A server on a UNIX socket that answers each command by `answer`."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    command = connection.makefile("rb").read().decode().strip()
                    connection.sendall(answer(command))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ControlSocket(str(path), SystemClock())
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "said",
    [b"", b"\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xfe\x00", b"Pid: many\n", b"Unknown command\n"],
    ids=["nothing", "blank", "http", "binary", "no-number", "unknown-command"],
)
def test_nonsense_is_unreachable(tmp_path: Path, said: bytes) -> None:
    with answering(tmp_path / "s", lambda _: said) as control:
        for ask in (
            Runtime(control).worker,
            lambda: Runtime(control).servers("web"),
            Master(control, SystemClock()).workers,
            Master(control, SystemClock()).reload,
        ):
            with pytest.raises(ProxyUnreachable) as caught:
                ask()
            assert caught.value.hint


@pytest.mark.parametrize(
    "row",
    ["web,a", "web,a,x,0,0,0,0,0,0,UP,0,0,0,1,1.2.3.4:80,", "web,a,0,0"],
    ids=["short", "not-a-number", "cut"],
)
def test_a_damaged_row_is_unreachable(row: str) -> None:
    with pytest.raises(ProxyUnreachable):
        parse_servers(HEADER + row + "\n\n")


@pytest.mark.parametrize("length", range(0, 190, 5))
def test_an_answer_that_is_cut_off_hides_no_server(length: int) -> None:
    whole = HEADER + "web,a,0,1,9,0,0,0,0,UP,0,0,0,1,10.0.0.1:80,\nweb,b,0,1,9,0,0,0,0,UP,0,0,0,1,10.0.0.2:80,\n\n"
    assert length < len(whole)
    with pytest.raises(ProxyUnreachable):
        parse_servers(whole[:length])


def test_an_answer_that_never_ends_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.proxies.haproxy_socket.ANSWER_LIMIT", 1000)
    with (
        answering(tmp_path / "s", lambda _: b"x" * 2000) as control,
        pytest.raises(ProxyUnreachable, match="without end"),
    ):
        control.ask("show info")


def test_a_socket_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(ProxyUnreachable, match=r"within 0\.05 s"):
            ControlSocket(str(tmp_path / "s"), SystemClock()).ask("show info", timeout=0.05)


@pytest.mark.parametrize("address", ["/no/such/socket", "tcp:127.0.0.1:1", "tcp:[::1]:1"])
def test_a_socket_that_is_not_there(address: str) -> None:
    with pytest.raises(ProxyUnreachable) as caught:
        ControlSocket(address, SystemClock()).ask("show info")
    assert address in caught.value.message


def test_a_tcp_socket_is_spoken_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(INFO.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        control = ControlSocket(f"tcp:127.0.0.1:{server.getsockname()[1]}", SystemClock())
        assert Runtime(control).worker().identity == "8@1700000000"
        thread.join()


def test_a_socket_without_admin_level_says_so(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "s", lambda _: b"Permission denied\n\n") as control,
        pytest.raises(ProxyUnreachable) as caught,
    ):
        control.ask("set server web/a state maint")
    assert "level admin" in caught.value.hint


@pytest.mark.parametrize("command", ["show info\nquit", "show info; quit", "set server web/\u00e4 state maint", "a\tb"])
def test_more_than_one_command_is_never_sent(command: str) -> None:
    with pytest.raises(ProxyRejected):
        ControlSocket("/no/such/socket", SystemClock()).ask(command)


def test_what_a_server_has_done_is_read() -> None:
    rows = (
        "web,a,1,2,9,1,3,3,0,no check,3,1,1,7,172.17.0.2:8000,\n"  # 6 requests: 3 retries are not requests
        "web,b,0,0,0,0,0,0,0,MAINT,0,0,0,1,[fd00::2]:8000,\n"
        "web,c,0,0,0,0,0,0,0,DOWN 1/2,0,0,0,1,172.17.0.3:8000,\n"
        "web,d,0,0,0,0,0,0,0,DRAIN,0,0,0,1,172.17.0.4:8000,\n\n"
    )
    servers = parse_servers(HEADER + rows)
    assert servers is not None
    a = servers["a"]
    assert (a.address, a.weight, a.in_flight, a.requests) == ("172.17.0.2:8000", 7, 3, 6)
    assert a.failed == 1 + 1 + 1 + 2  # 5xx, not connected, cut short, never answered
    assert [s.name for s in servers.values() if s.serving] == ["a"]
    assert [s.name for s in servers.values() if s.in_maintenance] == ["b"]
    assert [s.name for s in servers.values() if s.draining] == ["d"]


def test_an_unanswered_request_that_haproxy_counts_twice_is_one() -> None:
    servers = parse_servers(HEADER + "web,a,0,0,3,0,2,0,0,UP,2,0,0,1,172.17.0.2:80,\n\n")
    assert servers is not None
    assert servers["a"].failed == 1


def test_no_such_backend_is_not_an_empty_one(tmp_path: Path) -> None:
    assert parse_servers("No such proxy.\n\n") is None
    assert parse_servers(HEADER + "\n") == {}


def test_a_frontend_of_the_same_name_does_not_hide_the_backend(tmp_path: Path) -> None:
    """HAProxy answers `show stat web` for the frontend then."""
    said = {
        "show stat web 4 -1": HEADER + "\n",
        "show servers state web": "1\n# be_id be_name srv_id srv_name\n7 web 1 a 172.17.0.2 2 0\n",
        "show stat 7 4 -1": HEADER + "web,a,0,0,0,0,0,0,0,UP,0,0,0,1,172.17.0.2:80,\n\n",
    }
    with answering(tmp_path / "s", lambda command: said[command].encode()) as control:
        assert list(Runtime(control).servers("web") or {}) == ["a"]
    said["show servers state web"] = "Can't find backend.\n"
    with answering(tmp_path / "t", lambda command: said[command].encode()) as control:
        assert Runtime(control).servers("web") is None


def test_a_refused_command_carries_haproxys_words(tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda _: b"No such server.\n\n") as control:
        with pytest.raises(Refused, match="No such server"):
            Runtime(control).run("set server web/a state maint")
        with pytest.raises(Refused, match="No such server"):
            Runtime(control).run("del server web/a", says="Server deleted")


def test_every_worker_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda _: PROC.encode()) as control:
        assert Master(control, SystemClock()).workers() == [12, 8]


def test_no_worker_at_all_is_no_answer(tmp_path: Path) -> None:
    """That an old worker is not named would be its end, and the end of its drain."""
    master_only = "".join([*PROC.splitlines(keepends=True)[:2], "\n"]).encode()
    with (
        answering(tmp_path / "s", lambda _: master_only) as control,
        pytest.raises(ProxyUnreachable, match="show proc"),
    ):
        Master(control, SystemClock()).workers()


@pytest.mark.parametrize(
    "said", ["Can't find the target PID matching the prefix '@!7'\n", "Can't connect to the target CLI!\n"]
)
def test_a_worker_that_has_ended_knows_nothing(tmp_path: Path, said: str) -> None:
    with answering(tmp_path / "s", lambda command: (PROC if command == "show proc" else said).encode()) as control:
        assert Master(control, SystemClock()).worker(7) is None
        assert Master(control, SystemClock()).servers(7, "web") == {}


def test_a_live_worker_that_does_not_answer_is_not_taken_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout.proxies.haproxy_socket.TIMEOUT", 0.05)
    said = "Can't connect to the target CLI!\n"
    with (
        answering(tmp_path / "s", lambda command: (PROC if command == "show proc" else said).encode()) as control,
        pytest.raises(Silent),
    ):
        Master(control, SystemClock()).servers(8, "web")


def test_a_refused_reload_carries_the_log(tmp_path: Path) -> None:
    verdict = "Success=0\n--\n[ALERT]    (1) : config : unknown keyword 'foo'\n\n"
    with (
        answering(tmp_path / "s", lambda command: (PROC if command == "show proc" else verdict).encode()) as control,
        pytest.raises(ProxyRejected) as caught,
    ):
        Master(control, SystemClock()).reload()
    assert caught.value.details == ("[ALERT]    (1) : config : unknown keyword 'foo'",)


@pytest.mark.parametrize(("failed", "refused"), [(0, False), (1, True)])
def test_before_2_7_the_verdict_is_the_masters_count(tmp_path: Path, failed: int, refused: bool) -> None:
    processes = iter([PROC, PROC, PROC.replace("2 [failed: 1]", f"3 [failed: {failed}]")])
    with answering(tmp_path / "s", lambda command: b"" if command == "reload" else next(processes).encode()) as control:
        if refused:
            with pytest.raises(ProxyRejected):
                Master(control, SystemClock()).reload()
        else:
            assert Master(control, SystemClock()).reload() == []


def test_a_worker_that_stops_says_so() -> None:
    assert not parse_info(INFO).stopping
    assert parse_info(INFO.replace("Stopping: 0", "Stopping: 1")).stopping


def test_what_is_drained_is_also_whoever_has_its_address_under_another_name() -> None:
    """A replica that has gone left its address to the one that is to be stopped: its server still sends there."""
    rows = (
        "web,gone,0,2,9,0,0,0,0,MAINT,9,0,0,1,172.17.0.2:8000,\n"
        "web,other,0,1,9,0,0,0,0,no check,9,0,0,1,172.17.0.3:8000,\n"
        "web,ours,0,0,0,0,0,0,0,MAINT,0,0,0,1,172.17.0.9:8000,\n\n"
    )
    servers = parse_servers(HEADER + rows)
    assert servers is not None
    target = Target.of([Upstream("ours", "172.17.0.2", 8000), Upstream("never-added", "172.17.0.5", 8000)])
    assert sorted(target.among(servers)) == ["gone", "ours"]
