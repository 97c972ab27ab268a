"""A UNIX socket before the engine's own: it records every request, and lets each through, refuses it, or spoils it.

    with EngineProxy(directory / "engine.sock", decide) as proxy:
        shop.env["DOCKER_HOST"] = proxy.url
        ...
    assert proxy.calls

`decide` sees each request before the engine does and answers how it is spoilt, None for not at all. One request a
connection: what is asked for is passed on with `Connection: close`, so every answer ends with its connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
CHUNK = 65536
_VERSION = re.compile(r"^/v\d+\.\d+")


class Fault(Enum):
    """What goes wrong with one request. In the first group the engine never sees it; in the second it does the work."""

    HANG = "hang"  # no answer, ever
    SILENT = "silence"  # an answer begins, and nothing follows: what a stream is that loses all it should tell
    ERROR = "500"
    REFUSE = "403"
    LOST = "lost answer"  # the connection ends without a word
    HALF = "half an answer"  # the connection ends in the middle
    NONSENSE = "not JSON"
    SHAPE = "JSON of another shape"


BEFORE_THE_ENGINE = frozenset({Fault.HANG, Fault.SILENT, Fault.ERROR, Fault.REFUSE})
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` without the version prefix and the query."""

    method: str
    path: str
    query: str
    agent: str

    @property
    def by_compose(self) -> bool:
        return not self.agent.startswith("docker-sdk-python")

    def __str__(self) -> str:
        return f"{'compose' if self.by_compose else 'rollout'}: {self.method} {self.path}"


Decide = Callable[[Call], Fault | None]


class EngineProxy(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """`calls` are all requests so far, `spoilt` those that a fault met, in the order they came."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, decide: Decide | None = None, engine: str = ENGINE) -> None:
        super().__init__(str(path), _Exchange)
        self.url = f"unix://{path}"
        self.decide: Decide = decide or _nothing
        self.engine = engine
        self.calls: list[Call] = []
        self.spoilt: list[tuple[Call, Fault]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """The client left, or the engine did: that is what happens here."""

    def fault(self, call: Call) -> Fault | None:
        self.calls.append(call)
        fault = self.decide(call)
        if fault is not None:
            self.spoilt.append((call, fault))
        return fault


def _nothing(_: Call) -> None:
    return None


class _Exchange(socketserver.BaseRequestHandler):
    server: EngineProxy
    request: socket.socket

    def handle(self) -> None:
        head, body = _head(self.request)
        if not head:
            return
        fault = self.server.fault(_call(head))
        if fault in (Fault.HANG, Fault.SILENT):
            if fault is Fault.SILENT:
                self.request.sendall(STREAM)
            while self.request.recv(CHUNK):
                pass  # until the client gives up
        elif fault in BEFORE_THE_ENGINE:
            status = "500 Internal Server Error" if fault is Fault.ERROR else "403 Forbidden"
            self.request.sendall(_answer(status, json.dumps({"message": f"{fault.value}: as the test wants it"})))
        else:
            self._pass_on(head, body, fault)

    def _pass_on(self, head: bytes, body: bytes, fault: Fault | None) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.engine)
            engine.sendall(_closing(head) + body)
            threading.Thread(target=_pump, args=(self.request, engine), daemon=True).start()
            if fault is None:
                _pump(engine, self.request)
            else:
                self._spoil(fault, _all(engine))
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)  # ends the other pump

    def _spoil(self, fault: Fault, answer: bytes) -> None:
        head, end, body = answer.partition(b"\r\n\r\n")
        if fault is Fault.HALF:
            self.request.sendall(head + end + body[: len(body) // 2] if body else head[: len(head) // 2])
        elif fault is Fault.NONSENSE:
            self.request.sendall(_answer("200 OK", '<html>{"Id": '))
        elif fault is Fault.SHAPE:
            self.request.sendall(_answer("200 OK", '{"nonsense": [null, 42]}'))


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request and what came of its body with it; nothing when there is none."""
    got = b""
    while b"\r\n\r\n" not in got:
        data = client.recv(CHUNK)
        if not data:
            return b"", b""
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    return head, body


def _call(head: bytes) -> Call:
    first, *fields = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    agent = next((f.split(":", 1)[1].strip() for f in fields if f.lower().startswith("user-agent:")), "")
    url = urlsplit(target)
    return Call(method, _VERSION.sub("", url.path), url.query, agent)


def _closing(head: bytes) -> bytes:
    """The request's head for one request a connection; an upgrade has its connection for itself anyway."""
    lines = head.split(b"\r\n")
    if not any(line.lower().startswith(b"upgrade:") for line in lines):
        lines = [line for line in lines if not line.lower().startswith(b"connection:")] + [b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _answer(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"{head}\r\n\r\n{body}".encode()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _all(engine: socket.socket) -> bytes:
    got = bytearray()
    while data := engine.recv(CHUNK):
        got += data
    return bytes(got)
