"""The SDK's transport over a local socket, with two things mended.

It leaves a socket open each time nobody answers, which happens again and again while an engine restarts; and it keeps
connections by the request's URL, so that hardly any is ever used twice.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from docker.transport import unixconn

ENGINE = "http+docker://localhost"


class _Connection(unixconn.UnixHTTPConnection):
    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_socket)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _Pool(unixconn.UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        return _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]  # seconds, in this pool


class UnixAdapter(unixconn.UnixHTTPAdapter):
    """To be mounted for `http+docker://` in place of the SDK's."""

    def get_connection(self, url: Any, proxies: Mapping[str, str] | None = None) -> Any:  # noqa: ARG002  # one engine, one pool
        with self.pools.lock:
            if ENGINE not in self.pools:
                self.pools[ENGINE] = _Pool(ENGINE, self.socket_path, self.timeout, maxsize=self.max_pool_size)
            return self.pools[ENGINE]
