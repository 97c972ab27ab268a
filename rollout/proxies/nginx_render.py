"""Pools to nginx's files and back: each file begins with a comment that says what it was rendered from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from rollout.errors import ProxyRejected
from rollout.model import Pool
from rollout.proxies.render import Templates, checked_pool

STATUS = "rollout-status.conf"
_HEADER = "# rollout: "


class Renderer:
    """Renders one proxy's files. `listen` and `trusted` are those of the status listener, `port` is its port."""

    def __init__(self, templates: Templates, port: int) -> None:
        self._templates = templates
        self._port = port

    def warm_up(self) -> None:
        self._templates.warm_up()

    def generation(
        self, files: Mapping[str, bytes], pools: Iterable[Pool], listen: str, trusted: list[str]
    ) -> dict[str, bytes]:
        """A complete generation: these pools rendered anew, the other services' files byte for byte.

        Raises ProxyRejected when a template or a name is wrong.
        """
        made = {name: content for name, content in files.items() if name != STATUS}
        for pool in pools:
            made[file_of(pool.service)] = self._service(pool)
        unnamed = self._status("", listen, trusted)
        parts = [part for name in sorted(made) for part in (name.encode(), made[name])]
        digest = sha256(b"\0".join([*parts, unnamed])).hexdigest()[:32]
        made[STATUS] = self._status(digest, listen, trusted)
        return made

    def _service(self, pool: Pool) -> bytes:
        checked_pool(pool)
        values = {
            "service": pool.service,
            "upstreams": pool.upstreams,
            "options": pool.options,
            "idle": _time(pool.options.keepalive_timeout),
            "status_port": self._port,
        }
        names = ["upstream.conf.j2", *(["vhost.conf.j2"] if pool.options.hosts else [])]
        return _file(_known(pool), *(self._templates.render(name, **values) for name in names))

    def _status(self, digest: str, listen: str, trusted: list[str]) -> bytes:
        text = self._templates.render("status.conf.j2", digest=digest, listen=listen, trusted=trusted)
        return _file({"digest": digest}, text)


def file_of(service: str) -> str:
    """The name of a service's file. Raises ProxyRejected when the name is taken."""
    name = f"{service}.conf"
    if name == STATUS:
        raise ProxyRejected(f"a service cannot be named {service}: its file would be rollout's own")
    return name


def digest_of(files: Mapping[str, bytes]) -> str:
    """The digest that a generation answers with once it is live; empty when its files do not say."""
    known = _header(files.get(STATUS))
    return str(known.get("digest", ""))


def pool_of(content: bytes | None) -> Pool | None:
    """The pool that a service's file was rendered from, None when it does not say."""
    known = _header(content)
    try:
        return Pool.from_json(known)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _known(pool: Pool) -> dict[str, object]:
    return {
        "service": pool.service,
        "upstreams": [asdict(upstream) for upstream in pool.upstreams],
        "options": asdict(pool.options),
    }


def _file(known: Mapping[str, object], *texts: str) -> bytes:
    # JSON keeps it on one line, whatever it holds
    return (_HEADER + json.dumps(known) + "\n" + "".join(texts)).encode()


def _header(content: bytes | None) -> dict[str, Any]:
    line = (content or b"").partition(b"\n")[0].decode(errors="replace")
    try:
        known = json.loads(line.removeprefix(_HEADER))
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _time(seconds: float) -> str:
    """As nginx writes a time: whole seconds, or milliseconds."""
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"
