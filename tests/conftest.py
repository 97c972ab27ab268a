"""What every test may rely on."""

from __future__ import annotations

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts background jobs with SIGINT ignored, `nohup` with SIGHUP, and what ignores one hands that on:
    tests that interrupt would wait for ever in such a run, and only there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a handler is not handed on, and this run still outlives it
