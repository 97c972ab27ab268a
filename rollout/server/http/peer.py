"""Who is at the other end of a connection, as the kernel or TLS knows it."""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from dataclasses import dataclass

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 256  # at once, at each place
FIRST_REQUEST = 10.0  # seconds in which the head of a connection's first request has to come
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """`name` is the user of the process behind a UNIX socket, or the subject of the client's certificate; empty when
    nobody has proved anything. `address` is what limits are counted by."""

    unix: bool = False
    name: str = ""
    address: str = ""
    encrypted: bool = False


class PeerProtocol(H11Protocol):
    """HTTP/1.1 whose requests carry their `peer` in the scope's state. Who connects and says nothing is not waited for:
    uvicorn bounds requests, not connections, and each is an open file of the process that follows the replicas."""

    _first: asyncio.TimerHandle | None = None  # ends a connection that has asked for nothing by then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it too
        self.app_state = {**self.app_state, "peer": _peer(transport)}
        if len(self.connections) > CONNECTIONS:
            self.transport.abort()
        else:
            self._first = self.loop.call_later(FIRST_REQUEST, self._close_unless_asked)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._first is not None:
            self._first.cancel()
        super().connection_lost(exc)

    def _close_unless_asked(self) -> None:
        asked: object = self.cycle  # uvicorn says that it is never None, and it is until there is a request
        if asked is None and not self.transport.is_closing():
            self.transport.abort()


def _peer(transport: asyncio.BaseTransport) -> Peer:
    plain = transport.get_extra_info("socket")
    if plain is not None and plain.family == socket.AF_UNIX:
        _, uid, _ = _CREDENTIALS.unpack(plain.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer(unix=True, name=_user(uid), address="unix")
    certificate = transport.get_extra_info("peercert") or {}
    address = str((transport.get_extra_info("peername") or ("",))[0])
    encrypted = transport.get_extra_info("sslcontext") is not None
    return Peer(name=_subject(certificate), address=address, encrypted=encrypted)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _subject(certificate: dict[str, object]) -> str:
    """The common name; a certificate without one was still signed by the client CA."""
    if not certificate:
        return ""
    parts = certificate.get("subject")
    names = (
        [value for group in parts for key, value in group if key == "commonName"] if isinstance(parts, tuple) else []
    )
    return str(names[0]) if names else "certificate"
