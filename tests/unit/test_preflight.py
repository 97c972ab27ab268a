"""What cannot be rolled: each finding with its place, severity and way out."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.engines.docker.surroundings import own_container, seen_from_host
from rollout.errors import SpecError, StateError
from rollout.model import (
    Finding,
    HealthCheck,
    Order,
    Project,
    ProxySettings,
    ProxyType,
    ServiceSettings,
    Severity,
    Strategy,
    UpdateConfig,
)
from rollout.paths import unwritable
from rollout.preflight import (
    blockers,
    compose_version,
    findings,
    inspect,
    placement,
    proxy_directory,
    refuse,
    state_directory,
)
from rollout.state import StateDirectory

WEB = ServiceSettings(
    name="web", port=8000, image="shop/web:1", replicas=2, health=HealthCheck(path="/up"), networks=("shop_default",)
)
RECREATE = replace(WEB, strategy=Strategy.RECREATE)
BLUE_GREEN = replace(WEB, strategy=Strategy.BLUE_GREEN)


def stop_first(parallelism: int, replicas: int = 2) -> ServiceSettings:
    return replace(WEB, replicas=replicas, update=UpdateConfig(parallelism=parallelism, order=Order.STOP_FIRST))


def only(settings: ServiceSettings, raw: dict[str, Any], proxy_service: str = "edge") -> Finding:
    (found,) = inspect(settings, raw, proxy_service)
    return found


def published(port: str) -> dict[str, Any]:
    return {"ports": [{"target": 80, "published": port, "protocol": "tcp"}]}


def test_a_plain_service_has_no_findings() -> None:
    raw = {
        "image": "shop/web:1",
        "ports": [{"target": 80, "protocol": "tcp"}, {"target": 81, "published": "0"}],
        "volumes": [
            {"type": "volume", "source": "data", "target": "/d", "read_only": True},
            {"type": "volume", "target": "/anonymous"},
            {"type": "tmpfs", "target": "/tmp"},
            {"type": "bind", "source": "/var/run/docker.sock", "target": "/var/run/docker.sock"},
        ],
        "networks": {"default": None},
        "deploy": {"mode": "replicated"},
    }
    for settings in (WEB, RECREATE, BLUE_GREEN, stop_first(1)):
        assert inspect(settings, raw, "edge") == []


@pytest.mark.parametrize(
    ("settings", "raw", "code", "where", "message", "fix"),
    [
        (
            replace(WEB, container_name="web"), {},
            "container-name", "services.web.container_name", "only one container", "strategy: recreate",
        ),
        (
            replace(BLUE_GREEN, container_name="web"), {},
            "container-name", "services.web.container_name", "only one container", "strategy: recreate",
        ),
        (
            replace(RECREATE, container_name="web"), {},
            "container-name", "services.web.container_name", "not 2 replicas", "replicas: 1",
        ),
        (WEB, published("8080"), "published-port", "services.web.ports[0]", "host port 8080", "the proxy reaches"),
        (WEB, published("8080-8082"), "published-port", "services.web.ports[0]", "8080-8082", "the proxy reaches"),
        (RECREATE, published("8080"), "published-port", "services.web.ports[0]", "not 2 replicas", "no host port"),
        (
            WEB, {"networks": {"back": {"ipv4_address": "10.1.2.3"}}},
            "fixed-address", "services.web.networks.back.ipv4_address", "10.1.2.3", "strategy: recreate",
        ),
        (
            WEB, {"networks": {"back": {"ipv6_address": "fd00::1"}}},
            "fixed-address", "services.web.networks.back.ipv6_address", "fd00::1", "strategy: recreate",
        ),
        (
            WEB, {"mac_address": "02:42:ac:11:65:43"},
            "fixed-address", "services.web.mac_address", "02:42", "strategy: recreate",
        ),
        (WEB, {"network_mode": "host"}, "network-mode", "services.web.network_mode", "host:", "remove network_mode"),
        (RECREATE, {"network_mode": "none"}, "network-mode", "services.web.network_mode", "none:", "remove"),
        (WEB, {"network_mode": "service:db"}, "network-mode", "services.web.network_mode", "service:db", "remove"),
        (WEB, {"network_mode": "container:c"}, "network-mode", "services.web.network_mode", "container:c", "remove"),
        (replace(WEB, networks=()), {}, "no-network", "services.web.networks", "no network", "proxy's"),
        (WEB, {"deploy": {"mode": "global"}}, "deploy-mode", "services.web.deploy.mode", "global is Swarm's", "remove"),
        (replace(WEB, replicas=0), {}, "no-replicas", "services.web.deploy.replicas", "nothing would serve", "1 or"),
        (replace(WEB, replicas=-2), {}, "no-replicas", "services.web.deploy.replicas", "-2 replicas", "1 or more"),
        (
            replace(RECREATE, replicas=-1), {"scale": -1, "deploy": {"replicas": 2}},
            "no-replicas", "services.web.scale", "-1 replicas: nothing would serve", "1 or more",
        ),
        (
            replace(stop_first(2), replicas=-1), {},
            "no-replicas", "services.web.deploy.replicas", "-1 replicas", "1 or more",
        ),
        (
            stop_first(2), {},
            "stop-first-empties", "services.web.deploy.update_config.order", "all 2 replicas", "order: start-first",
        ),
        (
            stop_first(0), {},
            "stop-first-empties", "services.web.deploy.update_config.order", "parallelism 0", "order: start-first",
        ),
        (
            replace(RECREATE, keep_warm=5.0), {},
            "keep-warm-recreate", "services.web.x-rollout.keep_warm", "nothing to keep warm", "remove keep_warm",
        ),
    ],
)  # fmt: skip
def test_what_stops_a_deploy(
    settings: ServiceSettings, raw: dict[str, Any], code: str, where: str, message: str, fix: str
) -> None:
    found = only(settings, raw)
    assert (found.severity, found.code, found.where) == (Severity.ERROR, code, where)
    assert message in found.message
    assert fix in found.fix
    assert blockers(settings, raw, "edge") == [found]


def test_the_proxy_cannot_roll_behind_itself() -> None:
    found = only(replace(WEB, name="edge"), {})
    assert (found.code, found.where) == ("proxy-rolls", "services.edge.x-rollout")
    assert inspect(replace(WEB, name="edge"), {}, "") == []


@pytest.mark.parametrize(
    "settings",
    [
        replace(RECREATE, container_name="web", replicas=1),
        stop_first(1, replicas=2),
        replace(stop_first(3), strategy=Strategy.BLUE_GREEN),
    ],
)
def test_what_is_slow_but_works_is_let_through(settings: ServiceSettings) -> None:
    assert blockers(settings, {}, "edge") == []


@pytest.mark.parametrize(
    ("settings", "port"), [(WEB, "8080-8083"), (replace(RECREATE, replicas=1), "80"), (RECREATE, "80-81")]
)
def test_enough_host_ports_for_all_are_fine(settings: ServiceSettings, port: str) -> None:
    assert inspect(settings, published(port), "edge") == []


DATA = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}


@pytest.mark.parametrize(
    ("settings", "raw", "code", "message"),
    [
        (replace(WEB, health=HealthCheck()), {}, "no-health-check", "port 8000 accepts a TCP connection"),
        (replace(RECREATE, health=HealthCheck()), {}, "no-health-check", "port 8000 accepts a TCP connection"),
        (replace(WEB, image="docker.example:5000/library/postgres:16"), DATA, "single-writer", "postgres looks like"),
        (replace(WEB, image="redis@sha256:00"), DATA, "single-writer", "both write /data"),
        (WEB, DATA, "shared-volume", "write to /data at the same time"),
        (WEB, {"volumes": [{"type": "bind", "source": "/srv", "target": "/srv"}]}, "shared-volume", "write to /srv"),
    ],
)
def test_what_only_deserves_a_warning(settings: ServiceSettings, raw: dict[str, Any], code: str, message: str) -> None:
    found = only(settings, raw)
    assert (found.severity, found.code, found.where) == (Severity.WARNING, code, "services.web")
    assert message in found.message
    assert found.fix
    assert blockers(settings, raw, "edge") == []


def test_a_docker_healthcheck_is_a_health_check() -> None:
    assert inspect(replace(WEB, health=HealthCheck(docker=True)), {}, "edge") == []


def test_recreate_is_alone_on_its_volume() -> None:
    assert inspect(RECREATE, DATA, "edge") == []


def test_only_the_services_asked_for_are_looked_at_and_all_errors_are_refused_at_once() -> None:
    proxy = ProxySettings(type=ProxyType.NGINX, config="/conf", service="edge")
    api = replace(WEB, name="api", replicas=0)
    project = Project("shop", "/p", proxy, {"web": WEB, "api": api}, "")
    document = {"services": {"web": published("80") | DATA, "api": {"container_name": "api"}}}

    assert [f.code for f in findings(project, document, ["web"])] == ["published-port", "shared-volume"]
    everything = findings(project, document)
    with pytest.raises(SpecError) as refused:
        refuse(everything)
    assert [fault.path for fault in refused.value.faults] == [
        "services.web.ports[0]",
        "services.api.deploy.replicas",
    ]
    refuse(f for f in everything if f.severity is Severity.WARNING)


def test_where_the_engine_has_the_project() -> None:
    assert placement("/srv/shop", None) == []
    assert placement("/srv/shop", "/srv/shop") == []
    (elsewhere,) = placement("/project", "/srv/shop")
    assert (elsewhere.severity, elsewhere.code, elsewhere.where) == (Severity.ERROR, "project-path", "/project")
    assert "/srv/shop:/srv/shop" in elsewhere.fix
    (nowhere,) = placement("/project", "")
    assert "not mounted" in nowhere.message


def test_a_path_as_the_host_names_it() -> None:
    mounts = [
        ("/srv", "/data"),
        ("/srv/a/shop", "/data/shop"),
        ("", "/tmp"),
        ("/var/run/docker.sock", "/var/run/docker.sock"),
    ]
    assert seen_from_host("/data/shop/web", mounts) == "/srv/a/shop/web"
    assert seen_from_host("/data/other", mounts) == "/srv/other"
    assert seen_from_host("/tmp/x", mounts) == ""
    assert own_container(f"1 2 0:3 /docker/containers/{'a' * 64}/hostname /etc/hostname rw") == "a" * 64
    assert own_container("1 2 0:3 / / rw") == ""
    of_another = f"/var/lib/docker/containers/{'a' * 64}/mounts/shm"
    assert own_container(f"1 2 0:3 / {of_another} rw - tmpfs shm rw") == "", "a host's view of its containers"
    assert own_container(f"1 2 0:3 {of_another} {of_another} rw - ext4 /dev/vda1 rw") == ""


@pytest.mark.parametrize(("found", "warned"), [((2, 19), True), ((1, 29), True), ((2, 20), False), ((0, 0), False)])
def test_a_compose_that_is_too_old_is_named(found: tuple[int, int], warned: bool) -> None:
    assert [finding.code for finding in compose_version(found)] == (["compose-version"] if warned else [])


def test_where_no_state_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def found(path: Path) -> list[Finding]:
        return state_directory(str(path), StateDirectory(path).in_the_way())

    assert found(tmp_path / "new/.rollout") == [] and list(tmp_path.iterdir()) == [tmp_path / "file"]
    for wrong in (tmp_path / "file", tmp_path / "file/.rollout"):
        (finding,) = found(wrong)
        assert (finding.code, finding.severity) == ("state", Severity.ERROR)
        assert f"{tmp_path}/file is no directory" in finding.message


def test_where_the_proxys_files_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unwritable(str(tmp_path)) == "" and proxy_directory(str(tmp_path), "") == []
    assert unwritable(str(tmp_path / "gone")) == os.strerror(errno.ENOENT)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert unwritable(str(tmp_path)) == os.strerror(errno.EACCES)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    (finding,) = proxy_directory(str(tmp_path), unwritable(str(tmp_path)))
    assert (finding.code, finding.severity, finding.where) == (
        "proxy-directory", Severity.ERROR, "x-rollout.proxy.config",
    )  # fmt: skip
    assert finding.message == f"{tmp_path} cannot be written: Read-only file system"
    assert "x-rollout.proxy.config" in finding.fix


def test_what_cannot_be_written_is_no_fault_of_the_configuration() -> None:
    """Exit code 4, not 2; and it does not hide what else is wrong."""
    found = [*proxy_directory("/etc/nginx/rollout.d", "Permission denied")]
    with pytest.raises(StateError, match=r"^/etc/nginx/rollout\.d cannot be written: Permission denied$") as refused:
        refuse(found)
    assert refused.value.hint == found[0].fix
    with pytest.raises(SpecError) as both:
        refuse([*found, *inspect(replace(WEB, replicas=0), {})])
    assert [fault.path for fault in both.value.faults] == ["x-rollout.proxy.config", "services.web.deploy.replicas"]


@pytest.mark.parametrize("hook", ["post_start", "pre_stop"])
@pytest.mark.parametrize("settings", [WEB, RECREATE])
def test_composes_own_hooks_are_named_since_they_do_not_run(settings: ServiceSettings, hook: str) -> None:
    found = only(settings, {hook: [{"command": ["./tell"]}]})
    assert (found.severity, found.code, found.where) == (Severity.WARNING, "compose-hook", f"services.web.{hook}")
