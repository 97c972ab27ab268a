"""The load over TLS: each HTTP/1.1 connection of a client is one TLS connection to the server, by way of a relay in the
load's own process; the clients see what a server does to such a connection, and nothing is smoothed over."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import ssl

from tests.load.wire import Target


@functools.cache
def context(*protocols: str) -> ssl.SSLContext:
    """Trusts whoever answers: a test's certificate is its own."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(list(protocols))
    return made


async def relayed(target: Target) -> Target:
    """The same target without TLS: a listener on loopback, for the life of this process."""
    trusting = context("http/1.1")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled with the load
            there = await asyncio.open_connection(str(target.address[0]), int(str(target.address[1])), ssl=trusting)
            try:
                ways = [asyncio.create_task(pump(reader, there[1])), asyncio.create_task(pump(there[0], writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
            finally:
                there[1].transport.abort()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    return dataclasses.replace(target, family=server.sockets[0].family, address=server.sockets[0].getsockname())


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
