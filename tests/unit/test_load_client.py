"""The load client sees every fault, and none where there is none."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import struct
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.load import Mix, Report
from tests.load.clients import Session
from tests.load.report import Tally
from tests.load.wire import Target

Handler = Callable[[Reader, Writer], Awaitable[None]]


def quick(**fields: Any) -> Mix:
    """A mix next door to the server, for faults in which distance plays no part."""
    return Mix(rtt=0.0, handler_ms=(0,), **fields)


def drive(handler: Handler, mix: Mix, total: int = 1, failed: int = 1000) -> Report:
    """The report of a load on a server made of `handler`, stopped when `total` requests have been counted, or `failed`
    that have failed."""

    async def scenario() -> Report:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            return await load(server.sockets[0].getsockname()[1], mix, total, failed)

    return asyncio.run(scenario())


async def load(port: int, mix: Mix, total: int, failed: int = 1000) -> Report:
    session = Session(Target.parse(f"http://127.0.0.1:{port}"), mix, Tally())
    tally = session.tally
    tally.changed = lambda: session.stop() if tally.total >= total or tally.failed >= failed else None
    await session.run()
    return session.tally.report()


async def read_request(reader: Reader) -> tuple[str, bytes]:
    """Target and body of the next request. Raises EOFError at the end of the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"Content-Length: (\d+)", head)
    return head.split(" ")[1], await reader.readexactly(int(length[1])) if length else b""


def result(target: str, body: bytes) -> bytes:
    """What the test application would answer."""
    serial = target.rpartition("id=")[2]
    return json.dumps({"id": serial, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}).encode()


def response(body: bytes, status: str = "200 OK", fields: str = "X-Version: 7\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def reset(writer: Writer) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def answering(*answers: Callable[[str, bytes], bytes]) -> Handler:
    """A server that gives each connection these answers, one a request, and then closes it."""

    async def handler(reader: Reader, writer: Writer) -> None:
        try:
            for answer in answers:
                writer.write(answer(*await read_request(reader)))
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    return handler


def good(target: str, body: bytes) -> bytes:
    return response(result(target, body))


def only(report: Report, cls: str, kind: str) -> None:
    """The report holds failures of this class and kind, and no others."""
    assert set(report.by_class) == {cls}, report.describe()
    assert report.by_kind[kind][cls] == report.failed > 0
    assert report.total == report.ok + report.failed
    assert {(failure.cls, failure.kind) for failure in report.failures} == {(cls, kind)}
    assert cls in report.describe()


def drop(reader: Reader, writer: Writer) -> None:
    writer.close()


@pytest.mark.parametrize("end", [drop, lambda _, writer: reset(writer)], ids=["closed", "reset"])
def test_a_post_that_is_read_and_dropped_is_a_fresh_reset(end: Callable[[Reader, Writer], None]) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        end(reader, writer)

    only(drive(handler, quick(fresh=1)), "fresh_reset", "fresh")
    only(drive(handler, quick(preconnected=1, preconnected_seconds=0.01)), "fresh_reset", "preconnected")


@pytest.mark.parametrize("end", [drop, lambda _, writer: reset(writer)], ids=["closed", "reset"])
@pytest.mark.parametrize("kind", ["get", "post", "think", "arrival"])
def test_a_request_lost_on_a_reused_connection_is_a_stale_reset(
    kind: str, end: Callable[[Reader, Writer], None]
) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        writer.write(good(*await read_request(reader)))
        await read_request(reader)
        end(reader, writer)

    mixes = {
        "get": quick(get=1),
        "post": quick(post=1),
        "think": quick(think=1, think_seconds=0.01),
        "arrival": quick(arrivals=50),
    }
    # not after two: an arrival for which no connection is free opens its own, and that is none that is used again
    report = drive(handler, mixes[kind], total=500, failed=1)
    only(report, "stale_reset", kind)
    assert report.failures[0].version == "7"


def test_a_close_that_crosses_the_request_on_its_way_is_a_stale_reset() -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        writer.write(good(*await read_request(reader)))
        await asyncio.sleep(0.02)
        writer.close()

    only(drive(handler, Mix(post=1, rtt=0.2, handler_ms=(0,)), total=2), "stale_reset", "post")


def test_a_close_seen_before_the_request_is_an_idle_close_and_no_failure() -> None:
    report = drive(answering(good), quick(post=1), total=5)
    assert report.failed == 0, report.describe()
    assert (report.total, report.idle_closes, report.connections) == (5, 4, 5)


def test_an_announced_close_is_neither() -> None:
    def closing(target: str, body: bytes) -> bytes:
        return response(result(target, body), fields="Connection: close\r\n")

    report = drive(answering(closing), quick(post=1), total=5)
    assert (report.ok, report.failed, report.idle_closes, report.connections) == (5, 0, 0, 5), report.describe()


def test_bytes_that_nobody_asked_for_are_an_anomaly() -> None:
    def twice(target: str, body: bytes) -> bytes:
        return good(target, body) + response(b"", "408 Request Timeout")

    only(drive(answering(twice), quick(get=1), total=2), "unexpected_bytes", "get")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        CHUNKED + b"5\r\nab",
        CHUNKED + b"2\r\nab\r\n",
    ],
    ids=["in the head", "in the body", "in a chunk", "between chunks"],
)
def test_a_response_that_ends_too_early_is_truncated(answer: bytes) -> None:
    only(drive(answering(lambda *_: answer), quick(post=1)), "truncated", "post")


