"""A world that is not as it should be: no engine, no Compose, no disk, no such thing. Each time: the exit code, what is
wrong and where, the way out, and nothing touched or left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.compose.find import SYSTEM_PLUGINS
from tests.e2e.disks import AS_ROOT, full, small_disk
from tests.e2e.projects import EDGES, PROGRAM, Done, Edge, Shop, project, running

pytestmark = [pytest.mark.e2e]

NGINX, HAPROXY = EDGES[1], EDGES[2]
# root without the right to ignore permissions is refused as anybody else is, and can read the program
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One project for all the tests that change nothing, which is what each asserts."""
    with running(NGINX, tmp_path_factory.mktemp("p"), deploy={"replicas": 1}) as shop:
        yield shop


def refused(shop: Shop, *argv: str, code: int, says: tuple[str, ...], hint: str) -> Done:
    """The program says no: with this code, these words and this hint, having touched nothing."""
    before = shop.snapshot()
    with tempfile.TemporaryDirectory() as temporary, exported(shop, TMPDIR=temporary):
        done = shop.rollout(*argv, code=code)
        assert list(Path(temporary).iterdir()) == []
    error = done.err[done.err.index("error: ") :]
    missing = [words for words in says if words not in error]
    assert not missing, f"not said: {missing}\n{done}"
    assert hint in error.partition("hint: ")[2] or f"({hint}" in error, f"no hint {hint!r}\n{done}"
    assert "Traceback" not in done.said, done
    assert "bug in rollout" not in done.said, done
    assert shop.snapshot() == before, shop.describe()
    return done


@contextlib.contextmanager
def exported(shop: Shop, **variables: str) -> Iterator[None]:
    shop.env.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del shop.env[name]


@contextlib.contextmanager
def called_by(shop: Shop, *wrapper: str) -> Iterator[None]:
    """The program is run by this one."""
    shop.program = (*wrapper, PROGRAM)
    try:
        yield
    finally:
        shop.program = (PROGRAM,)


@contextlib.contextmanager
def written(file: Path, text: str) -> Iterator[None]:
    good = file.read_text()
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(good)


