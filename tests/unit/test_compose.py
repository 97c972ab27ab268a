"""Compose without Compose: a small script in its place says what it was called with, or fails as Compose does."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.compose import Compose, Options
from rollout.compose.dependencies import counted, counts_hold
from rollout.compose.document import parse
from rollout.compose.find import find_directory, find_files, find_program
from rollout.compose.lossy import lost_lines
from rollout.compose.process import Process
from rollout.compose.words import command_error, config_error, said, warnings
from rollout.errors import (
    BuildFailed,
    ComposeError,
    EngineError,
    ExitCode,
    ImageNotFound,
    Interrupted,
    RolloutError,
    SpecError,
    UsageError,
)

Install = Callable[[str], Mapping[str, str]]


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + textwrap.dedent(script), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Put a script where the Docker CLI keeps the user's plugins; answers the environment in which it is found."""

    def put(script: str) -> Mapping[str, str]:
        program(tmp_path / "docker" / "cli-plugins" / "docker-compose", script)
        return {"DOCKER_CONFIG": str(tmp_path / "docker"), "PATH": os.environ["PATH"], "OUT": str(tmp_path / "out")}

    return put


# --- finding Compose ----------------------------------------------------------------------------------------------

V2 = '[ "$*" = "version --short" ] || [ "$*" = "compose version --short" ] && echo 2.26.1'
V1 = "echo 1.29.2"


def test_the_users_plugin_comes_first_then_extra_directories_then_the_systems(tmp_path: Path) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path / "docker"), "PATH": str(tmp_path / "bin")}
    program(tmp_path / "bin" / "docker-compose", V2)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(f'{{"cliPluginsExtraDirs": ["{tmp_path}/extra"]}}')
    system = program(tmp_path / "system" / "docker-compose", "exit 1")
    extra, user = tmp_path / "extra" / "docker-compose", tmp_path / "docker" / "cli-plugins" / "docker-compose"

    assert find_program(environment, [str(system.parent)]) == (str(system),)
    program(extra, "exit 1")
    assert find_program(environment, [str(system.parent)]) == (str(extra),)
    program(user, "exit 1")
    assert find_program(environment, [str(system.parent)]) == (str(user),)
    user.chmod(stat.S_IRUSR)
    assert find_program(environment, [str(system.parent)]) == (str(extra),), "not executable: not a plugin"


def test_without_docker_config_the_home_directory_is_looked_in(tmp_path: Path) -> None:
    plugin = program(tmp_path / ".docker" / "cli-plugins" / "docker-compose", "exit 1")
    assert find_program({"HOME": str(tmp_path), "PATH": ""}, []) == (str(plugin),)


