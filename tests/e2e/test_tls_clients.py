"""Clients that speak TLS, and HTTP/2 over it: a deploy loses no request of theirs either.

HTTP/2 is told by a reload which requests were never begun; those are sent again by clients, and are not lost.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.projects import Edge, Shop, docker, eventually, project
from tests.load import Load, Mix

pytestmark = [pytest.mark.e2e]

CERTIFICATE = "/etc/edge/tls.pem"


class Secure(Edge):
    @property
    def keepalive(self) -> str:
        """With `keepalive_timeout 0` nginx says goodbye to an HTTP/2 connection at its first request."""
        return super().keepalive.replace("keepalive_timeout 0;", "keepalive_timeout 15s;")

    @property
    def listen(self) -> str:
        if self.type == "nginx":
            files = f"ssl_certificate {CERTIFICATE}; ssl_certificate_key {CERTIFICATE};"
            return f"listen 80; listen 443 ssl; http2 on; {files}"
        return f"bind :80\n    bind :443 ssl crt {CERTIFICATE} alpn h2,http/1.1"


EDGES = (Secure("nginx", "1.26"), Secure("nginx", "1.30"), Secure("haproxy", "3.0"))
MIX = replace(Mix.light(), http2=3, http2_idle=20, stream_seconds=1.0)
# What nginx before 1.27.4 can keep without a loss when idle connections are kept at all: HTTP/1.1 cannot be.
ONE_REQUEST_EACH = Mix(fresh=2, preconnected=2, upgrades=1, http2=3, http2_idle=20, stream_seconds=1.0)


def certify(shop: Shop) -> None:
    """A certificate of its own, in the proxy's container."""
    folder = shop.directory / "tls"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=web", "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "tls.pem").write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    shop.services["edge"]["volumes"].append("./tls:/etc/edge:ro")
    shop.write()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_deploys_lose_nothing_over_tls_and_http2(edge: Edge, short_directory: Path) -> None:
    with project(edge, short_directory) as shop:
        certify(shop)
        shop.up()
        shop.rollout("deploy")
        mix = ONE_REQUEST_EACH if edge.version == "1.26" else MIX
        with Load(f"https://{shop.address('edge')}", mix, host="web") as load:
            load.wait_for(200)
            for version in ("2", "3"):
                shop.tag(version)
                shop.rollout("deploy", "web")
                load.wait_for(load.progress()["total"] + 100)
            report = load.report()
        print(f"{edge}: {report.describe()}")
        assert report.failed == 0, shop.describe()
        assert {f"http2 {kind}" for kind in ("get", "post", "upload", "stream", "think")} <= report.by_kind.keys()
        assert set(report.by_version) == {"1", "2", "3"}
        assert {line["in_flight"] for line in shop.term_lines()} == {0}
        eventually(lambda: not shop.old_workers(), "the end of the old workers")


@pytest.mark.parametrize("edge", [EDGES[1]], ids=str)
def test_the_load_sees_what_is_lost_over_http2(edge: Edge, short_directory: Path) -> None:
    """The negative control."""
    with project(edge, short_directory) as shop:
        certify(shop)
        shop.up()
        shop.rollout("deploy")
        with Load(f"https://{shop.address('edge')}", MIX, host="web") as load:
            load.wait_for(200)
            docker("kill", *[c.id for c in shop.running()])
            load.wait_for(load.progress()["total"] + 50)
            report = load.report()
        lost = {kind for kind, seen in report.by_kind.items() if set(seen) != {"ok"}}
        assert {"http2 get", "http2 post", "http2 stream", "stream", "upgrade"} <= lost, report.describe()
