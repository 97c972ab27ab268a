"""Every file that rendering is compared with is one that the real nginx and HAProxy accept, in each version tested."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e]

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
IMAGES = (
    "rollout-test/nginx:1.22", "rollout-test/nginx:1.26", "rollout-test/nginx:1.30",
    "rollout-test/haproxy:2.6", "rollout-test/haproxy:3.0", "rollout-test/haproxy:3.2",
)  # fmt: skip

# Each file alone, beside what it needs around it: `web` appears in several. On stdout, each file's name and verdict.
CHECKS = {
    "nginx": r"""
        echo 'upstream web { no_such_directive; }' >/tmp/bad.conf
        for file in /golden/*.conf /tmp/bad.conf; do
            status=/golden/status.conf
            [ $file != $status ] || status=/dev/null
            echo "events {} http { include $status; include $file; }" >/tmp/nginx.conf
            nginx -t -q -c /tmp/nginx.conf && echo $(basename $file) good || echo $(basename $file) bad
        done
    """,
    "haproxy": r"""
        printf 'backend web\n  no_such_keyword\n' >/tmp/bad.cfg
        printf 'defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n' >/tmp/haproxy.cfg
        printf 'frontend public\n bind :80\n' >>/tmp/haproxy.cfg
        for file in /golden/*.cfg /tmp/bad.cfg; do
            haproxy -c -q -f /tmp/haproxy.cfg -f $file && echo $(basename $file) good || echo $(basename $file) bad
        done
    """,
}


@pytest.mark.parametrize("image", IMAGES)
def test_the_golden_files_are_accepted(image: str) -> None:
    proxy = "nginx" if "nginx" in image else "haproxy"
    files = GOLDEN / proxy
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "-v", f"{files}:/golden:ro", image, "sh", "-c", CHECKS[proxy]],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    verdicts = dict(line.split() for line in done.stdout.splitlines())
    refused = verdicts.pop("bad.conf" if proxy == "nginx" else "bad.cfg", "not looked at")
    assert refused == "bad", f"or the rest means nothing: {done.stdout}{done.stderr}"
    assert verdicts == dict.fromkeys((file.name for file in files.iterdir()), "good"), done.stderr
