"""One HTTP probe with a limit on all of it together. Importing this module imports `requests`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import requests
import urllib3.connection
import urllib3.connectionpool
from requests.adapters import HTTPAdapter

from rollout.ports import Clock

BODY_LIMIT = 65536  # bytes; a health answer is shorter, and nobody looks at it


def status(url: str, headers: Mapping[str, str], timeout: float, clock: Clock) -> int:
    """The status of GET `url`, redirects not followed. `timeout` seconds for connecting, answer and body together.

    The environment (proxies, netrc) is not heeded. Raises TimeoutError, OSError, requests.RequestException,
    urllib3's HTTPError; ValueError for an answer with numbers that are none.
    """
    deadline = clock.now() + timeout
    with _Session() as session:
        session.trust_env = False
        session.mount("http://", _Adapter(deadline, clock))
        # a fresh connection each time: a kept one would prove that an old worker of the app is alive
        session.headers.update({"User-Agent": "rollout", "Accept-Encoding": "identity", "Connection": "close"})
        with session.get(url, headers=dict(headers), timeout=timeout, allow_redirects=False, stream=True) as response:
            _read_body(response)
            return response.status_code


def _read_body(response: requests.Response) -> None:
    left = BODY_LIMIT
    while left > 0 and (chunk := response.raw.read(min(left, 8192), decode_content=False)):
        left -= len(chunk)


class _Session(requests.Session):
    """Looks at no redirect: what `Location` says need not be an address at all."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        return None


class _BoundedSocket(socket.socket):
    """Gives up at the deadline however slowly the bytes trickle in; a socket's own timeout begins anew at each one."""

    def __init__(self, plain: socket.socket, deadline: float, clock: Clock) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._deadline = deadline
        self._clock = clock

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self._deadline - self._clock.now()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(*args, **kwargs)


class _Adapter(HTTPAdapter):
    """Makes requests connect with bounded sockets."""

    def __init__(self, deadline: float, clock: Clock) -> None:
        class Connection(urllib3.connection.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                assert self.sock is not None
                self.sock = _BoundedSocket(self.sock, deadline, clock)

        class ConnectionPool(urllib3.connectionpool.HTTPConnectionPool):
            ConnectionCls = Connection

        super().__init__(max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": ConnectionPool}
