"""The kinds of clients: each repeats one counted turn until the load is stopped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from typing import ClassVar

from tests.load.mix import Mix
from tests.load.report import Tally
from tests.load.tls import relayed
from tests.load.wire import Anomaly, Connection, Target

# Clients that fail at once must not spin: a load that starves the machine measures only itself.
FAILURE_PAUSE = 0.02
# As careful HTTP libraries do: a pooled connection that was idle for longer may be about to be closed by any proxy.
POOL_IDLE_LIMIT = 2.0
ECHO_INTERVAL = 0.1


class Session:
    """What the clients of one load share."""

    def __init__(self, target: Target, mix: Mix, tally: Tally) -> None:
        self.target, self.mix, self.tally = target, mix, tally
        self.secure = target  # for those that speak TLS themselves
        self.random = random.Random()
        self.stopping = asyncio.Event()
        self.serial = 0

    def stop(self) -> None:
        """Let every client finish what it has begun."""
        self.tally.stop()
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the load is stopped."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            pass

    async def run(self) -> None:
        """All clients of the mix, until `stop` is called and each has finished its current request."""
        mix = self.mix
        if self.target.tls:
            self.target = await relayed(self.target)
        counts: list[tuple[type[Client], int]] = [
            (Get, mix.get),
            (Post, mix.post),
            (Think, mix.think),
            (Fresh, mix.fresh),
            (Preconnected, mix.preconnected),
            (Upload, mix.uploads),
            (Stream, mix.streams),
            (Upgrade, mix.upgrades),
        ]
        async with asyncio.TaskGroup() as group:
            for kind, count in counts:
                for _ in range(count):
                    group.create_task(kind(self).run())
            if mix.http2 or mix.http2_idle:
                from tests.load.multiplexed import Multiplexed  # what it needs is imported by few loads

                for _ in range(mix.http2):
                    group.create_task(Multiplexed(self, self.secure).busy())
                for _ in range(mix.http2_idle):
                    group.create_task(Multiplexed(self, self.secure).idle())
            if mix.arrivals:
                group.create_task(open_loop(self))


class Client:
    """One closed-loop client. Subclasses say what precedes a request (not counted) and what a request is."""

    kind: ClassVar[str]

    def __init__(self, session: Session) -> None:
        self.session, self.mix, self.tally = session, session.mix, session.tally
        self.conn: Connection | None = None
        self.version = ""

    async def before(self) -> None:
        """What the client does before it makes a request."""

    async def turn(self) -> None:
        """One request, checked. Raises Anomaly."""
        raise NotImplementedError

    def duration(self) -> float:
        """How long the turn takes by intention, beyond which `Mix.timeout` counts."""
        return 0.0

    async def run(self) -> None:
        while not self.session.stopping.is_set():
            try:
                await self.before()
            except Anomaly as anomaly:
                await self.failed(anomaly)
                continue
            if not self.session.stopping.is_set():
                await self.attempt(time.monotonic())
        self.drop()

    async def attempt(self, started: float) -> None:
        """One counted turn; its latency counts from `started`."""
        try:
            async with asyncio.timeout(self.mix.timeout + self.duration()):
                await self.turn()
        except Anomaly as anomaly:
            await self.failed(anomaly)
        except TimeoutError:
            await self.failed(Anomaly("timeout", f"no complete answer within {self.mix.timeout:g} s"))
        else:
            self.tally.succeed(self.kind, time.monotonic() - started)

    async def failed(self, anomaly: Anomaly) -> None:
        self.tally.fail(self.kind, anomaly.cls, self.version, anomaly.detail)
        if not anomaly.cls.startswith("http_"):
            self.drop()
        await self.session.pause(FAILURE_PAUSE)

    def drop(self) -> None:
        if self.conn:
            self.conn.close()
            self.conn = None

    async def connect(self) -> Connection:
        """The kept connection if it is still open, else a new one."""
        if self.conn and not self.conn.kept:
            self.drop()
        if self.conn and self.conn.is_closed():
            self.tally.idle_closes += 1
            self.drop()
        if not self.conn:
            self.version = ""
            self.conn = await Connection.open(self.session.target, self.mix.connect_timeout)
            self.tally.connections += 1
        return self.conn

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Connection:
        """Write a request. After the wait the connection is not looked at again: nor could a client that far away."""
        conn = await self.connect()
        if self.mix.rtt:
            await asyncio.sleep(self.mix.rtt)
        await conn.send(self.session.target.request(method, path, headers, body))
        return conn

    async def response(self, conn: Connection, expected: int = 200) -> bytes:
        """Read a response; its body. Raises Anomaly http_NNN for any status but the expected one."""
        head = await conn.head()
        self.version = conn.version
        if conn.version:
            self.tally.versions[conn.version] += 1
        if head.status == expected == 101:
            return b""
        body = await conn.body(head)
        if head.status != expected:
            raise Anomaly(f"http_{head.status}", repr(body[:80]))
        return body

    def serial(self) -> str:
        self.session.serial += 1
        return str(self.session.serial)

    async def work(self, method: str) -> None:
        """One /work request, the answer of which must belong to it."""
        chance, serial = self.session.random, self.serial()
        path = f"/work?ms={chance.choice(self.mix.handler_ms):g}&id={serial}"
        if method == "GET":
            conn = await self.request("GET", path, {})
            check(await self.response(conn), serial, b"")
            return
        body = chance.randbytes(chance.randrange(1, 2048))
        conn = await self.request("POST", path, {"Content-Length": str(len(body))}, body)
        check(await self.response(conn), serial, body)


def check(answer: bytes, serial: str, body: bytes) -> None:
    """Raises Anomaly wrong_body unless the answer echoes id, length and SHA-256 of the request."""
    expected = {"id": serial, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    try:
        content = json.loads(answer)
        if {name: content[name] for name in expected} == expected:
            return
    except (ValueError, KeyError, TypeError):
        pass
    raise Anomaly("wrong_body", f"expected {expected}, got {answer[:200]!r}")


class Get(Client):
    kind = "get"

    async def turn(self) -> None:
        await self.work("GET")


class Post(Client):
    kind = "post"

    async def turn(self) -> None:
        await self.work("POST")


class Think(Post):
    kind = "think"

    async def before(self) -> None:
        await self.session.pause(self.session.random.uniform(0, self.mix.think_seconds))


class Fresh(Post):
    kind = "fresh"

    async def before(self) -> None:
        self.drop()


class Preconnected(Post):
    kind = "preconnected"

    async def before(self) -> None:
        self.drop()
        await self.connect()
        await self.session.pause(self.session.random.uniform(0, self.mix.preconnected_seconds))


class Upload(Client):
    kind = "upload"

    def duration(self) -> float:
        return self.mix.upload_seconds

    async def turn(self) -> None:
        serial, body = self.serial(), self.session.random.randbytes(65536)
        try:
            conn = await self.request("POST", f"/upload?id={serial}", {"Content-Length": str(len(body))}, body[:32768])
            await asyncio.sleep(self.mix.upload_seconds)
            await conn.send(body[32768:])
            check(await self.response(conn), serial, body)
        except Anomaly as anomaly:
            if anomaly.cls in ("stale_reset", "fresh_reset", "truncated"):
                raise Anomaly("upload_failed", f"{anomaly.cls}: {anomaly.detail}") from None
            raise


class Stream(Client):
    kind = "stream"

    def duration(self) -> float:
        return self.mix.stream_seconds

    async def turn(self) -> None:
        conn = await self.request("GET", f"/stream?seconds={self.mix.stream_seconds:g}&chunks=10", {})
        try:
            body = await self.response(conn)
        except Anomaly as anomaly:
            if anomaly.cls == "truncated":
                raise Anomaly("stream_cut", anomaly.detail) from None
            raise
        content, _, digest = body.rpartition(b"sha256 ")
        if digest.strip().decode("latin-1") != hashlib.sha256(content).hexdigest():
            raise Anomaly("stream_cut", f"the stream ends with {body[-80:]!r}, not with its checksum")


class Upgrade(Client):
    kind = "upgrade"

    def duration(self) -> float:
        return self.mix.upgrade_seconds

    async def before(self) -> None:
        self.drop()

    async def turn(self) -> None:
        conn = await self.request("GET", "/upgrade", {"Connection": "Upgrade", "Upgrade": "echo"})
        await self.response(conn, expected=101)
        until = time.monotonic() + self.session.random.uniform(0, self.mix.upgrade_seconds)
        while True:
            sent, received = self.session.random.randbytes(32), b""
            await conn.send(sent)
            while len(received) < len(sent):
                received += await conn.receive()
            if received != sent:
                raise Anomaly("wrong_body", f"sent {sent!r}, the echo is {received!r}")
            left = until - time.monotonic()
            if left <= 0 or self.session.stopping.is_set():
                return
            await self.session.pause(min(left, ECHO_INTERVAL))


class Arrival(Client):
    kind = "arrival"
    used = 0.0

    async def turn(self) -> None:
        await self.work(self.session.random.choice(("GET", "POST")))


async def open_loop(session: Session) -> None:
    """Requests at a fixed rate, however slow the answers: each takes a pooled connection or opens a new one."""
    pool: list[Arrival] = []

    async def arrive(intended: float) -> None:
        client = pool.pop() if pool else Arrival(session)
        if intended - client.used > POOL_IDLE_LIMIT:
            client.drop()
        await client.attempt(intended)
        client.used = time.monotonic()
        pool.append(client)

    due = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while not session.stopping.is_set():
            due += 1 / session.mix.arrivals
            await session.pause(max(0.0, due - time.monotonic()))
            if not session.stopping.is_set():
                group.create_task(arrive(due))
    for client in pool:
        client.drop()
