"""A web application in a few lines: `/` says its version, `/healthz` that it is well."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ.get("VERSION", "0")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    timeout = 60  # seconds an idle connection is kept; longer than the proxy keeps it (x-rollout.keepalive_timeout)

    def do_GET(self) -> None:
        body = b"ok\n" if self.path == "/healthz" else f"version {VERSION}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if os.environ.get("CRASH_AT_START"):
        sys.exit(os.environ["CRASH_AT_START"])
    # As process 1 of a container it would ignore SIGTERM. It may exit at once: rollout has drained it before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
