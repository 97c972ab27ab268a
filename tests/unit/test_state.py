"""The state directory and the locks in it, where they cannot be read as they should be. What permissions do is in
`e2e/test_bad_world.py`: a unit test may run as root, who is refused nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rollout.clock import SystemClock
from rollout.errors import ExitCode, StateError
from rollout.lock import FileLock
from rollout.state import StateDirectory


def test_state_of_another_project_is_refused_whatever_its_name_is_written_in(tmp_path: Path) -> None:
    (tmp_path / "project").write_bytes(b"b\xfcro\n")
    with pytest.raises(StateError, match="holds the state of project"):
        StateDirectory(tmp_path).check("shop")


def test_state_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with pytest.raises(StateError, match="cannot be read: Is a directory") as refused:
        StateDirectory(tmp_path).check("shop")
    assert refused.value.exit_code is ExitCode.UNREACHABLE
    assert "ROLLOUT_STATE_DIR" in refused.value.hint


@pytest.mark.parametrize("path", ["nothing", "file/below"])
def test_where_there_is_no_state_there_is_nothing_to_refuse(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    StateDirectory(tmp_path / path).check("shop")


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="File name too long"):
        StateDirectory(tmp_path / ("x" * 300)).check("shop")


def test_a_lock_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "web.lock").symlink_to("web.lock")
    lock = FileLock(tmp_path, SystemClock())
    with pytest.raises(StateError, match=r"the lock of service web cannot be opened: .*: Too many levels"):
        lock.holder("web")
    assert lock.holder("api") is None


def test_who_waits_never_reads_half_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, lock = tmp_path / "web.lock", FileLock(tmp_path, SystemClock())
    with lock.hold("web", "deploy of a revision whose record is the longer one", 0):
        pass
    before: list[str] = []
    write = os.pwrite

    def watched(fd: int, data: bytes, offset: int) -> int:
        before.append(json.loads(file.read_text())["what"])
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", watched)
    with lock.hold("web", "sync", 0):
        assert json.loads(file.read_text())["what"] == "sync"
        assert (lock.holder("web") or {})["what"] == "sync"
    assert before == ["deploy of a revision whose record is the longer one"], "written once, over what was there"
