"""The command line without a project: help, options, errors in one voice, the Docker plugin."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest
import yaml

from rollout import cli, errors
from rollout.cli import plugin as docker_plugin
from rollout.cli.failure import tell
from rollout.cli.options import Globals, as_seconds, gathered, global_options
from rollout.cli.program import VERBS, program
from rollout.model import HealthCheck, Hooks, ServiceSettings
from rollout.spec import read_project

HEAVY = {"docker", "jinja2", "requests", "pydantic", "voluptuous", "rich", "yaml", "tenacity", "sqlite3", "urllib3"}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["deploy", "--help"], ["status", "-h"]])
def test_help_loads_nothing_heavy(argv: list[str]) -> None:
    code = f"import sys; from rollout.cli import main; main({argv!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "click" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_global_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"Usage: rollout {verb}" in said
    for option in ("--file", "--project-name", "--env-file", "--profile", "--json", "--quiet", "--no-color"):
        assert option in said


def test_the_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.split("Commands:\n")[1].splitlines() if line[2:3].strip()] == list(VERBS)


def test_without_arguments_the_help_is_shown_and_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == errors.ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["--json", "no-such-verb"]])
def test_output_that_has_no_room_is_no_bug_and_no_traceback(argv: list[str]) -> None:
    program = Path(sys.executable).with_name("rollout")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([program, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode in (errors.ExitCode.UNREACHABLE, errors.ExitCode.USAGE)
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


PROGRAM = str(Path(sys.executable).with_name("rollout"))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help >&-", 0),
        ("--nosuch 2>&-", errors.ExitCode.USAGE),
        ("--json --nosuch >&- 2>&- <&-", errors.ExitCode.USAGE),
        ("init --json <&-", 0),
    ],
)
def test_streams_that_are_closed_from_the_beginning_are_nobody_s_problem(line: str, code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" {line}', PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done


@pytest.mark.parametrize(
    ("argv", "code"), [(["--help"], 0), (["init"], 0), (["--json", "no-such-verb"], 2), ([], 2)], ids=str
)
def test_a_reader_that_has_left_is_no_failure(argv: list[str], code: int, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as left:
        done = subprocess.run([PROGRAM, *argv], cwd=tmp_path, stdout=left, stderr=left, check=False)
    assert done.returncode == code


def test_a_reader_of_completions_that_has_left_is_no_failure(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "_ROLLOUT_COMPLETE": "bash_source"}
    with os.fdopen(writer, "w") as left:
        done = subprocess.run([PROGRAM], env=environment, stdout=left, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_broken_pipe_that_is_not_the_readers_is_a_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy whose engine broke a connection has not deployed: no exit code 0."""

    @click.command()
    def broken() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert cli.run(broken, [], "rollout") == errors.ExitCode.BUG
    assert "BrokenPipeError" in capsys.readouterr().err


def test_what_the_encoding_cannot_say_is_shown_by_its_number(tmp_path: Path) -> None:
    here = tmp_path / "☃"
    here.mkdir()
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([PROGRAM, "init"], cwd=here, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u2603/edge/rollout.d" in done.stdout


def test_ctrl_c_while_it_is_being_loaded_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("rollout", "docker-rollout"):
        program = Path(sys.executable).with_name(name)
        done = subprocess.run([program, "deploy"], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (130, "error: interrupted; nothing was touched\n")


@pytest.mark.parametrize(("argv", "variable"), [(["--no-color"], ""), ([], "1"), ([], "")], ids=str)
def test_wrong_usage_has_colors_only_where_they_are_wanted(argv: list[str], variable: str) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": variable}
    done = subprocess.run([PROGRAM, "deploy", "--nosuch", *argv], stderr=theirs, env=env, check=False)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, "--nosuch" in said) == (2, True)
    assert ("\x1b" in said) == (not argv and not variable)


def test_global_options_count_before_and_after_the_verb() -> None:
    seen = Globals()

    @click.command()
    @global_options
    @click.pass_context
    def probe(ctx: click.Context) -> None:
        assert gathered(ctx) is seen

    group = click.Group("rollout", commands={"probe": probe}, params=list(program.params))
    argv = ["-f", "a.yml", "--profile", "x", "-q", "probe", "-f", "b.yml", "--profile", "y", "-p", "shop", "--no-color"]
    group.main(argv, standalone_mode=False, obj=seen)
    assert (seen.files, seen.profiles, seen.project_name) == (["a.yml", "b.yml"], ["x", "y"], "shop")
    assert (seen.quiet, seen.no_color, seen.verbose, seen.json) == (True, True, False, False)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600.0), ("1m30s", 90.0), ("500ms", 0.5), ("12", 12.0), ("2.5", 2.5), ("0", 0.0)]
)
def test_durations(text: str, seconds: float) -> None:
    context = click.Context(click.Command("x"))
    assert as_seconds(context, click.Option(["--wait"]), text) == pytest.approx(seconds)


