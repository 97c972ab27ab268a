"""Who is at the other end of a connection, as the kernel or TLS knows it."""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from dataclasses import dataclass

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 256  # at once, at each place
REQUEST = 10.0  # seconds in which the head of a request has to come: the first, and each after an answer
UNREAD = 60.0  # seconds in which a client has to read anything of what waits for it
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
    """HTTP/1.1 whose requests carry their `peer` in the scope's state. Who asks for nothing, or reads nothing, is not
    waited for: uvicorn bounds requests, not connections, and each is an open file of the process that follows the
    replicas. How long an answer takes is not bounded."""

    _timer: asyncio.TimerHandle | None = None
    _unread = 0  # bytes that waited for the client when it was last looked at, if it was its turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it too
        self.app_state = {**self.app_state, "peer": _peer(transport)}
        if len(self.connections) > CONNECTIONS:
            self.transport.abort()
        else:
            self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look_later()  # uvicorn's own timer ends with the first byte of a head

    def pause_writing(self) -> None:
        self._unread = 0  # what waited then is not what waits now
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread = 0  # it reads
        super().resume_writing()

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._unread = self._waiting() if self._clients_turn() else 0
        self._timer = self.loop.call_later(UNREAD if self._unread else REQUEST, self._look)

    def _look(self) -> None:
        unread = self._waiting()
        if self._clients_turn():
            if not unread:
                if not self.transport.is_closing():
                    self.transport.close()
            elif 0 < self._unread <= unread:
                self.transport.abort()  # closing would wait for it to read
        self._look_later()

    def _waiting(self) -> int:
        try:
            return self.transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport, once it was closed twice
            return 0

    def _clients_turn(self) -> bool:
        """Whether no answer is being made, or none goes on before the client reads."""
        asked: object = self.cycle  # uvicorn says that it is never None, and it is until there is a request
        answered = asked is None or self.cycle.response_complete
        return answered or self.flow.write_paused or self.transport.is_closing()


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
