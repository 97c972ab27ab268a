"""The program as people call it: what it prints where, on a terminal and without one, and as a Docker plugin."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.projects import EDGES, PROGRAM, Shop, docker, eventually, project, running
from tests.faults.middle import STARTED, stopped_at

pytestmark = [pytest.mark.e2e]

NGINX = EDGES[1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One project for the tests that look, or leave another revision of the same service."""
    with running(NGINX, tmp_path_factory.mktemp("cli")) as shop:
        yield shop


class Terminal:
    """The program on a terminal of 100 columns; `text` is what it showed, escape sequences included."""

    def __init__(self, shop: Shop, *argv: str, **env: str) -> None:
        self.text = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(shop.directory)
            kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "TAG"}}
            os.execve(PROGRAM, [PROGRAM, *argv], {**kept, "TERM": "xterm-256color", **env})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

    def wait_for(self, words: str) -> None:
        while words not in self.text:
            assert self._read(), f"it ended without {words!r}:\n{self.text}"

    def press_ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# --- looking


def test_plan_touches_nothing(shop: Shop) -> None:
    before = shop.snapshot()
    state = (shop.directory / ".rollout/state.db").read_bytes()
    shop.tag("2")
    done = shop.rollout("plan")
    shop.tag("1")
    assert "start 2 new replicas" in done.out
    assert "-image: rollout-test/app:1" in done.out
    assert "+image: rollout-test/app:2" in done.out
    assert shop.snapshot() == before
    assert (shop.directory / ".rollout/state.db").read_bytes() == state
    assert "nothing to do" in shop.rollout("plan", "web").out


@pytest.mark.parametrize("verb", ["status", "check", "history", "plan", "lock", "render"])
def test_json_is_one_document_whatever_compose_warns_of(shop: Shop, verb: str) -> None:
    file = shop.directory / "compose.yaml"
    good = file.read_text()
    file.write_text(f'version: "3"\n{good}')
    try:
        done = shop.rollout(verb, "--json")
    finally:
        file.write_text(good)
    json.loads(done.out)
    assert "version" in done.err


