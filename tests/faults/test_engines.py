"""The same deploy and rollback on every engine that is supported, over TLS, and while the engine is restarted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.nested_engine import TLS_PORT, NestedEngine, environment
from tests.faults.smoke import EDGES, smoke
from tests.faults.spoilt import HAPROXY, NGINX

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

IMAGES = (*(f"rollout-test/{e.type}:{e.version}" for e in (NGINX, HAPROXY)), "rollout-test/app:1", "rollout-test/app:2")
SMOKE = [sys.executable, "-m", "tests.faults.smoke"]


@pytest.mark.parametrize("name", EDGES)
def test_on_the_engine_of_this_machine(name: str, short_directory: Path) -> None:
    print(f"{name}: {smoke(EDGES[name], short_directory)}")


@pytest.mark.parametrize("version", ["26.1", "28.5"])
def test_on_a_newer_engine(version: str, short_directory: Path) -> None:
    with NestedEngine(version, short_directory) as engine:
        assert engine.answers().startswith(version)
        engine.load(*IMAGES)
        command = [*SMOKE, str(short_directory), *EDGES]
        print(f"engine {version}: {engine.inside(command, environment(DOCKER_HOST=engine.url))}")


@pytest.fixture
def certificates(short_directory: Path) -> Path:
    """ca.pem, cert.pem and key.pem, for the engine and its clients alike."""
    folder = short_directory / "tls"
    folder.mkdir()
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for arguments in (
        [*new, "-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca.pem"],
        [*new, "-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
         "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-keyout", "key.pem", "-out", "cert.pem"],
        [*new, "-subj", "/CN=others", "-keyout", "others-key.pem", "-out", "others.pem"],
    ):  # fmt: skip
        subprocess.run(arguments, cwd=folder, check=True, capture_output=True)
    return folder


def test_over_tls_with_another_bundle_for_the_web(certificates: Path, short_directory: Path) -> None:
    """REQUESTS_CA_BUNDLE names a CA that did not sign the engine's certificate; it is meant for the web."""
    bundle = str(certificates / "others.pem")
    over_tls = environment(
        DOCKER_HOST=f"tcp://127.0.0.1:{TLS_PORT}", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(certificates),
        REQUESTS_CA_BUNDLE=bundle, CURL_CA_BUNDLE=bundle,
    )  # fmt: skip
    with NestedEngine("28.5", short_directory, tls=True) as engine:
        engine.load(*IMAGES)
        print(f"over TLS: {engine.inside([*SMOKE, str(short_directory), *EDGES], over_tls)}")


STEPS = ("start", "check", "switch", "drain", "stop")


@pytest.mark.parametrize("live_restore", [True, False], ids=["live-restore", "all containers stop"])
def test_the_engine_is_restarted_midway(live_restore: bool, short_directory: Path) -> None:
    """With live-restore the containers run on, and no request is lost. Without, all of them go down with the engine,
    the proxy too: what is promised then is only that the next run converges."""
    flags = ["--live-restore"] if live_restore else []
    with NestedEngine("26.1", short_directory, *flags) as engine:
        engine.load(*IMAGES)
        restart = ["docker", "-H", "unix:///var/run/docker.sock", *engine.restart()]
        for step in STEPS:
            for name in EDGES:
                options = ["--at", step, *([] if live_restore else ["--lossy"])]
                command = [*SMOKE, str(short_directory), name, *options, "--", *restart]
                print(engine.inside(command, environment(DOCKER_HOST=engine.url)), end="")


def test_the_engine_is_restarted_beside_a_sidecar(short_directory: Path) -> None:
    """All containers go down and come back at whatever addresses: the pools are right again, and nobody helped."""
    with NestedEngine("26.1", short_directory) as engine:
        engine.load(*IMAGES)
        restart = ["docker", "-H", "unix:///var/run/docker.sock", *engine.restart()]
        for name in EDGES:
            command = [*SMOKE, str(short_directory), name, "--serve", "--", *restart]
            print(engine.inside(command, environment(DOCKER_HOST=engine.url)), end="")