def mounted(script: str, *arguments: str) -> tuple[str, ...]:
    """A wrapper that runs a program after `script` has mounted something over what it sees; nobody else sees it."""
    return (*AS_ROOT, "unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *arguments)


# --- the engine


def test_no_socket(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with exported(shop, DOCKER_HOST=f"unix://{path}"):
        refused(shop, "deploy", code=4, says=("no Docker engine listens", str(path)), hint="is it running?")


def test_a_socket_that_nobody_listens_on(shop: Shop, short_directory: Path) -> None:
    path = short_directory / "docker.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
    with exported(shop, DOCKER_HOST=f"unix://{path}"):
        refused(shop, "deploy", code=4, says=(str(path), "refuses connections"), hint="is it running?")


def test_a_port_that_refuses(shop: Shop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: nobody else can
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with exported(shop, DOCKER_HOST=address):
            refused(shop, "deploy", code=4, says=(address, "refuses connections"), hint="DOCKER_HOST")


def test_a_socket_that_we_may_not_open(shop: Shop, short_directory: Path) -> None:
    path = short_directory / "docker.sock"
    with socket.socket(socket.AF_UNIX) as forbidden, exported(shop, DOCKER_HOST=f"unix://{path}"):
        forbidden.bind(str(path))
        forbidden.listen()
        path.chmod(0)
        with called_by(shop, *UNPRIVILEGED):
            says = ("permission denied", str(path))
            refused(shop, "deploy", code=4, says=says, hint="group docker")


# --- Compose


@pytest.fixture
def no_compose(shop: Shop, tmp_path: Path) -> Iterator[Path]:
    """Neither plugin nor program; answers the one directory on PATH, which is empty."""
    bare = tmp_path / "bin"
    bare.mkdir()
    plugins = [directory for directory in SYSTEM_PLUGINS if Path(directory).is_dir()]
    hidden = mounted(" ; ".join(["true", *(f"mount -t tmpfs tmpfs {directory}" for directory in plugins)]))
    clean = ("env", f"PATH={bare}", f"HOME={tmp_path}", f"DOCKER_CONFIG={tmp_path}/docker")
    with called_by(shop, *hidden, *clean):
        yield bare


def test_no_compose(shop: Shop, no_compose: Path) -> None:
    refused(shop, "deploy", code=4, says=("there is no Docker Compose here",), hint="install Compose 2.20 or newer")


def test_only_compose_v1(shop: Shop, no_compose: Path) -> None:
    old = no_compose / "docker-compose"
    old.write_text("#!/bin/sh\necho 1.29.2\n")
    old.chmod(0o755)
    says = (f"{old} is Compose v1, which rollout cannot use",)
    refused(shop, "deploy", code=4, says=says, hint="install Compose 2.20 or newer")


# --- files that are wrong


def test_not_yaml(shop: Shop) -> None:
    file = shop.directory / "compose.yaml"
    with written(file, "services:\n  web: [\n"):
        refused(shop, "deploy", code=2, says=("yaml: ", "compose.yaml"), hint="check indentation")


def test_an_env_file_that_is_missing(shop: Shop) -> None:
    file = shop.directory / "compose.yaml"
    text = file.read_text().replace(
        "    image: rollout-test/app", "    env_file: ./no.env\n    image: rollout-test/app"
    )
    with written(file, text):
        refused(shop, "deploy", code=2, says=("no.env",), hint="check the path")


def test_an_env_file_on_the_command_line_that_is_missing(shop: Shop) -> None:
    refused(shop, "deploy", "--env-file", "no.env", code=2, says=("no.env",), hint="check the path")


def test_a_compose_file_that_is_missing(shop: Shop) -> None:
    refused(shop, "-f", "no.yaml", "deploy", code=2, says=("no.yaml",), hint="check the path")


def test_a_proxy_service_that_is_not_there(shop: Shop) -> None:
    file = shop.directory / "compose.yaml"
    with written(file, file.read_text().replace("service: edge", "service: egde")):
        says = ("x-rollout.proxy.service: there is no service egde",)
        refused(shop, "deploy", code=2, says=says, hint="did you mean edge?")


def test_no_config_directory(shop: Shop) -> None:
    file = shop.directory / "compose.yaml"
    with written(file, file.read_text().replace("./edge/rollout.d\n", "./edge/rolout.d\n", 1)):
        says = ("x-rollout.proxy.config: there is no directory", "edge/rolout.d")
        refused(shop, "deploy", code=2, says=says, hint="mkdir -p")


# --- the command line


@pytest.mark.parametrize(
    ("argv", "words", "hint"),
    [
        (("deploy", "wbe"), "there is no service 'wbe'", "did you mean web?"),
        (("deploy", "edge"), "service edge has no x-rollout", "add x-rollout"),
        (("rollback", "nope"), "there is no service 'nope'", "known: web"),
        (("rollback", "web", "--to", "99"), "service web has no revision 99", "there are: "),
        (("rollback", "web", "--to", "0"), "--to", "--help"),
        (("deploy", "--wait-lock", "-5s"), "--wait-lock", "--help"),
        (("deploy", "--wait-lock", "1e999"), "--wait-lock", "--help"),
        (("deploy", "--strategy", "canary"), "--strategy", "--help"),
        (("history", "--limit", "0"), "--limit", "--help"),
        (("deploy", "web", "--image", "Shop:1"), "'Shop:1' is not an image", "lower case"),
        (("deploy", "web", "--image", "shop web:1"), "'shop web:1' is not an image", "like "),
        (("deploy", "web", "--image", "shop:a:b"), "'shop:a:b' is not an image", "like "),
        (("deploy", "web", "--image", "shop\n  privileged: true"), "line break", "one line"),
        (("deploy", "web", "--image", "-"), "'-' is not an image", "like "),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_is_asked_for_is_not_there_or_makes_no_sense(
    shop: Shop, argv: tuple[str, ...], words: str, hint: str
) -> None:
    refused(shop, *argv, code=2, says=(words,), hint=hint)


# --- the disk


@pytest.mark.parametrize(
    ("place", "verb", "words"),
    [
        (".rollout", "status", "the state in"),
        (".rollout", "deploy", "the state in"),
        (".rollout/locks/web.lock", "status", "the lock of service web cannot be opened"),
        (".rollout/locks/web.lock", "lock", "the lock of service web cannot be opened"),
        (".rollout/locks/web.lock", "deploy", "the lock of service web cannot be opened"),
        (".rollout/state.db", "status", "state.db"),
    ],
)
def test_state_that_is_another_user_s(shop: Shop, place: str, verb: str, words: str) -> None:
    shop.tag("2")
    path = shop.directory / place
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with called_by(shop, *UNPRIVILEGED):
            done = shop.rollout(verb, code=4)
    finally:
        path.chmod(mode)
        shop.tag("1")
    error = done.err[done.err.index("error: ") :]
    assert words in error
    assert "Permission denied" in error or "unable to open" in error, error
    assert "ROLLOUT_STATE_DIR" in error.partition("hint: ")[2]
    assert "Traceback" not in done.said


@pytest.mark.parametrize("edge", [NGINX, HAPROXY], ids=str)
def test_a_config_directory_that_is_read_only(edge: Edge, short_directory: Path) -> None:
    with running(edge, short_directory, deploy={"replicas": 1}) as shop:
        shop.tag("2")
        config = str(shop.directory / "edge/rollout.d")
        read_only = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift'
        with called_by(shop, *mounted(read_only, config)):
            refused(shop, "deploy", code=4, says=(config, "Read-only file system"), hint="x-rollout.proxy.config")
        shop.tag("1")
        assert shop.answers() == "1"


@pytest.mark.parametrize("edge", [NGINX, HAPROXY], ids=str)
def test_a_config_directory_on_a_full_disk(edge: Edge, short_directory: Path) -> None:
    config = short_directory / "edge/rollout.d"
    with project(edge, short_directory, deploy={"replicas": 1}) as shop, small_disk(config):
        shop.up()
        shop.rollout("deploy")
        shop.tag("2")
        with full(config):
            refused(shop, "deploy", code=4, says=(str(config), "No space left"), hint="make room")
            assert shop.answers() == "1"
        shop.rollout("deploy")
        assert shop.answers() == "2"
        shop.settled(replicas=1)


def test_a_state_directory_on_a_disk_that_is_full_from_the_beginning(shop: Shop, short_directory: Path) -> None:
    state = short_directory / "state"
    with small_disk(short_directory), exported(shop, ROLLOUT_STATE_DIR=str(state)):
        with full(short_directory):
            says = (str(state), "No space left on device")
            refused(shop, "deploy", code=4, says=says, hint="ROLLOUT_STATE_DIR")
        shop.rollout("sync")
        assert (state / "project").read_text() == f"{shop.name}\n"
        assert (state / ".gitignore").read_text() == "*\n", "not the empty file that the full disk left"


def test_a_state_directory_on_a_disk_that_fills_up(short_directory: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path), running(NGINX, short_directory, deploy={"replicas": 1}) as shop:
        shop.env["ROLLOUT_STATE_DIR"] = str(tmp_path / "state")
        shop.rollout("sync")
        shop.tag("2")
        with full(tmp_path):
            refused(shop, "deploy", code=4, says=(str(tmp_path), "full"), hint="ROLLOUT_STATE_DIR")
            assert shop.answers() == "1"
        shop.rollout("deploy")
        assert shop.answers() == "2"
        shop.settled(replicas=1)
