"""The real Compose and engine: what `docker compose up` would say of the containers that rollout has created."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rollout.compose import Compose, Options
from rollout.compose.find import find_program
from rollout.errors import BuildFailed, ComposeError, EngineError, ExitCode, ImageNotFound, SpecError, UsageError
from rollout.spec import read_project

pytestmark = pytest.mark.e2e

APP = "rollout-test/app"
SLEEP = 'command: ["sleep", "1000"], init: true'

# One of everything that could make a container's hash depend on how the project was read.
EVERYTHING = f"""
x-rollout: {{ proxy: {{ type: nginx, container: edge, config: ./conf }} }}
services:
  plain: {{ image: "{APP}:1", {SLEEP} }}
  rolls: {{ image: "{APP}:1", {SLEEP}, x-rollout: {{ port: 8000, health: {{ path: /up }} }} }}
  built: {{ build: ., {SLEEP} }}
  env: {{ image: "{APP}:1", env_file: app.env, environment: {{ C: "a$$b", D: "${{TAG:-$$d}}", E: }}, command: [sleep, "$$N"] }}
  many: {{ image: "{APP}:1", {SLEEP}, deploy: {{ replicas: 2, update_config: {{ parallelism: 1, monitor: 10s }} }} }}
  scaled: {{ image: "{APP}:1", {SLEEP}, scale: 2 }}
  checked: {{ image: "{APP}:1", {SLEEP}, healthcheck: {{ test: [CMD, "true"], interval: 90s, retries: 2 }} }}
  files: {{ image: "{APP}:1", {SLEEP}, configs: [c], secrets: [s], volumes: ["data:/d", "./app.env:/e:ro", /anon] }}
  needs: {{ image: "{APP}:1", {SLEEP}, depends_on: {{ plain: {{ condition: service_healthy }} }}, pull_policy: always }}
  nets: {{ image: "{APP}:1", {SLEEP}, networks: {{ default: , back: {{ aliases: [b] }} }}, expose: ["80"], ports: ["80"] }}
  derived: {{ extends: {{ service: plain }}, labels: {{ a: "x$$y", b: 'q"q' }}, stop_grace_period: 90s, cpus: 0.5 }}
  limited: {{ image: "{APP}:1", {SLEEP}, mem_limit: 100m, ulimits: {{ nofile: 1000 }}, tmpfs: [/t], entrypoint: [] }}