@pytest.mark.parametrize("config", ["not json", "[]", '{"cliPluginsExtraDirs": 5}', '{"cliPluginsExtraDirs": [5]}'])
def test_an_odd_cli_configuration_is_the_clis_business(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    docker = program(tmp_path / "bin" / "docker", V2)
    environment = {"DOCKER_CONFIG": str(tmp_path), "PATH": str(docker.parent)}
    assert find_program(environment, []) == (str(docker), "compose")


def test_a_stand_alone_v2_is_used_when_docker_has_no_compose(tmp_path: Path) -> None:
    docker = program(tmp_path / "docker", "echo \"docker: 'compose' is not a docker command.\" >&2; exit 1")
    standalone = program(tmp_path / "docker-compose", "echo v5.0.1")
    assert find_program({"HOME": str(tmp_path), "PATH": str(docker.parent)}, []) == (str(standalone),)


def test_a_place_that_cannot_be_looked_at_has_no_plugin(tmp_path: Path) -> None:
    unreachable = f"{tmp_path}/{'a' * 300}"  # as for a directory that may not be searched: the system says more than no
    system = program(tmp_path / "system" / "docker-compose", "exit 1")
    for environment in ({"HOME": unreachable}, {"DOCKER_CONFIG": unreachable}):
        assert find_program(environment, [str(system.parent)]) == (str(system),)


@pytest.mark.parametrize(("script", "message"), [(V1, "is Compose v1"), (None, "there is no Docker Compose here")])
def test_v1_and_none_are_refused_with_what_to_install(tmp_path: Path, script: str | None, message: str) -> None:
    if script:
        program(tmp_path / "docker-compose", script)
    with pytest.raises(ComposeError) as refused:
        find_program({"HOME": str(tmp_path), "PATH": str(tmp_path)}, [])
    assert message in refused.value.message
    assert "docker-compose-plugin" in refused.value.hint
    assert refused.value.exit_code is ExitCode.UNREACHABLE


def test_a_program_that_cannot_run_is_told(install: Install, tmp_path: Path) -> None:
    environment = install("")
    (tmp_path / "docker" / "cli-plugins" / "docker-compose").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(ComposeError, match="cannot be run"):
        Compose(environment=environment, cwd=str(tmp_path)).load()


# --- which files --------------------------------------------------------------------------------------------------


def test_files_are_found_by_composes_rules(tmp_path: Path) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    cwd = str(here)
    assert find_files((), (), {}, cwd) == ()
    (tmp_path / "a" / "compose.yml").touch()
    (tmp_path / "a" / "docker-compose.override.yml").touch()
    main, override = f"{tmp_path}/a/compose.yml", f"{tmp_path}/a/docker-compose.override.yml"
    assert find_files((), (), {}, cwd) == (main, override)
    (tmp_path / "a" / ".env").write_text("#\nexport COMPOSE_FILE='x.yml'\n")
    assert find_files((), (), {}, cwd) == (f"{cwd}/x.yml",)
    (here / "prod.env").write_text("COMPOSE_FILE=y.yml:../z.yml\n")
    assert find_files((), ("prod.env",), {}, cwd) == (f"{cwd}/y.yml", f"{tmp_path}/a/z.yml"), "seen from here"
    assert find_files((), (), {"COMPOSE_ENV_FILES": "none.env,prod.env"}, cwd)[0] == f"{cwd}/y.yml"
    assert find_files((), (), {"COMPOSE_FILE": "p.yml:/q.yml"}, cwd) == (f"{cwd}/p.yml", "/q.yml")
    assert find_files((), (), {"COMPOSE_FILE": "p|q", "COMPOSE_PATH_SEPARATOR": "|"}, cwd) == (f"{cwd}/p", f"{cwd}/q")
    assert find_files(("../f.yml", "-"), (), {"COMPOSE_FILE": "p.yml"}, cwd) == (f"{tmp_path}/a/f.yml", "-")


def test_files_are_looked_for_in_the_project_directory(tmp_path: Path) -> None:
    for name in ("here/compose.yaml", "shop/compose.yaml", "shop/deep/x", "here/y.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    here, shop = f"{tmp_path}/here", f"{tmp_path}/shop"
    assert find_files((), (), {}, here, shop) == (f"{shop}/compose.yaml",)
    assert find_files((), (), {}, here, "../shop") == (f"{shop}/compose.yaml",)
    assert find_files((), (), {}, here, "../shop/deep") == (f"{shop}/compose.yaml",), "a parent's, as Compose does"
    (tmp_path / "shop/.env").write_text("COMPOSE_FILE=x.yaml")
    (tmp_path / "here/.env").write_text("COMPOSE_FILE=z.yaml")
    assert find_files((), (), {}, here, "../shop/deep") == (f"{shop}/compose.yaml",), "its .env is another's"
    (tmp_path / "shop/deep/.env").write_text("COMPOSE_FILE=y.yaml")
    assert find_files((), (), {}, here, "../shop/deep") == (f"{here}/y.yaml",), "the name is seen from here"


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("COMPOSE_FILE=d/a.yaml # the shop's", ["d/a.yaml"]),
        ("COMPOSE_FILE=d/a.yaml# 1", ["d/a.yaml# 1"]),
        ('COMPOSE_FILE="d/a.yaml" # the shop\'s', ["d/a.yaml"]),
        ("COMPOSE_FILE: d/a.yaml", ["d/a.yaml"]),
        ("  export   COMPOSE_FILE = d/a.yaml  \r\n", ["d/a.yaml"]),
        ("\ufeffCOMPOSE_FILE=d/a.yaml", ["d/a.yaml"]),
        ("#COMPOSE_FILE=d/a.yaml", []),
        ("COMPOSE_FILE\n", []),
        ("COMPOSE_FILE=a.yaml\nCOMPOSE_FILE=b.yaml", ["b.yaml"]),
        ('X="\nCOMPOSE_FILE=b.yaml\n"\nCOMPOSE_FILE=a.yaml', ["a.yaml"]),
        ("D=d\nCOMPOSE_FILE=${D}/a.yaml", ["d/a.yaml"]),
        ("D=d\nCOMPOSE_FILE=$D/a.yaml", ["d/a.yaml"]),
        ('D=d\nCOMPOSE_FILE="$D/\\$a.yaml"', ["d/$a.yaml"]),
        ("D=d\nCOMPOSE_FILE='$D/a.yaml'", ["$D/a.yaml"]),
        ("COMPOSE_FILE=d/a$$.yaml", ["d/a$.yaml"]),
        ("COMPOSE_FILE=${SET}/a.yaml\nSET=d", ["from-the-shell/a.yaml"]),
        ("COMPOSE_FILE=${NO:-d}/a.yaml", ["d/a.yaml"]),
        ("COMPOSE_FILE=${NO-d}/a.yaml", ["d/a.yaml"]),
        ("NO=\nCOMPOSE_FILE=${NO:-d}/a.yaml", ["d/a.yaml"]),
        ("NO=\nCOMPOSE_FILE=x${NO-d}/a.yaml", ["x/a.yaml"]),
        ("COMPOSE_FILE=${NO:-${SET:-d}}/${NO:+x}${SET+a}.yaml", ["from-the-shell/a.yaml"]),
        ("COMPOSE_FILE=a.yaml,b.yaml\nCOMPOSE_PATH_SEPARATOR=,", ["a.yaml", "b.yaml"]),
        ("COMPOSE_FILE=${open", []),
    ],
)
def test_an_env_file_is_read_as_compose_reads_it(text: str, files: list[str], tmp_path: Path) -> None:
    """Each was tried with Compose 2.26.1."""
    (tmp_path / ".env").write_bytes(text.encode())
    cwd = str(tmp_path)
    assert find_files((), (), {"SET": "from-the-shell"}, cwd) == tuple(f"{cwd}/{file}" for file in files)