@pytest.mark.parametrize("answer", [b"HELLO\r\n\r\n", CHUNKED + b"xyz\r\n"], ids=["head", "chunk size"])
def test_what_is_not_http_is_malformed(answer: bytes) -> None:
    only(drive(answering(lambda *_: answer), quick(get=1)), "malformed", "get")


@pytest.mark.parametrize("status", [404, 500, 502, 503])
def test_every_bad_status_is_a_class_of_its_own(status: int) -> None:
    report = drive(answering(lambda *_: response(b"sorry", f"{status} X")), quick(post=1))
    only(report, f"http_{status}", "post")
    assert report.by_version == {"7": 1}
    assert (report.failures[0].version, "sorry" in report.failures[0].detail) == ("7", True)


def test_a_bad_status_on_a_kept_connection_costs_no_other_request() -> None:
    report = drive(answering(lambda *_: response(b"", "502 X"), good, good), quick(post=1), total=3)
    assert (report.ok, report.by_class, report.connections) == (2, {"http_502": 1}, 1)


def test_nobody_listening_is_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        only(asyncio.run(load(unused.getsockname()[1], quick(fresh=1), 1)), "refused", "fresh")


def test_a_server_that_accepts_nobody_is_a_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):
            report = asyncio.run(load(address[1], quick(preconnected=1, connect_timeout=0.1), 1))
    only(report, "connect_timeout", "preconnected")


@pytest.mark.parametrize(
    "answer",
    [
        lambda target, body: response(result(target, body + b"?")),
        lambda target, body: response(result("/work?id=another", body)),
        lambda target, body: response(b"<h1>Welcome to nginx!</h1>"),
        lambda target, body: response(b"[]"),
    ],
    ids=["another body", "another request", "another page", "another type"],
)
def test_an_answer_to_something_else_is_a_wrong_body(answer: Callable[[str, bytes], bytes]) -> None:
    only(drive(answering(answer), quick(post=1)), "wrong_body", "post")


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await reader.read()
        writer.close()

    only(drive(handler, quick(get=1, timeout=0.1)), "timeout", "get")


@pytest.mark.parametrize(
    "rest",
    [b"", b"6\r\nchunk \r\n", b"6\r\nchunk \r\n0\r\n\r\n", b"10\r\nchunk sha256 00\n\n\r\n0\r\n\r\n"],
    ids=["cut at once", "cut later", "ended without its checksum", "wrong checksum"],
)
def test_a_stream_without_its_end_is_cut(rest: bytes) -> None:
    mix = quick(streams=1, stream_seconds=0.05)
    only(drive(answering(lambda *_: CHUNKED + rest), mix), "stream_cut", "stream")


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nX-Version: 7\r\n\r\n"