def test_a_project_in_another_directory(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: { foreign: { image: none } }\n")
    for here in ("/", str(tmp_path)):
        shop.program = ("env", "-C", here, PROGRAM)
        try:
            told = json.loads(shop.rollout("--project-directory", str(shop.directory), "status", "--json").out)
            shop.rollout("--project-directory", str(shop.directory), "sync")
        finally:
            shop.program = (PROGRAM,)
        assert [one["service"] for one in told["services"]] == ["web"]
    assert [path.name for path in tmp_path.iterdir()] == ["compose.yaml"]


def test_a_reader_that_has_left(shop: Shop) -> None:
    """It is no failure, and a deploy goes on: also one that was started without anything to write to."""
    before = {c.id for c in shop.containers()}
    for line, changes in (
        ("{ rollout status; echo $? >&3; } | true", False),
        ("{ rollout deploy web --force 2>&1; echo $? >&3; } | true", True),
        ("rollout deploy web --force >&- 2>&- <&-; echo $? >&3", True),
    ):
        shop.program = ("sh", "-c", f'rollout() {{ {PROGRAM} "$@"; }}; exec 3>&2; {line}')
        try:
            assert shop.rollout().err.splitlines()[-1] == "0"
        finally:
            shop.program = (PROGRAM,)
        now = {c.id for c in shop.containers()}
        assert now.isdisjoint(before) == changes
        before = now
    shop.settled()


def test_from_cron_a_sync_says_only_what_has_changed(shop: Shop) -> None:
    shop.rollout("sync")
    assert shop.rollout("-q", "sync").said == ""
    one, two = shop.containers()
    docker("stop", one.id)
    try:
        assert re.fullmatch(r"web: \d+\.\d+\.\d+\.\d+:8000\n", shop.rollout("-q", "sync").said)
        assert shop.rollout("-q", "sync").said == ""
        assert json.loads(shop.rollout("-q", "sync", "--json").out.splitlines()[-1])["event"] == "synced"
        docker("stop", two.id)
        for _ in range(2):
            assert "no replica of web is ready" in shop.rollout("-q", "sync").said
    finally:
        docker("start", one.id, two.id)
        shop.rollout("sync")
    shop.settled()


def test_render_before_a_container_outside_the_project_runs(short_directory: Path) -> None:
    with project(NGINX, short_directory) as shop:
        shop.service("web")
        file = shop.directory / "compose.yaml"
        file.write_text(file.read_text().replace("service: edge", f"container: {shop.name}-edge-1"))
        refused = shop.rollout("render", code=4)
        assert f"there is no container {shop.name}-edge-1" in refused.err
        assert "create it with x-rollout.proxy.config mounted" in refused.err
        shop.compose("create", "edge", "web")
        advice = shop.rollout("check", code=2).out
        assert f"rollout render, then docker start {shop.name}-edge-1" in advice
        shop.rollout("render")
        docker("start", f"{shop.name}-edge-1")
        shop.compose("up", "-d", "web")
        shop.rollout("deploy")
        assert shop.answers() == "1"


def test_what_only_looks_creates_no_state(short_directory: Path) -> None:
    with project(NGINX, short_directory) as shop:
        shop.service("web")
        for verb in ("plan", "status", "history", "lock"):
            shop.rollout(verb)
        assert not (shop.directory / ".rollout").exists()


def test_status_tells_what_runs(shop: Shop) -> None:
    told = json.loads(shop.rollout("status", "--json").out)
    (web,) = told["services"]
    assert web["service"] == "web"
    assert {r["id"] for r in web["replicas"]} == {c.id for c in shop.containers()}
    assert {r["pool"] for r in web["replicas"]} == {"in"}
    assert {r["address"] for r in web["replicas"]} == shop.pool()
    assert (web["unfinished"], web["lock"], web["warm"]) == (None, None, None)
    text = shop.rollout("status").out
    assert all(c.name in text for c in shop.containers())


def test_check_says_what_would_lose_requests_and_fails_only_for_errors(shop: Shop) -> None:
    assert "safe to deploy" in shop.rollout("check").out
    file = shop.directory / "compose.yaml"
    good = file.read_text()
    try:
        shop.service("web", container_name=f"{shop.name}-fixed", deploy={"replicas": 1})
        done = shop.rollout("check", code=2)
        assert "not safe to deploy: 1 error" in done.out
        assert "[container-name]" in done.out
        told = json.loads(shop.rollout("check", "--json", code=2).out)
        assert not told["ok"]
    finally:
        shop.service("web", container_name=None, deploy={"replicas": 2})
        assert file.read_text() == good


def test_history_has_the_receipts(shop: Shop) -> None:
    for _ in range(2):
        shop.rollout("deploy", "web", "--force")
    (newest,) = json.loads(shop.rollout("history", "web", "--limit", "1", "--json").out)
    assert (newest["state"], newest["receipt"]["outcome"]) == ("deployed", "deployed")
    assert newest["receipt"]["rollout"] == newest["rollout"] > 1
    assert len(shop.rollout("history").out.splitlines()) == 1 + newest["rollout"]


# --- deploying


def test_without_a_terminal_progress_is_on_stderr_and_the_receipt_on_stdout(shop: Shop) -> None:
    old = shop.containers()
    done = shop.rollout("deploy", "web", "--force")
    told = done.out.splitlines()
    assert re.match(r"web: deployed revision \d+ in .*s, no request failed", told[0])
    assert [line.split()[0] for line in told[1:]] == ["phases", "requests", "cut", "usage"]
    assert all(re.match(r"\d\d:\d\d:\d\d web: ", line) for line in done.err.splitlines())
    assert "\x1b" not in done.said
    assert f"drain {old[0].name}, {old[1].name}: done" in done.err, "people know replicas by name"


def test_json_is_only_json_and_the_receipt_comes_last(shop: Shop) -> None:
    done = shop.rollout("--json", "deploy", "web", "--force")
    told = events(done.out)
    assert told[-1]["event"] == "finished"
    assert told[-1]["receipt"]["outcome"] == "deployed"
    assert done.err == ""


def test_a_terminal_gets_the_live_view_and_is_left_as_it_was(shop: Shop) -> None:
    terminal = Terminal(shop, "deploy", "web", "--force")
    assert terminal.end() == 0, terminal.text
    assert "reading the Compose project" in terminal.plain
    assert "✓ start 2 new replicas" in terminal.plain
    assert "web: deployed revision" in terminal.plain
    assert "\x1b[1;32m" in terminal.text
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")


def test_a_terminal_without_colors(shop: Shop) -> None:
    terminal = Terminal(shop, "deploy", "web", "--force", NO_COLOR="1")
    assert terminal.end() == 0, terminal.text
    assert re.findall(r"\x1b\[[0-9;]*3[0-9]m", terminal.text) == []


def test_another_image_than_the_files_name(shop: Shop) -> None:
    done = shop.rollout("deploy", "web", "--image", "rollout-test/app:3")
    assert "deployed revision" in done.out
    assert shop.answers() == "3"
    assert "nothing to do" in shop.rollout("deploy", "web", "--image", "rollout-test/app:3").out
    shop.rollout("deploy", "web")
    assert shop.answers() == "1"
    before = shop.snapshot()
    done = shop.rollout("deploy", "web", "--image", "rollout-test/nope:1", "--pull", "never", code=1)
    assert "there is no image rollout-test/nope:1 here" in done.err
    assert shop.snapshot() == before


def test_two_at_once_the_second_is_told_who_holds_the_lock(shop: Shop) -> None:
    shop.tag("2")
    try:
        with stopped_at(STARTED, shop, "deploy", "web") as first:
            refused = shop.rollout("deploy", "web", code=3)
            assert f"deploy by pid {first.process.pid}" in refused.err
            assert f"deploy by pid {first.process.pid}" in shop.rollout("lock").out
            second = shop.spawn("deploy", "web", "--wait-lock", "60s")
            lock = str(shop.directory / ".rollout/locks/web.lock")
            eventually(lambda: lock in _open_files(second.process.pid), "the second at the lock")
        waited = second.end()
        assert (waited.code, second.events[-1]["event"]) == (0, "nothing_to_do"), waited
        assert first.end().code == 0
        assert shop.rollout("lock").out == "web: free\n"
    finally:
        shop.tag("1")
        shop.rollout("deploy", "web")


def test_waiting_for_the_lock_ends_with_a_signal(shop: Shop) -> None:
    lock = shop.directory / ".rollout/locks/web.lock"
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.truncate(0)
        held.write(json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "what": "a test"}))
        held.flush()
        waiting = Terminal(shop, "deploy", "web", "--wait-lock", "10m")
        waiting.wait_for("reading the Compose project")  # before it became the program, it had this test's files
        eventually(lambda: str(lock) in _open_files(waiting.pid), "it waits for the lock")
        waiting.press_ctrl_c()
        assert waiting.end() == 130, waiting.text
    assert "nothing was touched" in waiting.plain


