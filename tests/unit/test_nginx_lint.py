"""Settings of nginx that lose requests: where they stand, and the line to write instead."""

from __future__ import annotations

import pytest

from rollout.proxies.nginx_config import LoadedConfig
from rollout.proxies.nginx_lint import lint

OURS = "/etc/nginx/rollout.d"
KEPT = "keepalive_timeout 15s; keepalive_min_timeout 15s;"
PROXIED = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://web;'


def found(main: str, version: tuple[int, ...] = (1, 30, 6), **files: str) -> list[tuple[str, str, str]]:
    named = {"/n.conf": main, **{f"{OURS}/current/{name}.conf": text for name, text in files.items()}}
    config = LoadedConfig("/n.conf", named, version)
    return [(finding.code, finding.where, finding.fix) for finding in lint(config, OURS, ["web"])]


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (f"http {{ {KEPT} server {{ }} }}", (1, 30, 6), None),
        ("http { keepalive_timeout 0; server { } }", (1, 22, 1), None),
        ("http { server { keepalive_timeout 0; } }", (1, 22, 1), None),
        ("http {\n server { } }", (1, 30, 6), ("/n.conf:1", "keepalive_timeout 15s; keepalive_min_timeout 15s;")),
        ("http {\n server { } }", (1, 26, 3), ("/n.conf:1", "keepalive_timeout 0;")),
        (
            "http {\n keepalive_timeout 30s 25s;\n keepalive_min_timeout 10s; server { } server { } }",
            (1, 30, 6),
            ("/n.conf:2", "keepalive_timeout 30s; keepalive_min_timeout 30s;"),
        ),
        (
            f"http {{ {KEPT}\n server {{ location / {{\n keepalive_timeout 65; }} }} }}",
            (1, 27, 4),
            ("/n.conf:3", "keepalive_timeout 65; keepalive_min_timeout 65;"),
        ),
        (
            f"http {{ {KEPT} # keepalive_timeout 75s;\n server {{ return 200 'keepalive_timeout 75s;'; }} }}",
            (1, 30, 6),
            None,
        ),
    ],
)
def test_idle_client_connections(text: str, version: tuple[int, ...], expected: tuple[str, str] | None) -> None:
    assert found(text, version) == ([("nginx-keepalive", *expected)] if expected else [])


@pytest.mark.parametrize(
    ("text", "version", "fix"),
    [
        ("http { http2 on;\n keepalive_timeout 0; server { } }", (1, 30, 6), KEPT),
        ("http { http2 On;\n keepalive_timeout 0; server { } }", (1, 30, 6), KEPT),
        ("http { \nkeepalive_timeout 0s; server { listen 443 ssl http2; } }", (1, 22, 1), ""),
        ("http { http2 on;\n keepalive_timeout 0; server { http2 off; } }", (1, 30, 6), None),
        (f"http {{ http2 on; {KEPT} server {{ }} }}", (1, 30, 6), None),
    ],
)
def test_http2_needs_connections_that_live(text: str, version: tuple[int, ...], fix: str | None) -> None:
    assert found(text, version) == ([] if fix is None else [("nginx-http2-keepalive", "/n.conf:2", fix)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "worker_processes auto; http { server { keepalive_timeout 0; listen 80 reuseport backlog=9; } }",
            ("nginx-reuseport", "/n.conf:1", "listen 80 backlog=9;"),
        ),
        ("worker_processes 2; http { server { keepalive_timeout 0; listen 80 reuseport; } }", None),
        (
            "http { server { keepalive_timeout 0;\n listen 443 quic; listen 443 ssl; } }",
            ("nginx-http3", "/n.conf:2", "# (remove this listen, and the Alt-Svc header that leads to it)"),
        ),
        (
            "\nworker_shutdown_timeout 2s;",
            ("nginx-worker-shutdown-timeout", "/n.conf:2", "# (remove worker_shutdown_timeout)"),
        ),
        (
            "http { upstream api { server a:1; server b:1 max_fails=0; } }",
            ("nginx-max-fails", "/n.conf:1", "server a:1 max_fails=0;"),
        ),
        ("http { upstream api { server a:1; } }", None),
        (
            "http { proxy_next_upstream error non_idempotent timeout; }",
            ("nginx-retry-post", "/n.conf:1", "proxy_next_upstream error timeout;"),
        ),
    ],
)
def test_the_others(text: str, expected: tuple[str, str, str] | None) -> None:
    assert found(text) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("inner", "version", "warned"),
    [
        (PROXIED, (1, 26, 3), False),
        ("proxy_pass http://web;", (1, 26, 3), True),
        ("proxy_http_version 1.1; proxy_pass http://web/path;", (1, 26, 3), True),
        (f"proxy_set_header X y; {PROXIED}", (1, 26, 3), False),
        ("proxy_pass http://other;", (1, 26, 3), False),
        ("proxy_pass http://web;", (1, 29, 7), False),
        ("if ($a) { proxy_pass http://web; }", (1, 26, 3), True),
    ],
)
def test_connections_to_our_upstreams(inner: str, version: tuple[int, ...], warned: bool) -> None:
    text = f"http {{ proxy_connect_timeout 1s; server {{ keepalive_timeout 0; location / {{ {inner} }} }} }}"
    assert [code for code, _, _ in found(text, version)] == (["nginx-upstream-http"] if warned else [])


def test_a_virtual_host_of_ours_must_not_become_the_default() -> None:
    main = f"http {{ include {OURS}/current/*.conf; {KEPT}\n server {{ listen 80 backlog=9; }} }}"
    vhost = {"web": "server { listen 80; server_name x; }"}
    assert found(main, (1, 30, 6), **vhost) == [
        ("nginx-default-server", "/n.conf:2", "listen 80 backlog=9 default_server;")
    ]
    assert found(main.replace("backlog=9", "default_server"), (1, 30, 6), **vhost) == []
    assert found(main) == []


def test_what_rollout_renders_is_not_complained_about() -> None:
    ours = {"web": "upstream web { server a:1; server b:1; } server { listen 81; proxy_pass http://web; }"}
    assert found(f"http {{ {KEPT} include {OURS}/current/*.conf; }}", (1, 26, 3), **ours) == []


@pytest.mark.parametrize(
    ("http", "location", "where"),
    [
        ("", "", "/n.conf:2"),
        ("", "proxy_connect_timeout 2s;", "/n.conf:3"),
        ("proxy_connect_timeout 10s;", "", "/n.conf:2"),
        ("proxy_connect_timeout 2s;", "", ""),
        ("proxy_connect_timeout 2s;", "proxy_connect_timeout 1m;", "/n.conf:2"),
    ],
)
def test_how_soon_a_dead_replica_is_given_up(http: str, location: str, where: str) -> None:
    first = f"server {{\n location / {{ {location} {PROXIED} }} location /a {{ {location} {PROXIED} }} }}"
    said = found(f"http {{ {KEPT} {http} {first}\n server {{ location / {{ {PROXIED} }} }} }}")
    assert said == ([("nginx-connect-timeout", where, "proxy_connect_timeout 1s;")] if where else [])