configs: {{ c: {{ file: ./app.env }} }}
secrets: {{ s: {{ file: ./app.env }} }}
volumes: {{ data: }}
networks: {{ back: {{ driver_opts: {{ a: b }} }} }}
"""  # noqa: E501


def docker(*arguments: str) -> str:
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class Bench:
    """A Compose project of its own in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.name = f"rollout-compose-{uuid.uuid4().hex[:8]}"
        self.directory = directory
        (directory / "app.env").write_text("A=1\nB=x$$y\n", encoding="utf-8")
        (directory / "Dockerfile").write_text(f"FROM {APP}:1\nLABEL built=yes\n", encoding="utf-8")

    def write(self, text: str, file: str = "compose.yml") -> None:
        named = f"name: {self.name}\n" if file == "compose.yml" else ""
        (self.directory / file).write_text(named + textwrap.dedent(text), encoding="utf-8")

    def compose(self, options: Options | None = None, /, **environment: str) -> Compose:
        return Compose(options or Options(), environment={**os.environ, **environment}, cwd=str(self.directory))

    def plain(self, *arguments: str, **environment: str) -> str:
        """`docker compose …` as a user types it."""
        ran = subprocess.run(
            ["docker", "compose", *arguments], cwd=self.directory, env={**os.environ, **environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def containers(self, service: str = "") -> dict[str, str]:
        """Container id → state, of a service or of the whole project."""
        filters = ["--filter", f"label=com.docker.compose.project={self.name}"]
        if service:
            filters += ["--filter", f"label=com.docker.compose.service={service}"]
        lines = docker("ps", "-a", "--no-trunc", *filters, "--format", "{{.ID}} {{.State}}").splitlines()
        return dict(line.split() for line in lines)

    def labels(self, container: str) -> Mapping[str, str]:
        read: dict[str, str] = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", container))
        return {k.removeprefix("com.docker.compose."): v for k, v in read.items()}

    def hashes(self) -> dict[str, str]:
        """The labels of all containers, by service."""
        seen = [self.labels(container) for container in self.containers()]
        return {labels["service"]: labels["config-hash"] for labels in seen}

    def clean(self) -> None:
        containers = list(self.containers())
        if containers:
            docker("rm", "-fv", *containers)
        for kind in ("network", "volume"):
            left = docker(kind, "ls", "-q", "--filter", f"label=com.docker.compose.project={self.name}").split()
            if left:
                docker(kind, "rm", *left)
        images = docker("image", "ls", "-q", "--filter", f"reference={self.name}-*").split()
        if images:
            docker("image", "rm", "-f", *images)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.clean()


# --- the promise: a later plain `up` finds nothing to do ----------------------------------------------------------


def test_loaded_hashes_are_the_labels_that_plain_up_sets(bench: Bench) -> None:
    bench.write(EVERYTHING)
    bench.plain("build", "built")
    loaded = bench.compose(TAG="t").load()
    bench.plain("up", "--no-start", "--no-deps", "--pull", "never", TAG="t")
    assert bench.hashes() == dict(loaded.hashes)


def test_created_from_the_resolved_project_it_is_what_plain_up_would_create(bench: Bench) -> None:
    bench.write(EVERYTHING)
    compose = bench.compose(TAG="t")
    compose.build("built")
    loaded = compose.load()
    bench.write("services: {}\n")  # the files have changed since
    for service in loaded.hashes:
        compose.create(service, 2 if service in {"many", "scaled"} else 1, loaded.config)
    assert bench.hashes() == dict(loaded.hashes)

    bench.write(EVERYTHING)
    before = bench.containers()
    assert len(before) == len(loaded.hashes) + 2
    bench.plain("up", "--no-start", "--no-deps", "--pull", "never", TAG="t")
    assert bench.containers() == before, "plain `up` recreates, adds and removes nothing"


def test_created_from_the_files_it_is_what_plain_up_would_create(bench: Bench) -> None:
    bench.write(f'services: {{ web: {{ image: "{APP}:1", {SLEEP}, env_file: app.env, deploy: {{ replicas: 2 }} }} }}')
    compose = bench.compose()
    compose.create("web", 2)
    before = bench.containers()
    assert set(before.values()) == {"created"}
    bench.plain("up", "-d")
    assert set(bench.containers()) == set(before)
    assert set(bench.containers().values()) == {"running"}
    (one, _) = before
    labels = bench.labels(one)
    assert labels["config-hash"] == compose.load().hashes["web"]
    assert labels["project.working_dir"] == str(bench.directory)
    assert labels["project.config_files"] == f"{bench.directory}/compose.yml"


def test_dollars_and_quotes_survive_the_way_through_the_resolved_project(bench: Bench) -> None:
    bench.write(EVERYTHING)
    compose = bench.compose(TAG="t$x")
    compose.create("env", 1, compose.load().config)
    (container,) = bench.containers("env")
    config = json.loads(docker("inspect", "-f", "{{json .Config}}", container))
    assert {"B=x$y", "C=a$b", "D=t$x"} <= set(config["Env"])
    assert config["Cmd"] == ["sleep", "$N"]
    assert bench.labels(container)["project.working_dir"] == str(bench.directory)


# --- nothing but the one service is touched -----------------------------------------------------------------------

STACK = f"""
services:
  db: {{ image: "{APP}:1", {SLEEP}, healthcheck: {{ test: [CMD, "false"], interval: 1s }} }}
  web:
    image: "{APP}:${{V:-1}}"
    command: ["sleep", "1000"]
    init: true
    pull_policy: always
    build: .
    depends_on: {{ db: {{ condition: service_healthy }}, absent: {{ condition: service_completed_successfully }} }}
    deploy: {{ replicas: 2 }}
  absent: {{ image: "{APP}:1", command: ["true"] }}
"""


def test_new_containers_come_beside_running_exited_and_created_ones(bench: Bench) -> None:
    bench.write(STACK)
    bench.plain("up", "-d", "--no-deps", "--pull", "never", "--no-build", "db")
    compose = bench.compose()
    compose.create("web", 3)
    running, exited, created = bench.containers("web")
    docker("start", running, exited)
    docker("stop", "-t", "0", exited)
    before = bench.containers()

    bench.compose(V="2").create("web", 5)

    after = bench.containers()
    assert {c: after[c] for c in before} == before
    assert before[created] == "created"
    new = set(after) - set(before)
    assert {after[c] for c in new} == {"created"}
    assert [docker("inspect", "-f", "{{.Config.Image}}", c).strip() for c in new] == [f"{APP}:2"] * 2
    assert not bench.containers("absent")


@pytest.mark.parametrize("environment", [{}, {"COMPOSE_REMOVE_ORPHANS": "1"}])
def test_containers_of_services_that_are_gone_stay(bench: Bench, environment: Mapping[str, str]) -> None:
    bench.write(STACK)
    bench.compose().create("absent", 1)
    bench.write(f'services: {{ web: {{ image: "{APP}:1", {SLEEP} }} }}')
    bench.compose(**environment).create("web", 1)
    assert len(bench.containers("absent")) == 1


def test_as_many_as_there_are_is_nothing_to_do(bench: Bench) -> None:
    bench.write(STACK)
    bench.compose().create("web", 2)
    before = bench.containers()
    bench.compose(V="2").create("web", 2)
    assert bench.containers() == before


# --- flags and variables mean what they mean in Compose -----------------------------------------------------------


def test_flags_and_variables_mean_what_they_mean_in_compose(bench: Bench) -> None:
    (bench.directory / "sub").mkdir()
    bench.write("services: { web: { image: 'a:${VERSION}' } }\n", "sub/one.yml")
    bench.write("services: { web: { environment: { X: '${FROM_FILE}' } } }\n", "sub/two.yml")
    bench.write("FROM_FILE=yes\n", "my.env")
    options = Options(("sub/one.yml", "sub/two.yml"), bench.name, env_files=("my.env",))
    by_flags = bench.compose(options, VERSION="2.0").load()
    by_variables = bench.compose(
        VERSION="2.0", COMPOSE_FILE="sub/one.yml:sub/two.yml", COMPOSE_PROJECT_NAME=bench.name,
        COMPOSE_ENV_FILES="my.env",
    ).load()  # fmt: skip
    assert by_flags == by_variables
    assert by_flags.name == bench.name
    assert by_flags.directory == f"{bench.directory}/sub"
    assert by_flags.document["services"]["web"]["image"] == "a:2.0"
    assert by_flags.document["services"]["web"]["environment"] == {"X": "yes"}


def test_a_project_name_from_the_environment_holds_for_a_resolved_project_too(bench: Bench) -> None:
    bench.write(STACK)
    other = f"{bench.name}x"
    text = bench.compose().load().config
    bench.compose(COMPOSE_PROJECT_NAME=other).create("db", 1, text)
    assert len(bench.containers("db")) == 1, "the text says which project it is"


def test_the_directory_is_the_one_compose_takes(bench: Bench) -> None:
    bench.write("services: { web: { image: a, volumes: ['./x:/x'] } }\n")
    (bench.directory / "deep" / "er").mkdir(parents=True)
    loaded = Compose(environment=os.environ, cwd=f"{bench.directory}/deep/er").load()
    assert loaded.directory == str(bench.directory)
    assert loaded.document["services"]["web"]["volumes"][0]["source"] == f"{loaded.directory}/x"
    (bench.directory / ".env").write_text("COMPOSE_FILE=../other.yml\n", encoding="utf-8")
    bench.write("services: { web: { image: a, volumes: ['./x:/x'] } }\n", "deep/other.yml")
    loaded = Compose(environment=os.environ, cwd=f"{bench.directory}/deep/er").load()
    assert loaded.directory == f"{bench.directory}/deep"
    assert loaded.document["services"]["web"]["volumes"][0]["source"] == f"{loaded.directory}/x"


def test_a_service_of_an_inactive_profile_is_loaded_and_created_when_it_is_named(bench: Bench) -> None:
    bench.write(f"""
        services:
          web: {{ image: "{APP}:1", {SLEEP} }}
          extra: {{ image: "{APP}:1", {SLEEP}, profiles: [extra] }}
          more: {{ image: "{APP}:1", {SLEEP}, profiles: [more] }}
          third: {{ image: "{APP}:1", {SLEEP}, profiles: [third] }}
    """)
    compose = bench.compose(COMPOSE_PROFILES="more")
    assert set(compose.load().hashes) == {"web", "more"}
    loaded = compose.load(["web", "extra"])
    assert set(loaded.hashes) == set(loaded.document["services"]) == {"web", "more", "extra"}
    compose.create("extra", 1)
    compose.create("extra", 2, loaded.config)
    assert bench.hashes() == {"extra": loaded.hashes["extra"]}
    assert set(compose.load(["none"]).hashes) == {"web", "more"}


def test_a_context_is_followed_as_the_docker_cli_does(bench: Bench, tmp_path: Path) -> None:
    bench.write(STACK)
    here = {"DOCKER_CONFIG": str(tmp_path / "docker")}
    for arguments in (("create", "far", "--docker", "host=tcp://127.0.0.1:9"), ("use", "far")):
        subprocess.run(["docker", "context", *arguments], env={**os.environ, **here}, check=True, capture_output=True)
    for environment in (here, {**here, "DOCKER_CONTEXT": "far"}, {"DOCKER_HOST": "tcp://127.0.0.1:9"}):
        with pytest.raises(EngineError, match=r"127\.0\.0\.1:9") as failed:
            bench.compose(**environment).create("db", 1)
        assert failed.value.exit_code is ExitCode.UNREACHABLE
    assert not bench.containers()


def test_the_plugin_itself_is_run_where_there_is_one() -> None:
    assert find_program(os.environ)[-1].endswith("docker-compose")


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("services:\n  web:\n    image: [\n", "compose.yml", "did not find expected node content"),
        ("services: { web: { imagee: a } }\n", "services.web", "imagee"),
        ("services: { web: { image: '${NOPE:?set it}' } }\n", "services.web.image", "NOPE is missing a value: set it"),
        ("services: { web: { image: a, env_file: none.env } }\n", "none.env", "none.env"),
        ("services: { web: { image: a, depends_on: [zz] } }\n", "compose.yml", 'undefined service "zz"'),
        ("services: { web: { image: a, x-rollout: { port: 1, port: 2 } } }\n", "compose.yml", 'key "port" already'),
        ('services: { "we b": { image: a } }\n', "compose.yml", "we b"),
        ("services: { web: { image: a, deploy: { replicas: x } } }\n", "services.web.deploy.replicas", "x"),
    ],
)
def test_a_bad_file_is_a_configuration_fault_in_composes_words(
    bench: Bench, text: str, path: str, message: str
) -> None:
    bench.write(text)
    with pytest.raises(SpecError) as refused:
        bench.compose().load()
    (fault,) = refused.value.faults
    assert path in fault.path
    assert message in fault.message
    assert fault.hint
    assert refused.value.exit_code is ExitCode.USAGE


