"""A project that is mounted elsewhere than on the host is explained, by what the engine says of our own container."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.engines.docker.own import host_path, mismatch, own_id

ID = "0123456789abcdef" * 4
MOUNTS = [
    {"Source": "/srv/shop", "Destination": "/project"},
    {"Source": "/srv/other", "Destination": "/project/data"},
    {"Source": "", "Destination": "/tmp"},
    {"Source": "/srv/same", "Destination": "/srv/same"},
]


def test_the_engines_own_mounts_say_which_container_this_is(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(
        f"717 700 0:50 / / rw - overlay overlay rw\n"
        f"722 717 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    )
    assert own_id(file) == ID
    file.write_text("22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n")
    assert own_id(file) is None
    assert own_id(tmp_path / "no such file") is None


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("/project", "/srv/shop"),
        ("/project/a/b", "/srv/shop/a/b"),
        ("/project/data/x", "/srv/other/x"),
        ("/projects", None),
        ("/tmp/x", None),
        ("/srv/same/x", "/srv/same/x"),
    ],
)
def test_where_the_host_has_a_path(inside: str, outside: str | None) -> None:
    assert host_path(inside, MOUNTS) == outside


def test_the_finding_has_the_line_to_write() -> None:
    assert mismatch("/srv/same", "/srv/same") is None
    found = mismatch("/project", "/srv/shop")
    assert found is not None
    assert "is /srv/shop on the host, but /project in here" in found.message
    assert '"/srv/shop:/srv/shop"' in found.fix
    assert "not mounted" in str(mismatch("/project", None))
