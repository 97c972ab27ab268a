"""Where the sidecar is spoken to: always the UNIX socket, and over TCP what was asked for, if it is safe."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import LockHeld, StateError, UsageError

BACKLOG = 64
SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Tcp:
    """What the command line says of TCP. Paths; empty: not given."""

    listen: str = ""  # HOST:PORT; empty: no TCP
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    client_ca: str = ""
    plain: bool = False  # without TLS also beyond this host

    def refuse(self) -> None:
        """Raise UsageError for what is not safe or not complete."""
        given = self.token_file or self.tls_cert or self.tls_key or self.client_ca or self.plain
        if not self.listen:
            if given:
                raise UsageError("nothing listens on TCP", hint="add --listen 127.0.0.1:8088")
            return
        host, _ = self.address()
        if bool(self.tls_cert) != bool(self.tls_key) or (self.client_ca and not self.tls_cert):
            raise UsageError("--tls-cert and --tls-key belong together, and --client-ca needs them")
        if not (self.token_file or self.client_ca):
            raise UsageError(
                "--listen needs to know who may come in", hint="--token-file FILE, or --client-ca FILE with TLS"
            )
        if not (_loopback(host) or self.tls_cert or self.plain):
            raise UsageError(
                f"--listen {self.listen} is reachable from other hosts, and the token would go there in the clear",
                hint="--tls-cert and --tls-key; or --plain-http, where something before it speaks TLS",
            )
        if self.token_file:
            make_token(Path(self.token_file))
            read_tokens(self.token_file)
        self.context()

    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"--listen {self.listen} is not HOST:PORT", hint="like 127.0.0.1:8088 or [::1]:8088")
        return host.strip("[]"), int(port)

    def tokens(self) -> dict[str, bytes]:
        return read_tokens(self.token_file) if self.token_file else {}

    def context(self) -> ssl.SSLContext | None:
        """Raises UsageError for certificates that cannot be used."""
        if not self.tls_cert:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
                # a token will do as well, where there is one
                context.verify_mode = ssl.CERT_OPTIONAL if self.token_file else ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"the TLS files cannot be used: {error}", hint="PEM, the key without a password"
            ) from error
        return context


def make_token(path: Path) -> None:
    """Where there is no such file: one with a new token, for its owner alone. Raises UsageError."""
    try:
        path.parent.mkdir(exist_ok=True)  # the state directory, the first time
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{secrets.token_urlsafe(32)}\n")
    except FileExistsError:
        return
    except OSError as error:
        raise UsageError(f"--token-file {path} cannot be made: {error.strerror or error}") from error


def read_tokens(path: str) -> dict[str, bytes]:
    """Digest of each token by the name of who holds it. One a line: `TOKEN`, or `NAME:TOKEN`. Raises UsageError."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path} cannot be read: {getattr(error, 'strerror', error)}") from error
    found: dict[str, bytes] = {}
    for line in lines:
        name, _, token = line.rpartition(":")
        if len(token) < SHORTEST_TOKEN or not line.isascii() or not line.isprintable() or (name or "token") in found:
            raise UsageError(
                f"--token-file {path}: a token is shorter than {SHORTEST_TOKEN} characters, or a name is there twice",
                hint="one a line, TOKEN or NAME:TOKEN; `openssl rand -hex 32` makes one",
            )
        found[name or "token"] = digest(token)
    if not found:
        raise UsageError(f"--token-file {path} is empty", hint="`openssl rand -hex 32` makes a token")
    return found


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listening, mode 0600, removed at the end. What a killed sidecar left there is replaced. Raises LockHeld,
    StateError."""
    if path.exists() and not path.is_socket():
        raise StateError(f"{path} is in the way: it is not a socket", hint="remove it")
    if _answers(path):
        raise LockHeld(f"another sidecar answers on {path}", hint="one is enough; stop that one first")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f"{path.name}.new")
    try:
        with reached(path.parent) as directory:
            fresh.unlink(missing_ok=True)
            former = os.umask(0o177)
            try:
                sock.bind(f"{directory}/{fresh.name}")
            finally:
                os.umask(former)
        sock.listen(BACKLOG)
        fresh.replace(path)
        yield sock
    except OSError as error:
        raise StateError(f"{path} cannot be listened on: {error.strerror or error}") from error
    finally:
        sock.close()
        with suppress(OSError):
            path.unlink()


@contextmanager
def reached(directory: Path) -> Iterator[str]:
    """A short name of the directory: a socket's path must stay below 108 bytes, a project's may be longer."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def tcp_socket(host: str, port: int) -> socket.socket:
    """Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(found[0], socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(found[4])
        sock.listen(BACKLOG)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}") from error
    return sock


def _answers(path: Path) -> bool:
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
        reached(path.parent) as directory,
    ):
        sock.settimeout(1.0)
        sock.connect(f"{directory}/{path.name}")
        return True
    return False


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
