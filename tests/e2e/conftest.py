"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """As tmp_path, for a project: the path of a socket in it must stay below 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="rollout-"))
    yield path
    shutil.rmtree(path)
