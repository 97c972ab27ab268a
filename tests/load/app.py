"""The application that the end-to-end tests deploy: one HTTP/1.1 server in one file, standard library only.

It has its own small event loop instead of asyncio, whose import alone costs more than 40 ms of boot time.

Behaviour comes from environment variables; what is not set is off.

| variable         | default | meaning |
|------------------|---------|---------|
| PORT             | 8000    | port to listen on; 0 takes a free one (the first line on stdout says which) |
| VERSION          | 0       | reported in the header `X-Version` and in every JSON body |
| ON_TERM          | exit    | on SIGTERM: `exit` at once; `ignore`; `graceful` (take nothing new, finish, exit); |
|                  |         | `delay:SECONDS` (serve on as if nothing had happened, then exit at once) |
| BOOT_DELAY       | 0       | seconds before it binds |
| HEALTH           | ok      | /healthz answers 200; `fail`: 503; `fail-after:SECONDS`: first 200, then 503; |
|                  |         | `flap`: 200 and 503 in turn |
| EXIT_AFTER       |         | seconds after binding at which the process dies with status 1 |
| CRASH_AT_START   |         | if set: exit status 1 before binding; a value other than `1` is the last line on stderr |
| KEEPALIVE        | 5       | seconds an idle connection is kept; 0 closes after each response, announced |
| CLOSE_EARLY      |         | close a connection after this many responses, without announcing it |
| ACCEPT_ONLY      |         | if set: accept connections, never answer |
| WORK_STATUS      | 200     | status of everything but /healthz and /stats (a sick app with a healthy probe) |
| TERM_LOG         |         | file to which the SIGTERM line is appended as well |
| LOG_REQUESTS     |         | file to which begin and end of each request are appended (JSON, CLOCK_MONOTONIC) |

Endpoints: GET /healthz, GET /stats, GET|POST /work?ms=N&id=X and /upload (answer length and SHA-256 of the body),
GET /stream?seconds=N&chunks=M (the last chunk is a checksum of the others), GET /upgrade (101, then an echo).

On SIGTERM the first thing it does is to write `{"event":"sigterm","in_flight":N,"begun":B,"ended":E,...}` to
stdout: N = B - E requests would be lost if it died now. Requests that have arrived in a socket buffer or in the accept
queue without having been read are in flight too. Probes (/healthz, /stats) are counted nowhere.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping

PROBES = ("/healthz", "/stats")
BODY_TIMEOUT = 60.0
FOREVER = float("inf")
REASONS = {
    101: "Switching Protocols",
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Settings:
    """The environment variables of the table above, parsed. Raises ValueError for a value that makes no sense."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.port = int(env.get("PORT") or 8000)
        self.version = env.get("VERSION") or "0"
        self.on_term, _, delay = (env.get("ON_TERM") or "exit").partition(":")
        self.term_delay = float(delay or 0)
        self.boot_delay = float(env.get("BOOT_DELAY") or 0)
        self.health, _, after = (env.get("HEALTH") or "ok").partition(":")
        self.healthy_for = float(after or 0)
        self.exit_after = float(env.get("EXIT_AFTER") or 0)
        self.crash = env.get("CRASH_AT_START") or ""
        self.keepalive = float(env.get("KEEPALIVE") or 5)
        self.close_early = int(env.get("CLOSE_EARLY") or 0)
        self.accept_only = bool(env.get("ACCEPT_ONLY"))
        self.work_status = int(env.get("WORK_STATUS") or 200)
        self.term_log = env.get("TERM_LOG") or ""
        self.log_requests = env.get("LOG_REQUESTS") or ""
        if self.on_term not in ("exit", "ignore", "graceful", "delay"):
            raise ValueError(f"ON_TERM={env['ON_TERM']}")
        if self.health not in ("ok", "fail", "fail-after", "flap"):
            raise ValueError(f"HEALTH={env['HEALTH']}")


class Wait:
    """Awaitable: until `fd` is ready for `mask` (True) or `seconds` have passed (False). fd -1 is a plain sleep."""

    __slots__ = ("fd", "mask", "seconds")

    def __init__(self, fd: int, mask: int, seconds: float) -> None:
        self.fd, self.mask, self.seconds = fd, mask, seconds

    def __await__(self) -> Generator[Wait, bool, bool]:
        return (yield self)


