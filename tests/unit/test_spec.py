"""From a resolved Compose project to settings: x-rollout, Compose's own words, and the defaults between them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rollout.model import (
    FailureAction,
    HealthCheck,
    Hook,
    Hooks,
    NotifySettings,
    Order,
    PoolOptions,
    Project,
    Promotion,
    ProxySettings,
    ProxyType,
    ServiceSettings,
    Strategy,
    UpdateConfig,
)
from rollout.spec import read_project
from rollout.spec.faults import Refused
from rollout.spec.service import default_deadline
from rollout.spec.values import image, seconds


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    return tmp_path


def project(directory: Path, web: dict[str, Any] | None = None, **proxy: Any) -> Project:
    document = {
        "name": "shop",
        "x-rollout": {"proxy": proxy or {"type": "nginx", "service": "edge", "config": "./conf"}},
        "services": {"edge": {"image": "nginx"}, "web": {"image": "shop/web:1", "networks": {"default": None}}},
        "networks": {"default": {"name": "shop_default"}, "back": None, "far": {"name": "far", "external": True}},
    }
    document["services"]["web"] |= web or {"x-rollout": {"port": 8000}}  # type: ignore[index]
    return read_project(document, str(directory), "the yaml")


def web(directory: Path, **raw: Any) -> ServiceSettings:
    raw.setdefault("x-rollout", {"port": 8000})
    return project(directory, raw).services["web"]


def rolled(directory: Path, /, *, raw: dict[str, Any] | None = None, **section: Any) -> ServiceSettings:
    return web(directory, **(raw or {}), **{"x-rollout": {"port": 8000, **section}})


def test_the_least_that_can_be_said_gets_the_models_own_defaults(directory: Path) -> None:
    assert web(directory) == ServiceSettings(name="web", port=8000, image="shop/web:1", networks=("shop_default",))


def test_everything_that_can_be_said(directory: Path) -> None:
    settings = rolled(
        directory,
        raw={
            "deploy": {
                "replicas": 3,
                "update_config": {
                    "parallelism": 2, "delay": "1s", "order": "stop-first", "failure_action": "pause",
                    "monitor": "1m0s", "max_failure_ratio": 0.25,
                },
                "rollback_config": {"parallelism": 0, "failure_action": "continue"},
            },
            "stop_grace_period": "1m30s",
            "networks": {"default": None, "back": {"aliases": ["b"]}, "far": None},
            "depends_on": {"queue": {"condition": "service_started"}, "db": {"condition": "service_healthy"}},
        },
        strategy="blue-green", promotion="manual",
        health={
            "path": "/up?full=1", "port": 8001, "host": "shop.example:80", "headers": {"X-A": "b", "X-N": 1},
            "expect": ["200-204", 301], "interval": "250ms", "timeout": "1s", "healthy_threshold": 3,
            "start_period": "5s", "min_healthy_time": "2s", "healthy_deadline": "40s",
        },
        hooks={
            "pre_deploy": {"command": ["./manage.py", "migrate"], "timeout": "9m"},
            "post_switch": {"host_command": ["./smoke", "$(id)"], "failure": "continue"},
            "pre_stop": {"command": ["leave"], "failure": "fail"},
        },
        drain_timeout="45s", keep_warm="5m", keep=5, progress_deadline="20m",
        hosts=["shop.example", "*.shop.example"], balance="leastconn", keepalive=0, keepalive_timeout="1.5s",
    )  # fmt: skip
    assert settings == ServiceSettings(
        name="web",
        port=8000,
        image="shop/web:1",
        replicas=3,
        strategy=Strategy.BLUE_GREEN,
        promotion=Promotion.MANUAL,
        health=HealthCheck(
            path="/up?full=1", port=8001, host="shop.example:80", headers=(("X-A", "b"), ("X-N", "1")),
            expect=((200, 204), (301, 301)), interval=0.25, timeout=1.0, healthy_threshold=3, start_period=5.0,
            min_healthy_time=2.0, healthy_deadline=40.0,
        ),
        update=UpdateConfig(2, 1.0, Order.STOP_FIRST, FailureAction.PAUSE, 60.0, 0.25),
        rollback=UpdateConfig(parallelism=0, failure_action=FailureAction.CONTINUE),
        hooks=Hooks(
            pre_deploy=Hook(("./manage.py", "migrate"), timeout=540.0),
            post_switch=Hook(host_command=("./smoke", "$(id)"), timeout=30.0, fails=False),
            pre_stop=Hook(("leave",), timeout=30.0),
        ),
        drain_timeout=45.0,
        keep_warm=300.0,
        keep=5,
        progress_deadline=1200.0,
        stop_grace_period=90.0,
        pool=PoolOptions(0, 1.5, ("shop.example", "*.shop.example"), "leastconn"),
        networks=("shop_default", "shop_back", "far"),
        depends_on=("db", "queue"),
    )  # fmt: skip


def test_the_project_keeps_its_name_directory_and_text(directory: Path) -> None:
    read = project(directory)
    assert (read.name, read.directory, read.config, list(read.services)) == (
        "shop", str(directory), "the yaml", ["web"],
    )  # fmt: skip


def test_keys_without_a_value_are_as_if_they_were_not_there(directory: Path) -> None:
    assert rolled(directory, keep_warm=None, hosts=(), keepalive=None) == web(directory)
    raw = {"x-rollout": None, "expose": ["8000"]}
    assert web(directory, **raw) == web(directory)


def test_values_that_a_variable_brought_in_as_text_are_read_as_what_they_mean(directory: Path) -> None:
    settings = rolled(directory, port="8080", keep="2", health={"tcp": "true", "port": "81"})
    assert (settings.port, settings.keep, settings.health.tcp, settings.health.port) == (8080, 2, True, 81)


@pytest.mark.parametrize(("exposed", "port"), [(["80"], 80), (["80/tcp", "53/udp"], 80), ([80], 80)])
def test_the_only_exposed_port_is_the_port(directory: Path, exposed: list[Any], port: int) -> None:
    assert web(directory, expose=exposed, **{"x-rollout": {}}).port == port


@pytest.mark.parametrize(
    ("raw", "replicas"), [({}, 1), ({"scale": 4}, 4), ({"deploy": {"replicas": 2}}, 2), ({"deploy": {}}, 1)]
)
def test_replicas_are_scale_or_deploy_replicas(directory: Path, raw: dict[str, Any], replicas: int) -> None:
    assert web(directory, **raw).replicas == replicas


@pytest.mark.parametrize(
    ("command", "argv"), [("curl -f x", ("/bin/sh", "-c", "curl -f x")), (["pg_isready"], ("pg_isready",))]
)
def test_a_health_command_is_argv_or_a_line_of_shell(directory: Path, command: Any, argv: tuple[str, ...]) -> None:
    assert rolled(directory, health={"command": command}).health.command == argv


def test_a_service_on_another_services_network_has_no_network(directory: Path) -> None:
    assert web(directory, network_mode="service:edge").networks == ()
    assert web(directory, network_mode="bridge").networks == ("bridge",)


def test_a_fixed_name_means_that_the_old_one_goes_first(directory: Path) -> None:
    settings = web(directory, container_name="web", **{"x-rollout": {"port": 1, "strategy": "recreate"}})
    assert (settings.container_name, settings.remove_first) == ("web", True)


# --- health -------------------------------------------------------------------------------------------------------


def test_composes_healthcheck_is_believed_and_gives_the_deadline(directory: Path) -> None:
    check = {"test": ["CMD", "true"], "interval": "20s", "timeout": "5s", "retries": 4, "start_period": "30s"}
    health = web(directory, healthcheck=check).health
    assert health.docker
    assert not health.implied
    assert health.start_period == 30
    assert health.healthy_deadline == 30 + (4 + 1) * (20 + 5)


@pytest.mark.parametrize("check", [None, {}, {"disable": True}, {"test": ["NONE"]}, {"test": "NONE"}])
def test_a_disabled_healthcheck_is_none(directory: Path, check: Any) -> None:
    health = web(directory, healthcheck=check).health
    assert not health.docker
    assert health.implied


def test_a_healthcheck_without_a_test_may_be_the_images_and_still_gives_the_times(directory: Path) -> None:
    health = web(directory, healthcheck={"interval": "1m0s", "start_period": "10s"}).health
    assert not health.docker, "only the container can tell"
    assert (health.start_period, health.healthy_deadline) == (10, 10 + 4 * 90)


@pytest.mark.parametrize(
    ("check", "deadline"),
    [
        (None, 60),
        ({"interval": 1.0, "timeout": 1.0, "retries": 3}, 60),
        ({}, 240),  # Docker's defaults: (3 + 1) x (30 s + 30 s)
        ({"interval": 60.0, "timeout": 10.0, "retries": 5, "start_period": 3600.0}, 3600 + 6 * 70),
    ],
)
def test_the_default_deadline_lets_docker_itself_decide(check: dict[str, Any] | None, deadline: float) -> None:
    assert default_deadline(check) == deadline


def test_what_was_said_fits_into_the_deadlines_that_were_not(directory: Path) -> None:
    patient = rolled(directory, health={"min_healthy_time": "5m", "start_period": "1h"})
    assert patient.health.healthy_deadline == 3660
    assert patient.progress_deadline == 7320
    assert rolled(directory, health={"min_healthy_time": "10m"}).health.healthy_deadline == 1200


@pytest.mark.parametrize("value", ["", "a b", "Grüße", 5])
def test_what_a_header_can_hold(directory: Path, value: object) -> None:
    assert rolled(directory, health={"path": "/", "headers": {"X-A": value}}).health.headers == (("X-A", str(value)),)


# --- the proxy ----------------------------------------------------------------------------------------------------


def test_paths_of_the_proxy_are_seen_from_the_project_directory(directory: Path) -> None:
    (directory / "tpl").mkdir()
    given: dict[str, Any] = {
        "type": "haproxy", "host": True, "config": "conf", "templates": "./tpl/../tpl", "socket": "run/h.sock",
        "master_socket": "/run/m.sock", "pid_file": "h.pid", "binary": "./bin/haproxy", "main_config": "/etc/h.cfg",
    }  # fmt: skip
    assert project(directory, **given).proxy == ProxySettings(
        type=ProxyType.HAPROXY,
        config=f"{directory}/conf",
        host=True,
        templates=f"{directory}/tpl",
        socket=f"{directory}/run/h.sock",
        master_socket="/run/m.sock",
        pid_file=f"{directory}/h.pid",
        binary=f"{directory}/bin/haproxy",
        main_config="/etc/h.cfg",
    )


def test_a_socket_over_tcp_and_a_program_on_path_are_no_files(directory: Path) -> None:
    over_tcp = project(directory, type="haproxy", container="lb", config="conf", socket="tcp:10.0.0.1:9999").proxy
    assert (over_tcp.socket, over_tcp.container, over_tcp.status_port) == ("tcp:10.0.0.1:9999", "lb", 8099)
    on_path = project(directory, type="nginx", host=True, config="conf", binary="openresty", status_port=81).proxy
    assert (on_path.binary, on_path.status_port) == ("openresty", 81)


# --- durations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1m30s", 90), ("500ms", 0.5), ("1h0m0s", 3600), ("1.5s", 1.5), (".5s", 0.5), ("2h", 7200), ("10us", 1e-5),
        ("10µs", 1e-5), ("0", 0), (0, 0), (0.0, 0), ("0s", 0), (" 3s ", 3),
    ],
)  # fmt: skip
def test_durations_are_composes(text: object, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "s", "1", "1 s", "1d", "1m 30s", "-1s", "1e3s", "٣s", 5, True, None, [], "1s\n1s"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(Refused):
        seconds(text)


# --- cost ---------------------------------------------------------------------------------------------------------


def test_a_thousand_services_are_read_well_within_a_second(directory: Path) -> None:
    section = {"port": 8000, "health": {"path": "/healthz", "interval": "500ms", "headers": {"X-A": "b"}}}
    services = {
        f"web{i}": {
            "image": "shop/web:1", "networks": {"default": None}, "healthcheck": {"test": ["CMD", "true"]},
            "deploy": {"replicas": 2, "update_config": {"parallelism": 1, "monitor": "10s"}}, "x-rollout": section,
        }
        for i in range(1000)
    }  # fmt: skip
    document = {
        "name": "big",
        "x-rollout": {"proxy": {"type": "nginx", "container": "edge", "config": "conf"}},
        "services": services,
    }
    began = time.process_time()
    assert len(read_project(document, str(directory), "").services) == 1000
    assert time.process_time() - began < 0.7


@pytest.mark.parametrize("module", ["rollout.spec", "rollout.compose", "rollout.preflight"])
def test_importing_loads_neither_pydantic_nor_yaml(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'pydantic', 'yaml'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "reference",
    [
        "web", "shop/web", "shop-web:1", "registry.example:5000/shop/web:1.2-rc_3", "localhost/web",
        "127.0.0.1:32768/a/b:1", "[::1]:5000/web", "Registry.Example/web", "a__b/c---d.e",
        "web@sha256:" + "0" * 64, "web:1@sha256:" + "a" * 64,
        "sha256:" + "b" * 64, "rollout-keep/shop/web:r1",
    ],
)  # fmt: skip
def test_every_kind_of_reference_is_an_image(reference: str) -> None:
    assert image(reference) == reference


def test_a_hook_that_says_only_what_to_run_gets_what_fits_its_place(directory: Path) -> None:
    hooks = rolled(
        directory, hooks={name: {"command": ["x"]} for name in ("pre_deploy", "post_switch", "pre_stop")}
    ).hooks
    assert hooks == Hooks(
        Hook(("x",), timeout=300.0), Hook(("x",), timeout=30.0), Hook(("x",), timeout=30.0, fails=False)
    )


def test_a_dollar_that_compose_wrote_twice_is_one(directory: Path) -> None:
    settings = rolled(
        directory,
        health={"command": ["sh", "-c", "test $$(id -u) = 0"]},
        hooks={"pre_stop": {"command": ["sh", "-c", "echo $$HOME $$$$"]}},
    )
    assert settings.health.command == ("sh", "-c", "test $(id -u) = 0")
    assert settings.hooks.pre_stop is not None and settings.hooks.pre_stop.command == ("sh", "-c", "echo $HOME $$")


def test_whom_to_notify(directory: Path) -> None:
    for name in ("hook", "secret"):
        (directory / name).write_text("x")
    document = {
        "name": "shop",
        "x-rollout": {
            "proxy": {"type": "nginx", "service": "edge", "config": "./conf"},
            "notify": [
                {"url": "https://ops.example:8443/hook?a=$$b", "secret_file": "./secret", "on": ["undone", "held"]},
                {"url_file": "hook", "format": "slack", "on": "deployed"},
            ],
        },
        "services": {
            "edge": {"image": "nginx"},
            "web": {"image": "shop/web:1", "networks": {"default": None}, "x-rollout": {"port": 8000}},
        },
        "networks": {"default": {"name": "shop_default"}},
    }
    assert read_project(document, str(directory), "").notify == (
        NotifySettings("https://ops.example:8443/hook?a=$b", secret_file=f"{directory}/secret", on=("undone", "held")),
        NotifySettings(url_file=f"{directory}/hook", format="slack", on=("deployed",)),
    )
    assert project(directory).notify == ()
