"""The same fixtures as the end-to-end tests: these are such tests, on processes that die."""

from __future__ import annotations

from tests.e2e.conftest import short_directory

__all__ = ["short_directory"]