class Task:
    """A suspended coroutine: the descriptor it waits for (-1: none), the number of that wait to tell stale timers."""

    __slots__ = ("coroutine", "fd", "wait")

    def __init__(self, coroutine: Coroutine[Wait, bool | None, None]) -> None:
        self.coroutine, self.fd, self.wait = coroutine, -1, 0


class Loop:
    """Runs coroutines that await `Wait`. SIGTERM is handled between two steps, when the counts are consistent."""

    def __init__(self, on_term: Callable[[], None]) -> None:
        self.epoll = select.epoll()
        self.ready: deque[tuple[Task, bool | None]] = deque()
        self.timers: list[tuple[float, int, Task, int]] = []
        self.waiting: dict[int, Task] = {}
        self.registered: set[int] = set()
        self.serial = 0
        self.on_term, self.terminated = on_term, False
        self.wakeup, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        self.epoll.register(self.wakeup, select.EPOLLIN)
        signal.signal(signal.SIGTERM, self.term)

    def term(self, *_: object) -> None:
        self.terminated = True

    def spawn(self, coroutine: Coroutine[Wait, bool | None, None]) -> None:
        self.ready.append((Task(coroutine), None))

    def forget(self, fd: int) -> None:
        """To be called before `fd` is closed: its number may come back as another connection."""
        self.waiting.pop(fd, None)
        self.registered.discard(fd)

    def run(self) -> None:
        while True:
            if self.terminated:
                self.terminated = False
                self.on_term()
            if self.ready:
                self.step(*self.ready.popleft())
            else:
                self.poll()

    def step(self, task: Task, value: bool | None) -> None:
        try:
            wait = task.coroutine.send(value)
        except StopIteration:
            return
        task.wait += 1
        task.fd = wait.fd
        if wait.fd >= 0:
            change = self.epoll.modify if wait.fd in self.registered else self.epoll.register
            change(wait.fd, wait.mask | select.EPOLLONESHOT)
            self.registered.add(wait.fd)
            self.waiting[wait.fd] = task
        if wait.seconds != FOREVER:
            self.serial += 1
            heapq.heappush(self.timers, (time.monotonic() + wait.seconds, self.serial, task, task.wait))

    def resume(self, task: Task, value: bool) -> None:
        self.waiting.pop(task.fd, None)
        task.wait += 1
        self.ready.append((task, value))

    def poll(self) -> None:
        timeout = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else -1
        for fd, _ in self.epoll.poll(timeout):
            if fd == self.wakeup:
                os.read(fd, 64)
            elif fd in self.waiting:
                self.resume(self.waiting[fd], True)
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            _, _, task, wait = heapq.heappop(self.timers)
            if task.wait == wait:
                self.resume(task, False)