def test_no_file_at_all_is_a_configuration_fault(bench: Bench) -> None:
    with pytest.raises(SpecError) as refused:
        bench.compose().load()
    assert "no configuration file" in refused.value.faults[0].message
    with pytest.raises(SpecError) as refused:
        bench.compose(Options(files=("none.yml",))).load()
    assert refused.value.faults[0].path == f"{bench.directory}/none.yml"
    bench.write(STACK)
    with pytest.raises(SpecError) as refused:
        bench.compose(Options(env_files=("none.env",))).load()
    assert "none.env" in refused.value.faults[0].message


def test_a_variable_that_is_not_set_is_a_warning(bench: Bench) -> None:
    bench.write("services: { web: { image: 'a:${NOPE}' } }\n")
    assert bench.compose().load().warnings == ('The "NOPE" variable is not set. Defaulting to a blank string.',)


def test_an_image_that_is_not_here_creates_nothing(bench: Bench) -> None:
    bench.write("services: { web: { image: rollout-test/none:1 }, built: { build: . } }\n")
    for service in ("web", "built"):
        with pytest.raises(ImageNotFound, match="No such image"):
            bench.compose().create(service, 1)
    with pytest.raises(UsageError, match="knows no service none"):
        bench.compose().create("none", 1)
    assert not bench.containers()