@pytest.mark.parametrize("end", [drop, lambda _, writer: reset(writer)], ids=["closed", "reset"])
def test_an_upgraded_connection_that_the_server_ends_is_cut(end: Callable[[Reader, Writer], None]) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCHING)
        writer.write(await reader.readexactly(32))
        end(reader, writer)

    report = drive(handler, quick(upgrades=1, upgrade_seconds=1000.0))
    only(report, "upgrade_cut", "upgrade")
    assert report.failures[0].version == "7"


def test_a_wrong_echo_is_a_wrong_body() -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCHING)
        writer.write((await reader.readexactly(32))[::-1])
        await reader.read()
        writer.close()

    only(drive(handler, quick(upgrades=1)), "wrong_body", "upgrade")


def test_an_upgrade_that_is_refused_has_the_class_of_its_status() -> None:
    only(drive(answering(lambda *_: response(b"", "502 X")), quick(upgrades=1)), "http_502", "upgrade")


@pytest.mark.parametrize("end", [drop, lambda _, writer: reset(writer)], ids=["closed", "reset"])
def test_an_upload_that_loses_its_connection_has_failed(end: Callable[[Reader, Writer], None]) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await reader.readexactly(32768)
        end(reader, writer)

    only(drive(handler, quick(uploads=1, upload_seconds=0.05)), "upload_failed", "upload")


def test_an_upload_that_is_answered_too_early_has_the_class_of_the_answer() -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"", "413 X"))
        await reader.read()
        writer.close()

    only(drive(handler, quick(uploads=1, upload_seconds=0.05)), "http_413", "upload")


def test_an_open_loop_sends_without_waiting_for_answers() -> None:
    waiting: list[Writer] = []
    together = asyncio.Event()

    async def handler(reader: Reader, writer: Writer) -> None:
        request = await read_request(reader)
        waiting.append(writer)
        if len(waiting) == 10:
            together.set()
        await together.wait()
        writer.write(good(*request))
        writer.close()

    report = drive(handler, quick(arrivals=200), total=10)
    assert report.failed == 0, report.describe()
    assert report.ok >= 10


def test_an_open_loop_counts_latency_from_the_intended_arrival() -> None:
    stalls = iter([0.4])

    async def handler(reader: Reader, writer: Writer) -> None:
        request = await read_request(reader)
        # The server and the client share this loop: a stall of both is what a client's own clock would not show.
        time.sleep(next(stalls, 0.0))
        writer.write(good(*request))
        writer.close()

    report = drive(handler, quick(arrivals=100), total=40)
    assert report.failed == 0, report.describe()
    assert report.p50 > 0.1


def test_every_failure_is_counted_and_the_first_ones_are_kept() -> None:
    tally = Tally()
    before = time.monotonic()
    for _ in range(300):
        tally.fail("think", "stale_reset", "7", "end of stream")
    report = tally.report()
    assert (report.failed, report.by_class, len(report.failures)) == (300, {"stale_reset": 300}, 200)
    assert before <= report.failures[0].monotonic <= time.monotonic()
    assert abs(report.failures[0].wall - time.time()) < 60
    assert Report.from_json(report.to_json()) == report
    assert "stale_reset 300 (think 300)" in report.describe()
    assert "and 280 more" in report.describe()


def test_a_mix_is_its_name_or_its_fields() -> None:
    assert Mix.parse("standard") == Mix.standard()
    assert Mix.parse(Mix.light().to_json()) == Mix.light()
    with pytest.raises(ValueError, match="gets"):
        Mix.parse('{"gets": 1}')
    with pytest.raises(ValueError, match="ftp"):
        Target.parse("ftp://example.org")