class Request:
    """One request, body included."""

    __slots__ = ("body", "headers", "method", "path", "query")

    def __init__(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.method, target, _ = lines[0].split(" ")
        self.path, _, query = target.partition("?")
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&"))
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.body = b""

    def number(self, name: str, default: float) -> float:
        return float(self.query.get(name) or default)


class Connection:
    """A client's socket with its read buffer. Reads answer None at the end of the stream or when time is up."""

    __slots__ = ("buffer", "responses", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer, self.responses = sock, b"", 0

    async def fill(self, timeout: float) -> bool:
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                if not await Wait(self.sock.fileno(), select.EPOLLIN, timeout):
                    return False
            else:
                self.buffer += data
                return bool(data)

    async def head(self, timeout: float) -> bytes | None:
        while b"\r\n\r\n" not in self.buffer:
            if not await self.fill(BODY_TIMEOUT if self.buffer else timeout):
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    async def take(self, length: int) -> bytes | None:
        parts, missing = [self.buffer[:length]], length - len(self.buffer)
        self.buffer = self.buffer[length:]
        while missing > 0:
            if not await self.fill(BODY_TIMEOUT):
                return None
            parts.append(self.buffer[:missing])
            self.buffer = self.buffer[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    async def chunks(self) -> bytes | None:
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                if not await self.fill(BODY_TIMEOUT):
                    return None
            size, _, self.buffer = self.buffer.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            chunk = await self.take(length + 2)
            if chunk is None or not length:
                return None if chunk is None else body
            body += chunk[:-2]

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                if not await Wait(self.sock.fileno(), select.EPOLLOUT, BODY_TIMEOUT):
                    raise TimeoutError("the client does not read") from None

    def has_unread_request(self) -> bool:
        """Whether a request that nobody has counted yet waits in the buffer or in the kernel."""
        try:
            data = self.buffer or self.sock.recv(16, socket.MSG_PEEK)
        except OSError:
            return False
        return bool(data) and not any(path.encode() in data for path in PROBES)


def say(line: dict[str, object], path: str = "") -> None:
    """Append one JSON line to the file, or to stdout; a single write, so that lines of several processes do not mix."""
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    if not path:
        os.write(1, data)
        return
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, data)
    os.close(fd)


class App:
    """The server: accepts, counts, answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.begun = self.ended = self.probes = 0
        self.closing = False
        self.bound_at = 0.0
        self.listener: socket.socket | None = None
        self.idle: set[Connection] = set()
        self.loop = Loop(self.on_term)

    # Life

    async def main(self) -> None:
        settings = self.settings
        if settings.boot_delay:
            await Wait(-1, 0, settings.boot_delay)
        self.listener = socket.create_server(("0.0.0.0", settings.port), backlog=1024)
        self.listener.setblocking(False)
        self.bound_at = time.monotonic()
        port = self.listener.getsockname()[1]
        say({"event": "listening", "port": port, "version": settings.version, "at": self.bound_at})
        if settings.exit_after:
            self.loop.spawn(self.exit(settings.exit_after, 1, "EXIT_AFTER is over"))
        while not self.closing:
            await Wait(self.listener.fileno(), select.EPOLLIN, FOREVER)
            self.spawn_all(self.accept())

    def accept(self) -> list[Connection]:
        accepted: list[Connection] = []
        try:
            while self.listener and len(accepted) < 1024:
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                accepted.append(Connection(sock))
                self.idle.add(accepted[-1])
        except OSError:
            pass
        return accepted

    def spawn_all(self, accepted: list[Connection]) -> None:
        if not self.settings.accept_only:
            for conn in accepted:
                self.loop.spawn(self.serve(conn))

    async def exit(self, seconds: float, status: int, reason: str) -> None:
        await Wait(-1, 0, seconds)
        say({"event": "exit", "status": status, "reason": reason})
        os._exit(status)

    def on_term(self) -> None:
        waiting = self.accept()
        unread = sum(conn.has_unread_request() for conn in self.idle)
        line: dict[str, object] = {
            "event": "sigterm",
            "in_flight": self.begun + unread - self.ended,
            "begun": self.begun + unread,
            "ended": self.ended,
            "version": self.settings.version,
            "host": socket.gethostname(),
            "at": time.monotonic(),
        }
        say(line)
        if self.settings.term_log:
            say(line, self.settings.term_log)
        if self.settings.on_term == "exit":
            os._exit(0)
        self.spawn_all(waiting)
        if self.settings.on_term == "delay":
            self.loop.spawn(self.exit(self.settings.term_delay, 0, "ON_TERM delay is over"))
        if self.settings.on_term == "graceful":
            self.close_gracefully()

    def close_gracefully(self) -> None:
        self.closing = True
        if self.listener:
            self.loop.forget(self.listener.fileno())
            self.listener.close()
            self.listener = None
        for conn in self.idle:
            if not conn.has_unread_request():
                conn.sock.shutdown(socket.SHUT_RDWR)
        self.exit_when_done()

    def exit_when_done(self) -> None:
        if self.closing and not self.idle and self.begun == self.ended:
            os._exit(0)

    # Requests

    async def serve(self, conn: Connection) -> None:
        try:
            while await self.one(conn):
                pass
        except (OSError, ValueError):
            pass
        finally:
            self.idle.discard(conn)
            self.loop.forget(conn.sock.fileno())
            conn.sock.close()
            self.exit_when_done()

    async def one(self, conn: Connection) -> bool:
        """Serve one request; True if the connection is kept."""
        self.idle.add(conn)
        head = await conn.head(self.settings.keepalive or BODY_TIMEOUT)
        if head is None:
            return False
        request = Request(head)
        self.idle.discard(conn)
        if request.path in PROBES:
            return await self.answer_probe(conn, request)
        self.begun += 1
        number, outcome = self.begun, "cut"
        self.log("begin", number, f"{request.method} {request.path}")
        try:
            kept, outcome = await self.answer(conn, request)
        finally:
            self.ended += 1
            self.log("end", number, outcome)
        return kept and not self.closing

    def log(self, event: str, number: int, what: str) -> None:
        if self.settings.log_requests:
            say({"event": event, "at": time.monotonic(), "number": number, "what": what}, self.settings.log_requests)

    async def answer_probe(self, conn: Connection, request: Request) -> bool:
        if request.path == "/stats":
            counts = {"begun": self.begun, "ended": self.ended, "in_flight": self.begun - self.ended}
            return await self.respond(conn, 200, {"version": self.settings.version, **counts})
        self.probes += 1
        up = time.monotonic() - self.bound_at
        sick = {"ok": False, "fail": True, "fail-after": up > self.settings.healthy_for, "flap": self.probes % 2 == 0}
        failed = sick[self.settings.health]
        return await self.respond(conn, 503 if failed else 200, {"health": "failing" if failed else "ok"})

    async def answer(self, conn: Connection, request: Request) -> tuple[bool, str]:
        """Serve a counted request; whether the connection is kept, and the status or `cut` for the log."""
        if request.headers.get("expect", "").lower() == "100-continue":
            await conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            body = await conn.chunks()
        else:
            body = await conn.take(int(request.headers.get("content-length") or 0))
        if body is None:
            return False, "cut"
        request.body = body
        status = self.settings.work_status
        if status != 200:
            return await self.respond(conn, status, {"error": "WORK_STATUS"}), str(status)
        if request.path == "/stream":
            return await self.stream(conn, request), "200"
        if request.path == "/upgrade":
            return await self.upgrade(conn), "101"
        if request.path not in ("/work", "/upload"):
            return await self.respond(conn, 404, {"error": request.path}), "404"
        await Wait(-1, 0, request.number("ms", 0) / 1000)
        digest = hashlib.sha256(request.body).hexdigest()
        result = {"id": request.query.get("id", ""), "length": len(request.body), "sha256": digest}
        return await self.respond(conn, 200, {"version": self.settings.version, **result}), "200"

    def kept(self, conn: Connection) -> bool:
        conn.responses += 1
        return bool(self.settings.keepalive) and not self.closing

    def head(self, status: int, fields: str) -> bytes:
        reason = REASONS.get(status, "Status")
        return f"HTTP/1.1 {status} {reason}\r\nX-Version: {self.settings.version}\r\n{fields}\r\n".encode("latin-1")

    async def respond(self, conn: Connection, status: int, content: Mapping[str, object]) -> bool:
        body = json.dumps(content).encode() + b"\n"
        kept = self.kept(conn)
        closing = "" if kept else "Connection: close\r\n"
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{closing}"
        await conn.send(self.head(status, fields) + body)
        return kept and conn.responses != self.settings.close_early

    async def stream(self, conn: Connection, request: Request) -> bool:
        """M chunks over N seconds, then one with the SHA-256 of all that was sent before it."""
        count = max(1, int(request.number("chunks", 10)))
        pause, digest = request.number("seconds", 1) / count, hashlib.sha256()
        kept = self.kept(conn)
        closing = "" if kept else "Connection: close\r\n"
        await conn.send(self.head(200, f"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n{closing}"))
        for index in range(count):
            data = f"chunk {index + 1} of {count}\n".encode()
            digest.update(data)
            await conn.send(b"%x\r\n%s\r\n" % (len(data), data))
            await Wait(-1, 0, pause)
        last = f"sha256 {digest.hexdigest()}\n".encode()
        await conn.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
        return kept

    async def upgrade(self, conn: Connection) -> bool:
        """101, then every byte comes back until the client closes."""
        await conn.send(self.head(101, "Connection: Upgrade\r\nUpgrade: echo\r\n"))
        while conn.buffer or await conn.fill(FOREVER):
            data, conn.buffer = conn.buffer, b""
            await conn.send(data)
        return False


def main() -> int:
    try:
        settings = Settings(os.environ)
    except ValueError as error:
        print(f"app: bad setting: {error}", file=sys.stderr)
        return 2
    if settings.crash:
        print(f"app: {'cannot start' if settings.crash == '1' else settings.crash}", file=sys.stderr)
        return 1
    app = App(settings)
    app.loop.spawn(app.main())
    app.loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