def test_a_paused_container_is_named_as_what_is_in_the_way(bench: Bench) -> None:
    bench.write(STACK)
    compose = bench.compose()
    compose.create("absent", 1)
    compose.create("db", 1)
    (paused,) = bench.containers("db")
    docker("start", paused)
    docker("pause", paused)
    try:
        with pytest.raises(ComposeError, match="paused") as failed:
            compose.create("db", 2)
        assert "docker unpause" in failed.value.hint
        assert bench.containers()[paused] == "paused"
    finally:
        docker("unpause", paused)


def test_dependencies_keep_their_number_whatever_the_file_says_of_it(bench: Bench) -> None:
    bench.write(f"""
        services:
          db: {{ image: "{APP}:1", {SLEEP}, deploy: {{ replicas: 2 }} }}
          api: {{ image: "{APP}:1", {SLEEP}, depends_on: [db] }}
          web: {{ image: "{APP}:1", {SLEEP}, depends_on: {{ api: {{ condition: service_started }} }} }}
    """)
    compose = bench.compose()
    loaded = compose.load()
    compose.create("db", 3)
    before = bench.containers()
    compose.create("web", 2)
    compose.create("web", 3, loaded.config)
    assert bench.containers("db") == before
    assert not bench.containers("api")
    assert len(bench.containers("web")) == 3
    labels = [bench.labels(container) for container in bench.containers("web")]
    assert {label["config-hash"] for label in labels} == {loaded.hashes["web"]}
    assert {label["depends_on"] for label in labels} == {"api:service_started:false"}


