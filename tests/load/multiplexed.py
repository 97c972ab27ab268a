"""HTTP/2 clients: several requests at once on one connection, or one after a pause on a connection that was idle."""

from __future__ import annotations

import asyncio
import hashlib
import time

from tests.load.clients import FAILURE_PAUSE, Session, check
from tests.load.http2 import Http2Connection, NotBegun, Stream
from tests.load.wire import Anomaly, Target

KINDS = ("get", "post", "upload", "stream")
UPLOAD = 8192  # bytes, well within the window a connection begins with


class Multiplexed:
    """One connection at a time. Where the server says that a request was never begun, it is sent again on the next."""

    def __init__(self, session: Session, target: Target) -> None:
        self.target = target
        self.session, self.mix, self.tally = session, session.mix, session.tally
        self.opened: list[Http2Connection] = []
        self.opening = asyncio.Lock()

    async def busy(self) -> None:
        await self.run(KINDS)

    async def idle(self) -> None:
        await self.run(("think",))

    async def run(self, kinds: tuple[str, ...]) -> None:
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(self.repeat(kind))
        for conn in self.opened:
            conn.close()

    async def repeat(self, kind: str) -> None:
        while not self.session.stopping.is_set():
            if kind == "think":
                await self.session.pause(self.session.random.uniform(0, self.mix.think_seconds))
            started = time.monotonic()
            try:
                async with asyncio.timeout(self.mix.timeout + self.mix.upload_seconds + self.mix.stream_seconds):
                    await self.turn(kind)
            except Anomaly as anomaly:
                self.tally.fail(f"http2 {kind}", anomaly.cls, "", anomaly.detail)
                await self.session.pause(FAILURE_PAUSE)
            except TimeoutError:
                self.tally.fail(f"http2 {kind}", "timeout", "", "no complete answer")
            else:
                self.tally.succeed(f"http2 {kind}", time.monotonic() - started)

    async def turn(self, kind: str) -> None:
        chance = self.session.random
        self.session.serial += 1
        serial = str(self.session.serial)
        if kind == "stream":
            content, _, digest = bytes((await self.ask("GET", self.stream_path())).body).rpartition(b"sha256 ")
            if digest.strip().decode("latin-1") != hashlib.sha256(content).hexdigest():
                raise Anomaly("stream_cut", "the stream does not end with its checksum")
            return
        body = b"" if kind == "get" else chance.randbytes(UPLOAD if kind == "upload" else chance.randrange(2, 2048))
        path = (
            f"/upload?id={serial}"
            if kind == "upload"
            else f"/work?ms={chance.choice(self.mix.handler_ms):g}&id={serial}"
        )
        pause = self.mix.upload_seconds if kind == "upload" else 0.0
        answer = await self.ask("POST" if body else "GET", path, body, pause)
        check(bytes(answer.body), serial, body)

    def stream_path(self) -> str:
        return f"/stream?seconds={self.mix.stream_seconds:g}&chunks=10"

    async def ask(self, method: str, path: str, body: bytes = b"", pause: float = 0.0) -> Stream:
        while True:
            conn = await self.connection()
            try:
                answer = await conn.request(method, path, body, rtt=self.mix.rtt, pause=pause)
            except NotBegun:
                self.tally.not_begun += 1
                continue
            if answer.version:
                self.tally.versions[answer.version] += 1
            if answer.status != 200:
                raise Anomaly(f"http_{answer.status}", repr(bytes(answer.body[:80])))
            return answer

    async def connection(self) -> Http2Connection:
        async with self.opening:
            if not self.opened or self.opened[-1].leaving:
                self.opened.append(await Http2Connection.open(self.target, self.mix.connect_timeout))
                self.tally.connections += 1
            return self.opened[-1]