def _open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while one looks
            found.add(str(link.readlink()))
    return found


def test_two_ctrl_c_leave_at_once_with_the_terminal_restored(shop: Shop) -> None:
    # an undo that takes long: the new replica ignores SIGTERM for its whole grace period
    shop.service("web", environment={"BOOT_DELAY": "60", "ON_TERM": "ignore"}, stop_grace_period="20s")
    try:
        terminal = Terminal(shop, "deploy", "web")
        terminal.wait_for("connection refused")
        terminal.press_ctrl_c()
        terminal.wait_for("undoing")
        terminal.press_ctrl_c()
        assert terminal.end() == 130
        assert "taking back what was started" in terminal.plain
        assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")
        assert "unfinished" in shop.rollout("status").out
    finally:
        shop.service("web", environment={"BOOT_DELAY": None, "ON_TERM": None}, stop_grace_period="5s")
        # one that has ended meanwhile cannot be killed
        docker("kill", *[c.id for c in shop.containers() if "BOOT_DELAY=60" in _environment(c.id)], check=False)
        shop.rollout("sync")
    shop.settled()


def _environment(container: str) -> list[str]:
    found: list[str] = json.loads(docker("inspect", "-f", "{{json .Config.Env}}", container))
    return found


def test_the_docker_plugin(shop: Shop, tmp_path: Path) -> None:
    plugins = tmp_path / "cli-plugins"
    plugins.mkdir()
    (plugins / "docker-rollout").symlink_to(Path(PROGRAM).with_name("docker-rollout"))
    env = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "NO_COLOR": "1"}

    def docker_rollout(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *argv], cwd=shop.directory, env=env, capture_output=True, text=True, check=False, timeout=60
        )

    assert "rollout*" in docker_rollout("--help").stdout
    assert docker_rollout("rollout", "-v").stdout.startswith("rollout ")
    done = docker_rollout("rollout", "-f", "compose.yaml", "-t", "30", "-w", "1", "web")
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True), done
    assert "web: revision" in docker_rollout("--context", "default", "rollout", "status").stdout


