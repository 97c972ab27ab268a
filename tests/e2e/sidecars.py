"""How the real sidecar of a real project is spoken to."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping
from typing import Any

from tests.api.bench import connect
from tests.e2e.projects import Shop, eventually


def ask(shop: Shop, method: str, path: str, body: object = None) -> Any:
    """One request over the project's socket; what it answers, JSON or text."""
    connection = http.client.HTTPConnection("localhost", timeout=70)
    socket = shop.directory / ".rollout/api.sock"
    eventually(socket.exists, "the sidecar's socket")
    connection.sock = connect(socket)
    with contextlib.closing(connection):
        headers: Mapping[str, str] = {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return json.loads(text) if answer.getheader("content-type") == "application/json" else text


def ended(shop: Shop, operation: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ask(shop, "GET", f"/v1/operations/{operation['id']}?wait=60")
    assert found["exit_code"] is not None, found
    return found


def audited(shop: Shop) -> list[dict[str, Any]]:
    log = shop.directory / ".rollout/audit.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
