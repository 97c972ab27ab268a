"""The files rollout owns: one `<service>.cfg` a service in a directory that HAProxy loads with `-f DIRECTORY`.

The first line of a file is a comment that holds the pool it was made from, so that it can be read back whatever the
user's template made of it. HAProxy reads only `*.cfg` that do not begin with a dot: everything temporary has one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rollout.errors import StateError
from rollout.model import Pool
from rollout.proxies.haproxy_files import tokens

HEADER = "# rollout: "


@dataclass(frozen=True, slots=True)
class ServerLine:
    """A `server` line of a backend; `options` are all its words after the address but the weight."""

    name: str
    address: str
    weight: int
    options: tuple[str, ...] = ()


class ConfigDirectory:
    """The directory's files. Raises StateError when it cannot be read or written; then no file has changed."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self, service: str) -> str | None:
        """The service's file, None when it has none."""
        with self._told("read"):
            try:
                return self._file(service).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None
            except UnicodeDecodeError as error:
                raise self._foreign(service) from error

    def pool(self, service: str) -> Pool | None:
        """The pool its file was made from, None when it has none. Raises StateError for a file that is not ours."""
        text = self.read(service)
        if text is None:
            return None
        pool = decode(text)
        if pool is None or pool.service != service:
            raise self._foreign(service)
        return pool

    def write(self, service: str, text: str | None) -> None:
        """Make `text` the service's file, wholly or not at all, durable when it returns; None removes it."""
        target, fresh = self._file(service), self.path / f".{service}.cfg.new"
        with self._told("written"):
            try:
                if text is None:
                    target.unlink(missing_ok=True)
                else:
                    _write_durably(fresh, text)
                    fresh.replace(target)
                self._sync()
            except BaseException:
                with contextlib.suppress(OSError):
                    fresh.unlink(missing_ok=True)
                raise

    def reload_due(self, service: str) -> bool:
        """Whether a reload for this service's file was begun and not seen through (a crash in between)."""
        return self._due(service).exists()

    def mark_reload_due(self, service: str, due: bool) -> None:
        with self._told("written"):
            if due:
                _write_durably(self._due(service), "")
            else:
                self._due(service).unlink(missing_ok=True)
            self._sync()

    @contextlib.contextmanager
    def candidate(self, service: str, text: str) -> Iterator[str]:
        """The name of a directory inside this one that holds all its files, with `text` in place of the service's."""
        place = self.path / f".test-{service}"
        with self._told("written"):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o755)
        try:
            with self._told("written"):
                for file in self.path.glob("[!.]*.cfg"):
                    with contextlib.suppress(FileNotFoundError):  # another service's, undone this moment
                        os.link(file, place / file.name)
                (place / f"{service}.cfg").unlink(missing_ok=True)
                (place / f"{service}.cfg").write_text(text, encoding="utf-8")
                (place / f"{service}.cfg").chmod(0o644)
            yield place.name
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _file(self, service: str) -> Path:
        return self.path / f"{service}.cfg"

    def _due(self, service: str) -> Path:
        return self.path / f".{service}.reload"

    def _sync(self) -> None:
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextlib.contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(
                f"the proxy's config directory {self.path} cannot be {done}: {error.strerror or error}",
                hint="create it, make room, or correct `x-rollout.proxy.config`",
            ) from error

    def _foreign(self, service: str) -> StateError:
        return StateError(
            f"{self._file(service)} was not written by rollout",
            hint=f"move it away; rollout writes the backend {service!r} itself",
        )


def encode(pool: Pool) -> str:
    """The header line (with its newline)."""
    return HEADER + json.dumps(asdict(pool), sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n"


def decode(text: str) -> Pool | None:
    """The pool that a file's header names; None when it has no such header."""
    first = text.partition("\n")[0]
    if not first.startswith(HEADER):
        return None
    try:
        return Pool.from_json(json.loads(first.removeprefix(HEADER)))
    except (KeyError, TypeError, ValueError):
        return None


def server_lines(text: str) -> dict[str, ServerLine]:
    """The servers of a rendered file by name, with the options of its own `default-server` lines spelled out."""
    defaults: tuple[str, ...] = ()
    servers: dict[str, ServerLine] = {}
    for words in map(tokens, text.splitlines()):
        if words[:1] == ("default-server",):
            defaults += words[1:]
        elif words[:1] == ("server",) and len(words) >= 3:
            weight, options = _split_weight(defaults + words[3:])
            servers[words[1]] = ServerLine(words[1], words[2], weight, options)
    return servers


def structure(text: str) -> tuple[tuple[str, ...], ...]:
    """What only a reload can change: every line but the servers'."""
    lines = (tokens(line) for line in text.splitlines())
    return tuple(words for words in lines if words and words[0] != "server")


def _split_weight(words: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    weight, options, rest = 1, [], list(words)
    while rest:
        word = rest.pop(0)
        if word == "weight" and rest and rest[0].isdigit():
            weight = int(rest.pop(0))
        else:
            options.append(word)
    return weight, tuple(options)


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)  # HAProxy may run as another user than rollout
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
