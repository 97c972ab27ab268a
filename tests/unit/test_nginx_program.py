"""Which program is asked, and who is told to reload, whatever the container was started with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rollout.engines.docker import Connection, ContainerProcess
from rollout.errors import ProxyUnreachable
from rollout.ports import ExecResult, Process
from rollout.proxies.nginx_program import Program
from tests.clocks import HandClock

MASTER = "nginx: master process nginx -g daemon off;"


class Container:
    """A container that was started with `argv`; the first of `titles` is its main process."""

    def __init__(self, argv: Sequence[str], *titles: str, fails: bool = False) -> None:
        self._argv, self._titles, self._fails = argv, titles, fails
        self.told: list[str] = []

    def argv(self) -> list[str]:
        return list(self._argv)

    def processes(self) -> list[Process]:
        return [Process(number, title) for number, title in enumerate(self._titles)]

    def signal(self, name: str) -> None:
        self.told.append(name)

    def exec(self, argv: Sequence[str]) -> ExecResult:
        self.told.append(" ".join(argv))
        return ExecResult(1, "nginx: [error] invalid PID number") if self._fails else ExecResult(0, "")

    def describe(self) -> str:
        return "container edge"

    def reload(self) -> list[str]:
        Program(self, HandClock()).reload(self.processes())  # type: ignore[arg-type]  # all that it asks of it
        return self.told

    def tests(self) -> list[str]:
        """The words with which nginx is asked for its verdict."""
        seen: list[str] = []

        def run(argv: Sequence[str]) -> ExecResult:
            seen.extend(argv)
            return ExecResult(0, "")

        self.exec = run  # type: ignore[method-assign]  # listened to
        Program(self, HandClock()).test("/new.conf")  # type: ignore[arg-type]  # all that it asks of it
        return seen


NGINX = ["nginx", "-g", "daemon off;"]


@pytest.mark.parametrize(
    ("argv", "titles"),
    [
        (NGINX, [MASTER, "nginx: worker process"]),
        (["/docker-entrypoint.sh", *NGINX], [MASTER, "nginx: worker process"]),
        (["sh", "-c", "exec nginx -g 'daemon off;'"], [MASTER, "nginx: worker process", "sh -c IFS= read"]),
        (["angie"], ["angie: master process v1.8.0 #3 [angie]", "angie: worker process #3"]),
        (NGINX, ["/sbin/docker-init -- nginx -g daemon off;", MASTER]),
        (["tini", "-g", "--", "/usr/sbin/nginx"], ["tini -g -- /usr/sbin/nginx", MASTER]),
        (["tini", "-p", "SIGTERM", "--", "nginx"], ["tini -p SIGTERM -- nginx", MASTER]),
        (["dumb-init", "openresty"], ["/usr/bin/dumb-init openresty", MASTER]),
    ],
)
def test_nginx_is_told_itself_where_the_signal_gets_there(argv: list[str], titles: list[str]) -> None:
    assert Container(argv, *titles).reload() == ["HUP"]


SUPERVISOR = "/usr/bin/python3 /usr/bin/supervisord -c /etc/supervisord.conf"


@pytest.mark.parametrize(
    ("argv", "titles"),
    [
        (["/entrypoint.sh", "supervisord", "-c", "/etc/supervisord.conf"], [SUPERVISOR, MASTER, "php-fpm: pool www"]),
        (["/init"], ["/package/admin/s6/command/s6-svscan -d4 -- /run/service", MASTER]),
        (["sh", "-c", "nginx -g 'daemon off;'; true"], ["sh -c nginx -g 'daemon off;'; true", MASTER]),
        (["/entrypoint.sh", *NGINX], ["/sbin/docker-init -- /entrypoint.sh nginx -g daemon off;", MASTER]),
        (["tini", "--", "supervisord"], ["tini -- supervisord", "/usr/bin/python3 /usr/bin/supervisord", MASTER]),
        (["anything"], ["", MASTER]),  # the main process is not seen
    ],
)
def test_whoever_has_started_nginx_is_not_signalled(argv: list[str], titles: list[str]) -> None:
    assert Container(argv, *titles).reload() == ["nginx -g daemon off; -s reload"]


def test_an_nginx_that_cannot_be_told_is_not_reached() -> None:
    with pytest.raises(ProxyUnreachable, match="cannot be told to reload"):
        Container(["/init"], "s6-svscan", MASTER, fails=True).reload()


@pytest.mark.parametrize(
    ("argv", "master", "words"),
    [
        (["sh", "-c", "envsubst < /t > /n.conf && exec /usr/sbin/nginx"], "/usr/sbin/nginx", ["/usr/sbin/nginx"]),
        (["/start.sh", "/etc/nginx"], "/usr/sbin/nginx -e stderr", ["/usr/sbin/nginx", "-e", "stderr"]),
        (["/start.sh", "/etc/nginx"], "nginx -c/my.conf -p/srv", ["nginx", "-p", "/srv"]),
        (["sh", "-c", "nginx"], "nginx", ["nginx"]),
        (["/e.sh", *NGINX], "nginx -g daemon off;", ["nginx", "-g", "daemon off;"]),
        (["/e.sh", "nginx", "-g", "env A=x -c y;"], "nginx -g env A=x -c y;", ["nginx", "-g", "env A=x -c y;"]),
        (
            ["/init"],
            "nginx -c /a.conf -g daemon off; user x; -p /p",
            ["nginx", "-p", "/p", "-g", "daemon off; user x;"],
        ),
        (["/init"], "/opt/it's/nginx", ["/opt/it's/nginx"]),
    ],
)
def test_nginx_is_asked_as_its_master_was_started(argv: list[str], master: str, words: list[str]) -> None:
    there = Container(argv, "something", f"nginx: master process {master}", "nginx: worker process")
    assert there.tests() == [*words, "-c", "/new.conf", "-q", "-t"]


@pytest.mark.parametrize("build", ["", " PRO"])
def test_angie_is_asked_as_its_master_was_started(build: str) -> None:
    title = f"angie: master process v1.11.5{build} #12 [/usr/sbin/angie -e stderr]"
    assert Container(["/init"], "s6", title).tests()[:3] == ["/usr/sbin/angie", "-e", "stderr"]


@pytest.mark.parametrize(
    ("argv", "program"), [(["/e.sh", "/bin/nginx"], "/bin/nginx"), (["sh", "-c", "x /nginx"], "nginx")]
)
def test_before_there_is_a_master_the_container_s_own_words_count(argv: list[str], program: str) -> None:
    assert Container(argv, " ".join(argv)).tests()[0] == program


class Client:
    """An engine with one container whose main process has the first of `pids` until it is restarted."""

    base_url = "http+docker://engine"

    def __init__(self, *pids: int, listed: Sequence[int]) -> None:
        self._pids, self._listed = list(pids), listed

    def containers(self, **_: object) -> list[dict[str, Any]]:
        return [
            {"Id": "c" * 64, "Names": ["/edge"], "Image": "n", "ImageID": "i", "Created": 1, "Labels": {},
             "State": "running", "Status": "Up"},
        ]  # fmt: skip

    def inspect_container(self, _: str) -> dict[str, Any]:
        pid = self._pids.pop(0) if len(self._pids) > 1 else self._pids[0]
        state = {"Status": "running", "Running": True, "Restarting": False, "StartedAt": "", "Pid": pid, "ExitCode": 0}
        return {
            "Id": "c" * 64, "Name": "/edge", "Path": "/init", "Args": [], "Image": "i", "Created": "", "Mounts": [],
            "RestartCount": 0, "State": state, "Config": {"Labels": {}, "Image": "n"}, "NetworkSettings": {},
            "HostConfig": {"NetworkMode": "x"},
        }  # fmt: skip

    def top(self, *_: object, **__: object) -> dict[str, Any]:
        return {"Titles": ["PID", "CMD"], "Processes": [[str(pid), f"process {pid}"] for pid in self._listed]}


@pytest.mark.parametrize(
    ("main", "seen"),
    [
        ([2**30 + 7], [(2**30 + 7, "process 1073741831"), (5, "process 5"), (9, "process 9")]),
        ([2**30 + 1, 2**30 + 7], [(2**30 + 7, "process 1073741831"), (5, "process 5"), (9, "process 9")]),  # restarted
        ([2**30 + 1], [(2**30 + 1, ""), (5, "process 5"), (9, "process 9"), (2**30 + 7, "process 1073741831")]),
    ],
)
def test_a_container_s_main_process_is_the_first(main: list[int], seen: list[tuple[int, str]]) -> None:
    """Its pids are none of this host's."""
    clock = HandClock()
    connection = Connection(clock, {})
    connection._client = Client(*main, listed=[5, 9, 2**30 + 7])  # type: ignore[assignment]  # no other way in
    process = ContainerProcess(connection, "", container="edge")
    process.argv()
    clock.time += 1.0
    assert [(one.pid, one.title) for one in process.processes()] == seen