def test_a_registry_that_cannot_be_reached_is_told_in_its_words(bench: Bench) -> None:
    bench.write("services: { web: { image: '127.0.0.1:9/none:1' } }\n")
    lines: list[str] = []
    for config in (None, bench.compose().load().config):
        with pytest.raises(ImageNotFound, match="connection refused") as failed:
            bench.compose().pull("web", config, progress=lines.append)
        assert failed.value.exit_code is ExitCode.FAILED
    assert any("Pulling" in line for line in lines)


def test_a_build_streams_its_lines_and_fails_in_the_builders_words(bench: Bench) -> None:
    bench.write("services: { built: { build: . } }\n")
    lines: list[str] = []
    bench.compose().build("built", progress=lines.append)
    assert any("FROM" in line for line in lines)
    assert not any("\x1b" in line for line in lines)
    (bench.directory / "Dockerfile").write_text(f"FROM {APP}:1\nRUN echo why; exit 3\n", encoding="utf-8")
    with pytest.raises(BuildFailed, match="exit code: 3") as failed:
        bench.compose().build("built")
    assert any("why" in line for line in failed.value.details)


def test_the_whole_way_from_files_to_settings_names_the_line(bench: Bench) -> None:
    bench.write("""
        x-rollout:
          proxy: { type: nginx, service: edge, config: ./conf }
        services:
          edge: { image: nginx }
          web:
            image: shop/web
            x-rollout:
              port: 8000
              strateggy: rolling
    """)
    (bench.directory / "conf").mkdir()
    loaded = bench.compose().load()
    with pytest.raises(SpecError) as refused:
        read_project(loaded.document, loaded.directory, loaded.config, files=loaded.files)
    (fault,) = refused.value.faults
    assert fault.path == "services.web.x-rollout.strateggy"
    assert fault.message == "unknown key strateggy (compose.yml:11)"
    assert fault.hint == "did you mean strategy?"
