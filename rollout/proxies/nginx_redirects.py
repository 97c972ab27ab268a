"""Where a request may go on to another upstream though one has answered it: nginx sends it on itself, for an
`error_page`, or because the answer says so (`X-Accel-Redirect`) and there is an `internal` location for it.

What cannot be told from the configuration counts as if it did. Where an answer sends a request to a location that is
meant for clients is not looked for: any could (docs/guarantees.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rollout.proxies.nginx_config import Directive, LoadedConfig

# Statuses below 500 that nginx gives only before it asks an upstream; redirects (3xx) are like them.
_BEFOREHAND = frozenset({"401", "403", "404", "405", "429"})
# Of regular expressions, those that mean the same to Python.
_PLAIN = re.compile(r"(?:[^\\\[{]|\\[./\-dws]|\[\^?(?:\w-\w|[\w/.])+\])*")


def sends_on(config: LoadedConfig) -> Iterator[Directive]:
    """Each directive by which a request that was sent to one upstream may be sent to another."""
    for http in (d for d in config.walk() if d.name == "http" and d.block is not None):
        inner = list(config.tree(http.block))
        shared = [d for d in inner if d.name == "error_page"]
        any_status = any(map(_shows_statuses, inner))
        for server in inner:
            if server.name == "server" and server.block is not None:
                yield from _Server(config, server, any_status).sends_on(shared)


def _shows_statuses(directive: Directive) -> bool:
    """Whether with it a status below 500 may be an upstream's, or follow one's answer."""
    if directive.name.endswith("_next_upstream"):
        return any(arg.startswith("http_4") for arg in directive.args)
    on = [arg.lower() for arg in directive.args[:1]] == ["on"]
    return directive.name == "internal" or (
        directive.name.endswith(("_intercept_errors", "recursive_error_pages")) and on
    )


class _Server:
    """One virtual host: a request that nginx sends on stays in it."""

    def __init__(self, config: LoadedConfig, block: Directive, any_status: bool) -> None:
        self._config = config
        self._block = block
        self._every = list(config.walk(block.block))
        self._any_status = any_status or any(map(_shows_statuses, self._every))
        self._known: dict[str, bool] = {}  # target of an `error_page` -> whether it leads on

    def sends_on(self, error_pages: Sequence[Directive]) -> Iterator[Directive]:
        """As the function above; `error_pages` are those of all servers, as is what `any_status` says."""
        upstreams = {_upstream(d) for d in self._every if d.name.endswith("_pass")}
        if len(upstreams) < 2 and not any("$" in name for name in upstreams):
            return
        for directive in [*error_pages, *self._every]:
            if directive.name == "error_page" and self._follows_an_upstream(directive):
                target = directive.args[-1]
                if target not in self._known:
                    self._known[target] = self._leads_on(target)
                if self._known[target]:
                    yield directive
            elif directive.name == "location" and directive.block is not None and self._is_internal(directive):
                inner = [d for d in self._config.walk(directive.block) if d.name == "location"]
                if any(self._passes_on(one, None, frozenset()) for one in (directive, *inner)):
                    yield directive

    def _follows_an_upstream(self, error_page: Directive) -> bool:
        statuses = [arg for arg in error_page.args[:-1] if arg.isdigit()]
        return any(self._any_status or (one not in _BEFOREHAND and one >= "400") for one in statuses)

    def _is_internal(self, location: Directive) -> bool:
        return any(d.name == "internal" for d in self._config.tree(location.block))

    def _leads_on(self, target: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a request that nginx sends to `target` may reach an upstream. `seen`: targets on the way to it."""
        path = target.partition("?")[0]
        if target in seen or target.startswith("$scheme://") or target[:1] not in ("/", "@", "$"):
            return False  # a circle, which nginx ends; an address for the client; a status
        if "$" in path or path.endswith("/"):
            return True
        if target.startswith("@"):
            found = [d for d in self._every if d.name == "location" and d.args == (target,)]
        else:
            found = self._handling(self._block, path)
            if self._rewrites(self._block, path):
                return True
        return any(self._passes_on(one, path, seen | {target}) for one in found)

    def _passes_on(self, block: Directive, path: str | None, seen: frozenset[str]) -> bool:
        """Whether this location (or server, without one) sends on the request for `path` that it handles; None: any."""
        own = list(self._own(block))
        tried = [d.args[-1] for d in own if d.name == "try_files" and d.args]
        return (
            any(d.name.endswith("_pass") for d in own)
            or self._rewrites(block, path)
            or any(self._leads_on(target, seen) for target in tried)
        )

    def _rewrites(self, block: Directive, path: str | None) -> bool:
        """Whether one of its own turns `path` to a place that is not looked for."""
        found = [d.args for d in self._own(block) if d.name == "rewrite" and len(d.args) > 1]
        # in a location `break` stays there; in a server one is looked for afterwards all the same
        stay = {"redirect", "permanent", *(["break"] if block.name == "location" else [])}
        within = [args for args in found if not args[1].startswith(("http://", "https://", "$scheme"))]
        return any((path is None or _may_match(args[0], path)) and not stay & set(args[2:]) for args in within)

    def _own(self, block: Directive) -> Iterator[Directive]:
        """The directives of a block and its conditions, without those of the locations in it."""
        for directive in self._config.tree(block.block):
            yield directive
            if directive.block is not None and directive.name != "location":
                yield from self._own(directive)

    def _handling(self, block: Directive, path: str) -> list[Directive]:
        """The locations of which nginx takes one for `path`; the block itself where none below it may be."""
        prefixes, patterns = [], []
        for location in self._config.tree(block.block):
            if location.name != "location" or location.block is None:
                continue
            kind, text = _matcher(location.args)
            if kind == "=" and text == path:
                return [location]
            if kind.startswith("~"):
                patterns += [location] if _may_match(text, path, ignore_case=kind == "~*") else []
            elif kind != "=" and path.startswith(text):
                prefixes.append((len(text), kind, location))
        if not prefixes:
            return [block, *patterns]
        _, kind, longest = max(prefixes, key=lambda found: found[0])
        below = self._handling(longest, path)
        return below if kind == "^~" else [*below, *patterns]


def _matcher(args: Sequence[str]) -> tuple[str, str]:
    """How a location matches, and what: `= /a`, `=/a` and the like."""
    found = re.fullmatch(r"(=|\^~|~\*|~|) ?(.*)", " ".join(args[:2]), re.DOTALL)
    return (found.group(1), found.group(2)) if found else ("", "")


def _may_match(pattern: str, path: str, *, ignore_case: bool = False) -> bool:
    if not _PLAIN.fullmatch(pattern):
        return True
    try:
        return re.search(pattern, path, re.IGNORECASE if ignore_case else 0) is not None
    except re.error:
        return True


def _upstream(directive: Directive) -> str:
    """What a `proxy_pass` and its like lead to, without scheme and path."""
    target = directive.args[0] if directive.args else ""
    return target.partition("://")[2].partition("/")[0] or target
