"""The real sidecar of a real project, and how it is spoken to."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from tests.api.bench import connect
from tests.e2e.projects import Running, Shop, eventually


@contextlib.contextmanager
def serving(shop: Shop, *argv: str) -> Iterator[Running]:
    """The sidecar at work, and ended by one signal, well."""
    sidecar = shop.spawn("serve", *argv)
    try:
        eventually(lambda: shop.rollout("serve", "--healthy", code=None).code == 0, "a healthy sidecar")
        eventually((shop.directory / ".rollout/api.sock").exists, "its socket")
        yield sidecar
    finally:
        sidecar.signal(signal.SIGTERM)
        done = sidecar.end()
        print(done.out)
    assert done.code == 0, done
    assert shop.rollout("serve", "--healthy", code=1).out == "no sidecar of this project runs\n"


def ask(shop: Shop, method: str, path: str, body: object = None) -> Any:
    """One request over the project's socket; what it answers, JSON or text."""
    connection = http.client.HTTPConnection("localhost", timeout=70)
    connection.sock = connect(shop.directory / ".rollout/api.sock")
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
