"""The lock between those that change one proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.errors import StateError
from rollout.proxies.lock import LOCK_TIMEOUT, exclusively
from tests.clocks import HandClock


def test_who_has_to_wait_for_too_long_is_told_and_no_rollout_is_said_to_be_under_way(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "state" / "proxy.lock"), HandClock()
    with (
        exclusively(path, clock),
        pytest.raises(StateError, match="another rollout has been changing the proxy for 120 s"),
        exclusively(path, clock),
    ):
        pytest.fail("both had it")
    assert clock.time == pytest.approx(LOCK_TIMEOUT)
    with exclusively(path, clock) as file:
        file.write(b"x")


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be opened"), exclusively(str(tmp_path / "file/lock"), HandClock()):
        pytest.fail("it had it")
