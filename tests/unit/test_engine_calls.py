"""The published list of engine calls says what the code's own tables say."""

from __future__ import annotations

import runpy
from pathlib import Path

from rollout.engines.docker.calls import COMPOSE_CALLS, ENGINE_CALLS

ROOT = Path(__file__).resolve().parents[2]


def test_page_and_filter_are_made_from_the_tables() -> None:
    made = runpy.run_path(str(ROOT / "scripts/engine_calls.py"))
    assert (ROOT / "docs/engine-calls.md").read_text() == made["page"](), "run scripts/engine_calls.py"
    assert (ROOT / "examples/socket-proxy/haproxy.cfg").read_text() == made["filter_config"]()


def test_no_request_is_listed_twice() -> None:
    for table in (ENGINE_CALLS, COMPOSE_CALLS):
        assert len({row[:2] for row in table}) == len(table)
