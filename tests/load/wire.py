"""One HTTP/1.1 client connection on a bare socket: what an HTTP library would smooth over stays visible."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


class Anomaly(Exception):
    """A request went wrong: its class (see Report.by_class) and what was seen."""

    def __init__(self, cls: str, detail: str) -> None:
        super().__init__(f"{cls}: {detail}")
        self.cls, self.detail = cls, detail


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes: a resolved address, the Host header, a path prefix."""

    family: int
    address: tuple[object, ...]
    host: str
    prefix: str
    tls: bool = False

    @classmethod
    def parse(cls, url: str, host: str = "") -> Target:
        """`http[s]://host[:port][/prefix]`; `host` replaces the Host header. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http:// or https:// URL: {url}")
        tls = parts.scheme == "https"
        found = socket.getaddrinfo(parts.hostname, parts.port or (443 if tls else 80), type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return cls(family, address, host or parts.netloc, parts.path.rstrip("/"), tls)

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """A request head, and the body if it is to go out in the same write."""
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields (lower-case names) of a response."""

    status: int
    fields: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes) -> Head:
        first, *rest = data.decode("latin-1").split("\r\n")
        protocol, _, status = first.partition(" ")
        if not protocol.startswith("HTTP/1.") or not status[:3].isdigit():
            raise Anomaly("malformed", f"response head {data[:80]!r}")
        fields = (line.partition(":") for line in rest)
        return cls(int(status[:3]), {name.lower(): value.strip() for name, _, value in fields})


class Connection:
    """A socket, how many responses it has brought, and the last X-Version seen on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.loop = sock, asyncio.get_running_loop()
        self.buffer = b""
        self.responses = 0
        self.version = ""
        self.kept = True

    @classmethod
    async def open(cls, target: Target, timeout: float) -> Connection:
        """Raises Anomaly: refused, connect_timeout, connect_error."""
        sock = socket.socket(target.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, target.address)
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise Anomaly("connect_timeout", f"no connection within {timeout:g} s") from None
            if isinstance(error, ConnectionRefusedError):
                raise Anomaly("refused", "connection refused") from None
            if isinstance(error, OSError):
                raise Anomaly("connect_error", str(error)) from None
            raise
        return cls(sock)

    def close(self) -> None:
        self.sock.close()

    def is_closed(self) -> bool:
        """Whether the server has closed while nothing was asked. Raises Anomaly if it said something instead."""
        try:
            data = self.buffer or self.sock.recv(80, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if data:
            raise Anomaly("unexpected_bytes", f"nothing was asked, got {data[:80]!r}")
        return True

    async def send(self, data: bytes) -> None:
        """A failure to write is told by the read that follows: the server may have answered before it closed."""
        try:
            await self.loop.sock_sendall(self.sock, data)
        except OSError:
            self.kept = False

    async def _fill(self) -> str:
        """Read more into the buffer; the reason if there is no more."""
        try:
            data = await self.loop.sock_recv(self.sock, 65536)
        except OSError as error:
            return error.strerror or str(error)
        self.buffer += data
        return "" if data else "end of stream"

    async def head(self) -> Head:
        """The next response head. Raises Anomaly: stale_reset, fresh_reset, truncated, malformed."""
        while b"\r\n\r\n" not in self.buffer:
            lost = await self._fill()
            if not lost:
                continue
            if self.buffer:
                raise Anomaly("truncated", f"{lost} within the response head {self.buffer[:80]!r}")
            if self.responses:
                raise Anomaly("stale_reset", f"{lost} before any response byte, after {self.responses} responses")
            raise Anomaly("fresh_reset", f"{lost} before any response byte on a new connection")
        data, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        head = Head.parse(data)
        if head.status == 100:
            return await self.head()
        self.responses += 1
        self.version = head.fields.get("x-version", "")
        if head.fields.get("connection", "").lower() == "close":
            self.kept = False
        return head

    async def body(self, head: Head) -> bytes:
        """The whole body that `head` announced. Raises Anomaly: truncated, malformed."""
        if head.fields.get("transfer-encoding", "").lower() == "chunked":
            return b"".join([chunk async for chunk in self._chunks()])
        if "content-length" in head.fields:
            return await self._take(int(head.fields["content-length"]))
        self.kept = False
        while True:
            lost = await self._fill()
            if lost == "end of stream":
                return self.buffer
            if lost:
                raise Anomaly("truncated", lost)

    async def _take(self, length: int) -> bytes:
        while len(self.buffer) < length:
            lost = await self._fill()
            if lost:
                raise Anomaly("truncated", f"{lost} after {len(self.buffer)} of {length} bytes")
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            while b"\r\n" not in self.buffer:
                lost = await self._fill()
                if lost:
                    raise Anomaly("truncated", f"{lost} between chunks")
            size, _, self.buffer = self.buffer.partition(b"\r\n")
            try:
                length = int(size, 16)
            except ValueError:
                raise Anomaly("malformed", f"chunk size {size[:20]!r}") from None
            chunk = await self._take(length + 2)
            if not length:
                return
            yield chunk[:-2]

    async def receive(self) -> bytes:
        """Whatever comes next on an upgraded connection. Raises Anomaly: upgrade_cut."""
        if not self.buffer:
            lost = await self._fill()
            if lost:
                raise Anomaly("upgrade_cut", lost)
        data, self.buffer = self.buffer, b""
        return data