# --- several services


def test_services_deploy_in_the_order_of_their_dependencies_up_to_the_first_failure(short_directory: Path) -> None:
    with running(NGINX, short_directory) as shop:
        shop.service("api", depends_on=["store"])
        shop.service("store")
        shop.compose("up", "-d")
        shop.rollout("deploy")
        shop.tag("2")
        told = events(shop.rollout("deploy", "--json").out)
        finished = [e["service"] for e in told if e["event"] == "finished"]
        assert sorted(finished) == ["api", "store", "web"]
        assert finished.index("store") < finished.index("api")
        shop.tag("3")
        shop.service("store", environment={"CRASH_AT_START": "no database"})
        done = shop.rollout("deploy", "api", "store", code=1)
        assert "no database" in done.err
        assert "api:" not in done.out
        assert shop.answers("store") == shop.answers("api") == "2"


def test_state_may_be_elsewhere_and_belongs_to_one_project(shop: Shop, tmp_path: Path) -> None:
    refused = shop.rollout("-p", f"{shop.name}-other", "status", code=4)
    assert f"holds the state of project {shop.name}" in refused.err
    shop.env["ROLLOUT_STATE_DIR"] = str(tmp_path / "state")
    try:
        shop.rollout("sync")
    finally:
        del shop.env["ROLLOUT_STATE_DIR"]
    assert (tmp_path / "state/project").read_text() == f"{shop.name}\n"


def test_a_killed_run_s_compose_keeps_the_lock_until_it_has_ended(shop: Shop, tmp_path: Path) -> None:
    """The run after a killed one must not count replicas while Compose still creates one."""
    real = next(p for p in Path("/usr").rglob("cli-plugins/docker-compose") if os.access(p, os.X_OK))
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "cli-plugins").mkdir()
    slow = tmp_path / "cli-plugins/docker-compose"
    slow.write_text(f'#!/bin/sh\ncase " $* " in *" up "*) read go < {gate};; esac\nexec {real} "$@"\n')
    slow.chmod(0o755)
    shop.env["DOCKER_CONFIG"] = str(tmp_path)
    before = shop.containers()
    try:
        run = shop.spawn("deploy", "web", "--force")
        run.wait_for("step_started", step="start")
        eventually(lambda: _held_by_another(shop, run.process.pid), "Compose has the lock too")
        run.signal(signal.SIGKILL)
        run.process.wait(10)
        held = json.loads(shop.rollout("lock", "--json").out)
        assert held["web"]["pid"] == run.process.pid
    finally:
        gate.write_text("go\n")
        del shop.env["DOCKER_CONFIG"]
        run.end()
    shop.rollout("sync")
    assert shop.containers() == before
    shop.settled()


def _held_by_another(shop: Shop, pid: int) -> bool:
    lock = str(shop.directory / ".rollout/locks/web.lock")
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != pid:
            try:
                if lock in _open_files(int(process.name)):
                    return True
            except OSError:
                continue
    return False
