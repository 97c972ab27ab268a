"""Which ports a HAProxy configuration would newly take."""

from __future__ import annotations

import pytest

from rollout.proxies.haproxy_binds import ports
from rollout.proxies.haproxy_files import parse_config


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bind :80", {80}),
        ("bind *:443 ssl crt /etc/ssl/site.pem", {443}),
        ("bind 10.0.0.1:8080,10.0.0.2:8081", {8080, 8081}),
        ("bind [::]:80 v4v6", {80}),
        ("bind ipv6@:81", {81}),
        (":80", set()),
        ("bind :8000-8002", {8000, 8001, 8002}),
        ("bind /run/haproxy/site.sock mode 660", set()),
        ("bind unix@/run/haproxy/site:80", set()),
        ("bind abns@site:80", set()),
        ("bind fd@${SITE}", set()),
        ("server one 10.0.0.1:80", set()),
    ],
)
def test_ports(line: str, expected: set[int]) -> None:
    assert ports(parse_config("haproxy.cfg", f"frontend site\n  {line}\n")) == expected