def test_the_later_env_file_knows_the_variables_of_the_former(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("D=d\nCOMPOSE_PATH_SEPARATOR=,\nCOMPOSE_FILE=x")
    (tmp_path / "2.env").write_text("COMPOSE_FILE=$D/a,b")
    assert find_files((), ("1.env", "2.env"), {}, str(tmp_path)) == (f"{tmp_path}/d/a", f"{tmp_path}/b")


def test_the_project_directory_is_the_first_files() -> None:
    assert find_directory("", ("/p/compose.yml", "/q/o.yml"), "/c") == "/p"
    assert find_directory("../x", ("/p/compose.yml",), "/c/d") == "/c/x"
    assert find_directory("", ("-",), "/c") == "/c"
    assert find_directory("", (), "/c/d/..") == "/c"


# --- calling it ---------------------------------------------------------------------------------------------------

PROJECT = "name: then\nservices:\n  web: {image: 'a$$b'}\n"
TELL = """
    printf '%s\\n' "$@" > "$OUT"; env > "$OUT.env"; cat > "$OUT.stdin"; echo " Container x-1  Created" >&2
"""
FLAGS = Options(("a.yml", "b.yml"), "shop", "/p", ("prod.env",), ("x", "y"))


def told(environment: Mapping[str, str], suffix: str = "") -> list[str]:
    return Path(environment["OUT"] + suffix).read_text(encoding="utf-8").splitlines()


def test_create_names_the_one_service_and_forbids_everything_else(install: Install, tmp_path: Path) -> None:
    environment = install(TELL)
    Compose(FLAGS, environment=environment, cwd=str(tmp_path)).create("web", 5, PROJECT)
    called = " ".join(told(environment))
    assert called.startswith("-f - -p then --project-directory /p --env-file prod.env --profile x --profile y")
    assert called.endswith(
        "up --no-start --no-recreate --no-build --pull never --remove-orphans=false --no-deps --scale web=5 web"
    )
    assert Path(environment["OUT"] + ".stdin").read_text() == PROJECT


def test_a_resolved_project_is_created_in_the_directory_it_came_from(install: Install, tmp_path: Path) -> None:
    environment = install(TELL)
    compose = Compose(Options(files=("c/compose.yml",)), environment=environment, cwd=str(tmp_path))
    compose.create("web", 2, PROJECT)
    assert told(environment)[:6] == ["-f", "-", "-p", "then", "--project-directory", f"{tmp_path}/c"]


def test_flags_come_in_the_order_given_and_stdin_is_closed(install: Install, tmp_path: Path) -> None:
    environment = install(TELL)
    Compose(FLAGS, environment=environment, cwd=str(tmp_path)).pull("web")
    assert " ".join(told(environment)) == (
        "-f a.yml -f b.yml -p shop --project-directory /p --env-file prod.env --profile x --profile y"
        " --ansi never --progress plain pull web"
    )
    assert told(environment, ".stdin") == []


CHAIN = """\
name: shop
services:
  web: {depends_on: {api: {condition: service_started}, absent: {required: false}}}
  api: {depends_on: {db: {condition: service_healthy}, web: {}}}
  db: {image: d}
  other: {image: o}
"""


def test_dependencies_stay_in_pinned_to_the_containers_they_have(install: Install, tmp_path: Path) -> None:
    environment = install(TELL)
    compose = Compose(environment=environment, cwd=str(tmp_path))
    compose.create("web", 3, CHAIN, others={"db": 2, "other": 7})
    called = " ".join(told(environment))
    assert called.endswith("--remove-orphans=false --scale api=0 --scale db=2 --scale web=3 web")


PS = """
    case "$*" in
        *" ps -a "*) cat > /dev/null; cat <<'END'
{"Service":"db","Labels":"a=b,com.docker.compose.oneoff=False"}
{"Service":"db","Labels":"com.docker.compose.oneoff=False"}
{"Service":"db","Labels":"com.docker.compose.oneoff=True,x=y"}
END
        ;;
        *) printf '%s\\n' "$@" > "$OUT"; cat > /dev/null ;;
    esac
"""


def test_without_counts_compose_is_asked_and_one_off_containers_are_left_out(install: Install, tmp_path: Path) -> None:
    environment = install(PS)
    Compose(environment=environment, cwd=str(tmp_path)).create("api", 1, CHAIN)
    assert " ".join(told(environment)).endswith("--scale db=2 --scale web=0 --scale api=1 api")


def test_counts_are_read_from_old_and_new_listings() -> None:
    assert counted('{"Service":"a","Labels":""}\n\n{"Service":"a"}\n') == {"a": 2}
    assert counted('[{"Service":"a","Labels":""},{"Service":"b"}]') == {"a": 1, "b": 1}
    assert counted("") == {}


def test_containers_of_a_project_are_created_by_one_rollout_at_a_time(tmp_path: Path) -> None:
    with counts_hold(str(tmp_path)):
        other = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    with counts_hold(str(tmp_path / "none")) as held:
        assert held == (), "a directory that is not there is not locked"


def test_the_environment_reaches_compose_untouched_but_for_what_docker_told_its_plugin(
    install: Install, tmp_path: Path
) -> None:
    users = {"VERSION": "2.0", "SERVICE": "a b", "COMPOSE_PROJECT_NAME": "p", "DOCKER_HOST": "unix:///x", "EMPTY": ""}
    plugins = {"DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND": "docker", "DOCKER_CLI_PLUGIN_SOCKET": "@x"}
    environment = {**install(TELL), **users}
    Compose(environment={**environment, **plugins}, cwd=str(tmp_path)).pull("web")
    shells_own = {"PWD", "OLDPWD", "SHLVL", "_"}

    def seen() -> dict[str, str]:
        told_now = dict(line.split("=", 1) for line in told(environment, ".env"))
        return {k: v for k, v in told_now.items() if k not in shells_own}

    assert seen() == environment | {"GOGC": "800"}, "what is added is for the Go program alone"
    Compose(environment={**environment, "GOGC": "50"}, cwd=str(tmp_path)).pull("web")
    assert seen() == environment | {"GOGC": "50"}, "and the user's own wins"


def test_progress_comes_line_by_line(install: Install, tmp_path: Path) -> None:
    environment = install('echo "#1 one"; echo; echo "#2 two" >&2')
    lines: list[str] = []
    Compose(environment=environment, cwd=str(tmp_path)).build("web", progress=lines.append)
    assert lines == ["#1 one", "#2 two"]


RESOLVED = """\
services:
  web:
    command:
      - sh
      - |2
        set -e
        echo $$HOME
    environment:
      INDENTED: |2-
          first
        second
      PLAIN: |
        first
        |2
    labels:
      say: "|2\\n"
"""


def test_texts_that_compose_writes_without_their_empty_first_line_are_found() -> None:
    """As 2.26 writes `"\\nset -e\\n…"`; what begins with spaces needs its indentation told as well, and is whole."""
    assert lost_lines(RESOLVED) == (("services", "web", "command", 1),)
    assert lost_lines("services: {}\n") == ()


LOAD = """
    case "$*" in
        *"--hash"*) cat > "$OUT.stdin"; echo "web 123abc" ;;
        *) echo 'time="2026-01-01T00:00:00Z" level=warning msg="The \\"TAG\\" variable is not set."' >&2
           printf 'name: shop\\nservices:\\n  web:\\n    image: a\\nx-rollout: null\\n' ;;
    esac
"""


def test_loading_gives_the_project_its_hashes_and_composes_warnings(install: Install, tmp_path: Path) -> None:
    environment = install(LOAD)
    (tmp_path / "compose.yml").touch()
    called: list[str] = []
    loaded = Compose(environment=environment, cwd=str(tmp_path)).load(meanwhile=lambda: called.append("meanwhile"))
    assert (loaded.name, loaded.directory, loaded.files) == ("shop", str(tmp_path), (f"{tmp_path}/compose.yml",))
    assert loaded.hashes == {"web": "123abc"}
    assert loaded.document["services"] == {"web": {"image": "a"}}
    assert loaded.warnings == ('The "TAG" variable is not set.',)
    assert Path(environment["OUT"] + ".stdin").read_text() == loaded.config, "hashed as resolved, not as written"
    assert called == ["meanwhile"]


def test_a_name_that_exists_nowhere_is_left_to_the_caller(install: Install, tmp_path: Path) -> None:
    loaded = Compose(environment=install(LOAD), cwd=str(tmp_path)).load(["web", "none"])
    assert list(loaded.document["services"]) == ["web"]


def test_output_that_is_no_project_is_composes_fault(install: Install, tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="cannot be read"):
        Compose(environment=install("echo '['"), cwd=str(tmp_path)).load()


# --- ending it ----------------------------------------------------------------------------------------------------

HANGS = """
    sleep 1000 & echo $! > "$OUT.child"; echo $$ > "$OUT"; echo started; wait
"""


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def assert_nothing_is_left(environment: Mapping[str, str]) -> None:
    pids = [int(told(environment)[0]), int(told(environment, ".child")[0])]
    deadline = time.monotonic() + 5
    while not all(map(gone, pids)):
        assert time.monotonic() < deadline, f"still running: {pids}"
        time.sleep(0.01)


@pytest.fixture
def hangs_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The time limit of what HANGS begins when all of it is there, however long that takes on a busy machine."""
    start = Process.__init__

    def started(process: Process, *args: Any, **options: Any) -> None:
        start(process, *args, **options)
        deadline = time.monotonic() + 60
        while not ((tmp_path / "out").exists() and (tmp_path / "out").read_text().endswith("\n")):
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.005)

    monkeypatch.setattr(Process, "__init__", started)


@pytest.mark.usefixtures("hangs_first")
def test_a_call_that_takes_too_long_is_ended_with_its_children(install: Install, tmp_path: Path) -> None:
    environment = install(HANGS)
    with pytest.raises(ComposeError, match=r"`docker compose up` took longer than 0.5 s and was stopped"):
        Compose(environment=environment, cwd=str(tmp_path)).create("web", 1, PROJECT, timeout=0.5)
    assert_nothing_is_left(environment)


@pytest.mark.usefixtures("hangs_first")
def test_one_that_ignores_sigterm_is_killed(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.compose.process.GRACE", 0.2)
    environment = install("trap '' TERM\n" + textwrap.dedent(HANGS) + "while :; do sleep 1; done\n")
    with pytest.raises(ComposeError, match="took longer"):
        Compose(environment=environment, cwd=str(tmp_path)).pull("web", timeout=0.5)
    assert_nothing_is_left(environment)


@pytest.mark.parametrize("script", ["exec yes", "trap '' TERM; yes"], ids=["ends", "is killed"])
def test_the_time_limit_while_lines_come(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr("rollout.compose.process.GRACE", 0.2)
    with pytest.raises(ComposeError, match="took longer"):
        Compose(environment=install(script), cwd=str(tmp_path)).pull("web", timeout=0.5)


def test_an_interruption_while_it_streams_leaves_nothing_behind(install: Install, tmp_path: Path) -> None:
    environment = install(HANGS)

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Compose(environment=environment, cwd=str(tmp_path)).pull("web", progress=interrupt)
    assert_nothing_is_left(environment)


@pytest.mark.parametrize("trap", ["", "trap '' TERM\n"], ids=["ends", "is killed"])
def test_a_fetch_that_is_abandoned_ends_at_once_and_no_other_begins(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    monkeypatch.setattr("rollout.compose.process.GRACE", 0.2)
    environment = install(trap + textwrap.dedent(HANGS) + ("while :; do sleep 1; done\n" if trap else ""))
    compose = Compose(environment=environment, cwd=str(tmp_path))

    def abandon(line: str) -> None:
        compose.abandon()

    with pytest.raises(Interrupted, match="service web: interrupted while its image was fetched"):
        compose.pull("web", progress=abandon)
    assert_nothing_is_left(environment)
    with pytest.raises(Interrupted):
        compose.build("web")
    assert_nothing_is_left(environment)


def test_what_fetches_nothing_is_not_abandoned(install: Install, tmp_path: Path) -> None:
    environment = install(TELL)
    compose = Compose(environment=environment, cwd=str(tmp_path))
    compose.abandon()
    compose.create("web", 1, PROJECT)
    assert told(environment)


def test_an_interruption_while_it_loads_leaves_nothing_behind(install: Install, tmp_path: Path) -> None:
    environment = install('case "$*" in *--hash*) cat >/dev/null;; *)' + textwrap.dedent(HANGS) + ";; esac")

    def interrupt() -> None:
        while not (Path(environment["OUT"]).exists() and told(environment)):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Compose(environment=environment, cwd=str(tmp_path)).load(meanwhile=interrupt)
    assert_nothing_is_left(environment)


# --- what it says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stderr", "path", "hint"),
    [
        ("no configuration file provided: not found", "compose", "name the file with -f"),
        ("yaml: line 4: did not find expected node content", "compose", "indentation"),
        ("failed to parse /srv/shop/y.yaml: yaml: line 4: no", "/srv/shop/y.yaml", "indentation"),
        ("open /srv/shop/compose.yaml: permission denied", "/srv/shop/compose.yaml", "who may read that file"),
        ("validating /srv/shop/y.yaml: name is no name", "/srv/shop/y.yaml", "shows the same error"),
        (
            "validating /srv/shop/unk.yml: services.web Additional property imagee is not allowed",
            "services.web", "does not know imagee",
        ),
        (
            "error while interpolating services.web.image: required variable TAG is missing a value: must be set",
            "services.web.image", "export TAG",
        ),
        ("env file /srv/none.env not found: stat /srv/none.env: no such file or directory", "/srv/none.env", "path"),
        ("open /srv/nofile.yml: no such file or directory", "/srv/nofile.yml", "check the path"),
        ("Couldn't find env file: /srv/nofile", "/srv/nofile", "check the path"),
        ('yaml: unmarshal errors:\n  line 4: mapping key "image" already defined at line 3', "compose", "remove one"),
        ('service "web" depends on undefined service "zz": invalid compose project', "compose", "define that service"),
        ('service "web" refers to undefined volume v: invalid compose project', "compose", "declare it at the top"),
        (
            "error while interpolating services.web.deploy.replicas: failed to cast to expected type: x",
            "services.web.deploy.replicas", "check the value's type",
        ),
        ("something new", "compose", "`docker compose config` shows"),
        ("", "compose", "`docker compose config` shows"),
    ],
)  # fmt: skip
def test_a_fault_of_the_file_keeps_composes_words_and_says_where(stderr: str, path: str, hint: str) -> None:
    error = config_error('time="t" level=warning msg="x is not set"\n' + stderr)
    assert isinstance(error, SpecError)
    (fault,) = error.faults
    assert fault.path == path
    assert " ".join(stderr.split()) in fault.message
    assert "is not set" not in fault.message
    assert hint in fault.hint


NO_ENGINE = "Cannot connect to the Docker daemon at unix:///nope.sock. Is the docker daemon running?"
NOT_ALLOWED = 'permission denied while trying to connect to the Docker daemon socket at unix:///s: Get "http://x"'


@pytest.mark.parametrize(
    ("what", "output", "kind", "message", "hint"),
    [
        ("up", NO_ENGINE, EngineError, "does not answer", "DOCKER_HOST"),
        ("pull", NOT_ALLOWED, EngineError, "refuses us", "group docker"),
        ("up", "unknown flag: --pull", ComposeError, "too old", "2.20"),
        ("up", "no such service: web", UsageError, "knows no service web", "config --services"),
        ("up", "no such service: web: disabled", UsageError, "knows no service web", "config --services"),
        (
            "up", " Container a-1  Creating\nError response from daemon: no such image: a:1: No such image: a:1",
            ImageNotFound, "No such image: a:1", "--build",
        ),
        (
            "pull", " web Pulling \n web Error x\nError response from daemon: manifest for a:9 not found",
            ImageNotFound, "manifest for a:9 not found", "docker login",
        ),
        ("build", "#5 RUN exit 3\nfailed to solve: exit code: 3", BuildFailed, "web could not be built: failed to", ""),
        ("up", "Error response from daemon: network x not found", ComposeError, "create a container of web", ""),
        ("up", "", ComposeError, "without a word", ""),
    ],
)  # fmt: skip
def test_a_failed_command_keeps_composes_words(
    what: str, output: str, kind: type[RolloutError], message: str, hint: str
) -> None:
    error = command_error(what, "web", output)
    assert type(error) is kind
    assert message in error.message
    assert hint in error.hint


def test_a_failed_build_shows_its_last_lines() -> None:
    error = command_error("build", "web", "\n".join(f"#1 line {i}" for i in range(50)))
    assert error.details == tuple(f"#1 line {i}" for i in range(30, 50))


def test_failure_is_raised_with_the_exit_code_of_its_kind(install: Install, tmp_path: Path) -> None:
    compose = Compose(environment=install(f"echo '{NO_ENGINE}' >&2; exit 1"), cwd=str(tmp_path))
    calls: list[Callable[[], object]] = [
        compose.load,
        lambda: compose.create("web", 1, PROJECT),
        lambda: compose.pull("web"),
        lambda: compose.build("web"),
    ]
    for call in calls:
        with pytest.raises(EngineError) as failed:
            call()
        assert failed.value.exit_code is ExitCode.UNREACHABLE


def test_log_and_progress_lines_are_not_what_it_said() -> None:
    output = 'time="t" level=warning msg="a \\"b\\""\n Container x-1  Creating\n Network n  Created\nthe reason\n'
    assert said(output) == ["the reason"]
    assert warnings(output + output) == ('a "b"',)


# --- its YAML -----------------------------------------------------------------------------------------------------


def test_documents_are_read_as_compose_writes_them() -> None:
    text = textwrap.dedent("""\
        name: shop
        services:
          web:
            command: ["a", "on", "010", =, "=", 12:30, 2024-01-01, <<, |]
            cpus: 0.5
            ports: []
            networks: {default: null, other: ~, empty: }
            privileged: true
            scale: 2
            environment:
              A: "1"
              B: a$$b
              C: ""
              D: 'x"y'
              E: 1e3
              F: "true"
              G: -7
              H: +.5
              I: 1.2.3
              J: 0x1f
            labels:
              multi: |-
                one
                two
        """).replace(", |]", ', "|"]')
    web = parse(text)["services"]["web"]
    assert web["command"] == ["a", "on", "010", "=", "=", "12:30", "2024-01-01", "<<", "|"]
    assert web["environment"] == {
        "A": "1", "B": "a$$b", "C": "", "D": 'x"y', "E": 1000.0, "F": "true", "G": -7, "H": 0.5, "I": "1.2.3",
        "J": "0x1f",
    }  # fmt: skip
    assert web["networks"] == {"default": None, "other": None, "empty": None}
    assert (web["cpus"], web["ports"], web["privileged"], web["scale"]) == (0.5, [], True, 2)
    assert web["labels"] == {"multi": "one\ntwo"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "key 'a' is given twice"),
        ("a: {b: 1, b: 1}", "key 'b' is given twice"),
        ("- a", "not a mapping"),
        ("", "not a mapping"),
        ("a: [", "cannot be read"),
        ("a: &x {}\nb: *x", "AliasEvent"),
        ("? [a]\n: b", "a key must be a plain word"),
    ],
)
def test_what_compose_would_not_write_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ComposeError, match=reason):
        parse(text)


def test_a_thousand_services_are_parsed_well_within_a_second() -> None:
    service = {
        "image": "shop/web:1", "environment": {"A": "1", "B": "two"}, "networks": {"default": None},
        "deploy": {"replicas": 2, "update_config": {"parallelism": 1, "monitor": "10s"}},
        "healthcheck": {"test": ["CMD", "true"], "interval": "5s"},
        "x-rollout": {"port": 8000, "health": {"path": "/healthz", "interval": "500ms", "host": "shop.example"}},
    }  # fmt: skip
    document = {"name": "big", "services": {f"web{i}": service for i in range(1000)}}

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    text = yaml.dump(document, Dumper=Plain)
    began = time.process_time()
    assert parse(text) == document
    assert time.process_time() - began < 0.6


def test_a_value_that_compose_repeats_is_not_told() -> None:
    """It may be a password: `docker compose config` ends with the whole of it."""
    stderr = (
        "invalid interpolation format for services.web.environment.DB_PASSWORD.\n"
        "You may need to escape any $ with another $.\nPl4nted${ecret\nin two lines"
    )
    error = config_error(stderr)
    assert isinstance(error, SpecError)
    (fault,) = error.faults
    assert fault.path == "services.web.environment.DB_PASSWORD"
    assert fault.message == "invalid interpolation format for services.web.environment.DB_PASSWORD."
    assert "$$" in fault.hint


def test_a_context_that_does_not_exist_is_no_fault_of_the_file() -> None:
    error = config_error(
        'Failed to initialize: unable to resolve docker endpoint: context "other": context not found: open '
        "/root/.docker/contexts/meta/80/meta.json: no such file or directory"
    )
    assert isinstance(error, EngineError) and error.exit_code == 4
    assert "docker context ls" in error.hint
