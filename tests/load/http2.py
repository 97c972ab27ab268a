"""One HTTP/2 client connection over TLS, with several requests at once. Retries nothing by itself, but tells what was
lost from what the server says it never began (RFC 9113, 6.8 and 8.7): that is safe to send again, and clients do."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
from h2.exceptions import ProtocolError

from tests.load.tls import context
from tests.load.wire import Anomaly, Target

_GOAWAY = 7
_HEAD = 9  # bytes before a frame's payload


class NotBegun(Exception):
    """The server refused the request, or went away before it: it was never looked at."""


@dataclass(slots=True)
class Stream:
    done: asyncio.Future[None]
    status: int = 0
    version: str = ""
    body: bytearray = field(default_factory=bytearray)


class Http2Connection:
    """`leaving`: the server takes no more requests on it; those it has it finishes."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target, self._reader, self._writer = target, reader, writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._streams: dict[int, Stream] = {}
        self._buffer = b""
        self.leaving = False
        self._h2.initiate_connection()
        self._flush()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, target: Target, timeout: float) -> Http2Connection:
        """Raises Anomaly: connect_timeout, connect_error."""
        host, port = str(target.address[0]), int(str(target.address[1]))
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(host, port, ssl=context("h2"))
        except TimeoutError:
            raise Anomaly("connect_timeout", f"no connection within {timeout:g} s") from None
        except OSError as error:
            raise Anomaly("connect_error", str(error)) from None
        return cls(target, reader, writer)

    async def request(self, method: str, path: str, body: bytes, *, rtt: float, pause: float = 0.0) -> Stream:
        """One request to its end; half of the body `pause` seconds after the other. Raises NotBegun, Anomaly."""
        if self.leaving:
            raise NotBegun
        number = self._h2.get_next_available_stream_id()
        stream = self._streams[number] = Stream(asyncio.get_running_loop().create_future())
        head = [(":method", method), (":path", path), (":scheme", "https"), (":authority", self._target.host)]
        self._h2.send_headers(number, head, end_stream=not body)
        frames = self._h2.data_to_send()
        try:
            if rtt:  # what the server does meanwhile is not known when it is sent
                await asyncio.sleep(rtt)
            self._writer.write(frames)
            for index, part in enumerate((body[: len(body) // 2], body[len(body) // 2 :]) if body else ()):
                if index and pause:
                    await asyncio.wait([stream.done], timeout=pause)
                if not stream.done.done():
                    self._h2.send_data(number, part, end_stream=bool(index))
                    self._flush()
            await stream.done
        finally:
            stream.done.cancel()  # whatever ended it: nobody asks again
            self._streams.pop(number, None)
        return stream

    def close(self) -> None:
        self._task.cancel()
        self._writer.transport.abort()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)

    async def _read(self) -> None:
        lost = "end of stream"
        try:
            while data := await self._reader.read(65536):
                self._buffer += data
                for frame in self._frames():
                    for event in self._h2.receive_data(frame):
                        self._met(event)
                self._flush()
        except (OSError, ProtocolError) as error:
            lost = f"{type(error).__name__}: {error}"
        self.leaving = True
        for number in list(self._streams):
            self._fail(number, Anomaly("http2_lost", f"{lost}, and the request had perhaps been begun"))

    def _frames(self) -> list[bytes]:
        """Complete frames. GOAWAY is looked at here: h2 would take no frame of the streams that are still under way."""
        found = []
        while len(self._buffer) >= _HEAD and len(self._buffer) >= (size := _HEAD + int.from_bytes(self._buffer[:3])):
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            if frame[3] == _GOAWAY:
                self._go(int.from_bytes(frame[_HEAD : _HEAD + 4]) & 0x7FFFFFFF)
            else:
                found.append(frame)
        return found

    def _go(self, last: int) -> None:
        self.leaving = True
        for number in [number for number in self._streams if number > last]:
            self._fail(number, NotBegun())

    def _met(self, event: h2.events.Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        if stream is None or stream.done.done():
            return
        if isinstance(event, h2.events.ResponseReceived):
            fields = dict(event.headers)
            stream.status, stream.version = int(fields[b":status"]), fields.get(b"x-version", b"").decode()
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            stream.done.set_result(None)
        elif isinstance(event, h2.events.StreamReset):
            refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
            self._fail(event.stream_id, NotBegun() if refused else Anomaly("http2_reset", f"{event.error_code!r}"))

    def _fail(self, number: int, why: Exception) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            self._streams[number].done.set_exception(why)