# --- errors


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["deploy", "--frob"], "--frob"),
        (["dploy"], "dploy"),
        (["deploy", "--wait-lock", "5x"], "'5x' is not a duration"),
        (["deploy", "--wait-lock", "²"], "'²' is not a duration"),
        (["deploy", "--pull", "maybe"], "maybe"),
        (["deploy", "--image", "shop:2"], "--image needs exactly one SERVICE"),
        (["deploy", "a", "b", "--image", "shop:2"], "--image needs exactly one SERVICE"),
        (["deploy", "a", "--image", "shop:2", "--build"], "exclude each other"),
        (["deploy", "a", "--image", "shop:a:b"], "'shop:a:b' is not an image"),
        (["rollback"], "SERVICE"),
        (["rollback", "web", "--to", "0"], "--to"),
        (["history", "--limit", "-1"], "--limit"),
        (["history", "--limit", "99999999999999999999"], "--limit"),
    ],
)
def test_wrong_usage_is_2_in_one_voice(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == errors.ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    first = said.err.splitlines()[0]
    assert first.startswith("error: ")
    assert words in first
    assert "hint: " in said.err
    assert "Traceback" not in said.err


def test_with_json_an_error_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy", "--frob", "--json"]) == errors.ExitCode.USAGE
    said = capsys.readouterr()
    assert said.err == ""
    told = json.loads(said.out)
    assert told["event"] == "error"
    assert told["error"] == "UsageError"
    assert told["exit_code"] == 2
    assert "--frob" in told["message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.SpecError([errors.Fault("services.web", "wrong", "write it right")]), 2),
        (errors.LockHeld("x"), 3),
        (errors.EngineError("x"), 4),
        (errors.ProxyUnreachable("x"), 4),
        (errors.DeployFailed("x"), 1),
        (errors.NotUndone("x"), 5),
        (errors.Interrupted("x"), 130),
    ],
)
def test_exit_codes(error: errors.RolloutError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(error, Globals(verbose=True)) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_says_what_then_the_details_then_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.Unhealthy("web-3 is not ready", hint="look at its log", details=["health: 503", "log: a\nlog: b"])
    tell(error, Globals())
    assert capsys.readouterr().err.splitlines() == [
        "error: web-3 is not ready", "  health: 503", "  log: a", "  log: b", "hint: look at its log",
    ]  # fmt: skip


def test_an_unexpected_exception_is_one_line_and_70(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(ValueError("odd"), Globals()) == errors.ExitCode.BUG
    said = capsys.readouterr().err
    assert "this is a bug" in said
    assert "ValueError: odd" in said
    assert "Traceback" not in said


def test_ctrl_c_before_anything_began_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(KeyboardInterrupt(), Globals(verbose=True)) == errors.ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted; nothing was touched\n"


def test_verbose_adds_the_traceback_of_an_unexpected_exception(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        tell(error, Globals(verbose=True))
    assert "Traceback" in capsys.readouterr().err


# --- docker rollout


def test_the_handshake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.docker_plugin(["docker-cli-plugin-metadata"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["SchemaVersion"] == "0.1.0"
    assert {"Vendor", "Version", "ShortDescription"} <= told.keys()


@pytest.mark.parametrize("argv", [["rollout", "-v"], ["rollout", "--version"], ["--context", "x", "rollout", "-v"]])
def test_the_plugins_version(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "")
    assert cli.docker_plugin(argv) == 0
    assert capsys.readouterr().out.startswith("rollout ")


def test_the_plugin_has_the_other_verbs_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.docker_plugin(["rollout", "status", "--help"]) == 0
    assert "Usage: docker rollout status" in capsys.readouterr().out
    assert cli.docker_plugin(["rollout", "--help"]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_its_flags_may_come_before_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    """`status` here is the value of an option, not the verb."""
    assert cli.docker_plugin(["rollout", "-p", "status", "-t", "60", "--help"]) == 0
    assert "docker-rollout" in capsys.readouterr().out


def test_a_pre_stop_hook_is_refused_honestly(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.docker_plugin(["rollout", "--pre-stop-hook", "touch /drain", "web"]) == errors.ExitCode.USAGE
    assert "--pre-stop-hook is not supported" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["rollout", "-t", "60"], ["rollout", "web", "api"]])
def test_it_takes_one_service(argv: list[str]) -> None:
    assert cli.docker_plugin(argv) == errors.ExitCode.USAGE


def test_docker_s_own_flags_reach_the_sdk_and_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, "before")  # so that the test leaves them as they were
    taken = docker_plugin._docker_flags_taken(["--context", "far", "-H=tcp://x:1", "--config", "/c", "rollout", "web"])
    assert taken == ["web"]
    assert [os.environ[n] for n in ("DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_CONFIG")] == ["far", "tcp://x:1", "/c"]


def test_docker_rollout_s_times_become_ours() -> None:
    checked = ServiceSettings("web", 8000, health=HealthCheck(path="/healthz"))
    changed = docker_plugin._patience(90.0, 7.0, 5.0)(checked).health
    assert (changed.healthy_deadline, changed.min_healthy_time) == (90.0, 5.0)
    assert docker_plugin._patience(None, 7.0, None)(checked).health.min_healthy_time == 0.0  # it has a check
    bare = ServiceSettings("web", 8000)
    assert docker_plugin._patience(None, 7.0, None)(bare).health.min_healthy_time == 7.0


def test_a_long_timeout_of_docker_rollout_is_not_cut_short_by_our_own_deadline() -> None:
    plain = ServiceSettings("web", 8000, progress_deadline=600.0)
    longer = docker_plugin._patience(1800.0, None, None)(plain)
    assert (longer.health.healthy_deadline, longer.progress_deadline) == (1800.0, 3600.0)
    assert docker_plugin._patience(90.0, None, None)(plain).progress_deadline == 600.0


@pytest.mark.parametrize(
    ("times", "place"),
    [
        ((5.0, None, 5.0), "health.min_healthy_time"),
        ((0.0, None, None), "health.healthy_deadline"),
        ((1.0, None, None), "health.timeout"),
        ((None, None, 60.0), "health.min_healthy_time"),
    ],
)
def test_times_of_docker_rollout_are_refused_where_the_file_s_would_be(
    times: tuple[float | None, float | None, float | None], place: str
) -> None:
    plain = ServiceSettings("web", 8000, health=HealthCheck(path="/healthz", timeout=2.0, healthy_deadline=60.0))
    with pytest.raises(errors.UsageError) as refused:
        docker_plugin._patience(*times)(plain)
    assert f"services.web.x-rollout.{place}: " in "".join(refused.value.details)


@pytest.mark.parametrize("flag", ["-t", "-w", "--wait-after-healthy"])
@pytest.mark.parametrize("value", ["-1", "nan", "1e999", "soon"])
def test_what_is_no_length_of_time_is_refused(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.docker_plugin(["rollout", "web", flag, value]) == errors.ExitCode.USAGE
    assert "Invalid value for" in capsys.readouterr().err


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deplyo"]) == errors.ExitCode.USAGE
    assert "Did you mean 'deploy'?" in capsys.readouterr().err


# --- init


def test_init_creates_the_directory_and_prints_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    assert cli.main(["init", "--type", "haproxy", "--proxy", "front"]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "front/rollout.d").is_dir()
    assert "config: ./front/rollout.d" in said
    assert "./front/rollout.d:/etc/haproxy/rollout.d" in said
    assert (tmp_path / "compose.yaml").read_text() == "services: {}\n"


def test_with_json_init_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["directory"], told["created"]) == (f"{tmp_path}/edge/rollout.d", True)
    assert "config: ./edge/rollout.d" in told["compose"]
    assert "include /etc/nginx/rollout.d/*.conf;" in told["proxy"]
    assert "rollout render" in told["then"]
    assert cli.main(["init", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["created"] is False


def test_a_directory_that_init_cannot_make_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edge").touch()
    assert cli.main(["init"]) == errors.ExitCode.UNREACHABLE
    said = capsys.readouterr().err
    assert f"{tmp_path}/edge/rollout.d cannot be made: Not a directory" in said
    assert "--proxy" in said


def test_with_json_the_health_of_the_sidecar_is_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", "--healthy", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is False
    assert "no sidecar" in told["reason"]


@pytest.mark.parametrize("argv", [["status"], ["-f", "/nowhere/compose.yaml", "deploy"], ["init"]], ids=str)
def test_a_directory_that_was_deleted_under_us_is_wrong_usage(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(argv) == errors.ExitCode.USAGE
    assert "there is no current directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "a b", ""])
def test_init_makes_no_directory_for_what_is_no_service(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert cli.main(["init", "--proxy", name]) == errors.ExitCode.USAGE
    assert "--proxy: " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["project"]


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_what_init_shows_is_what_the_readme_shows(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings of the proxy, word for word; comments and the order aside."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "--type", kind]) == 0
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    chapter = readme.split("## With nginx" if kind == "nginx" else "## With HAProxy")[1].split("\n## ")[0]
    block = re.search(rf"```{kind}\n(.*?)```", chapter, re.DOTALL)
    assert block is not None
    said = {_bare(line) for line in capsys.readouterr().out.splitlines()}
    passing = {"worker_processes 2;", "events {}", "http {", "global", "frontend http"}
    assert {_bare(line) for line in block[1].splitlines()} - passing <= said


def _bare(line: str) -> str:
    return line.partition("#")[0].strip()


def test_what_init_shows_as_optional_is_what_holds_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init"]) == 0
    said = capsys.readouterr().out
    section = said[said.index("    x-rollout:\n      port") : said.index("# in nginx.conf")]
    needed = "\n".join(line for line in section.splitlines() if not line.startswith("      # "))
    shown = section.replace("\n      # ", "\n      ")

    def read(section: str) -> ServiceSettings:
        proxy = {"proxy": {"type": "nginx", "service": "edge", "config": "./edge/rollout.d"}}
        services = {"edge": {}, "web": yaml.safe_load(section)}
        return read_project({"x-rollout": proxy, "services": services}, str(tmp_path), "").services["web"]

    assert read(shown).hooks.pre_deploy is not None
    assert replace(read(shown), hooks=Hooks()) == read(needed)
