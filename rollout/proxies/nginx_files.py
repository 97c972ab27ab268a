"""The directory that rollout renders into: complete generations, and a link to the one in force.

    rollout.conf            constant: includes current/*.conf
    current -> gen-000007   renamed over atomically; what nginx loads, whenever it starts or reloads
    gen-000006              the last good one
    gen-000007

Nothing else stays here. A second file, the ledger, lives with rollout's state: it is the lock between processes that
change the proxy, and remembers a change that was published but not seen live.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from rollout.errors import Fault, SpecError, StateError
from rollout.ports import Clock
from rollout.proxies.lock import STATE_HINT, exclusively

CURRENT = "current"
ENTRY = "rollout.conf"
_GENERATION = re.compile(r"gen-(\d{6,})")
_LINK = ".current.new"
_CONFIG_HINT = "create it, make room, or correct `x-rollout.proxy.config`"


class Generations:
    """The generations in one directory of the host. Raises StateError when it cannot be read or written."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    def require(self) -> None:
        """Raise SpecError when there is no such directory."""
        if not self.directory.is_dir():
            fault = Fault(
                "x-rollout.proxy.config", f"{self.directory} is not a directory", f"mkdir -p {self.directory}"
            )
            raise SpecError([fault])

    def current(self) -> str | None:
        """The generation in force, None when there is none."""
        try:
            name = str((self.directory / CURRENT).readlink())
        except OSError:
            return None
        return name if _GENERATION.fullmatch(name) and (self.directory / name).is_dir() else None

    def files(self, name: str | None) -> dict[str, bytes]:
        """The configuration files of a generation, by file name."""
        if name is None:
            return {}
        with told(f"read {self.directory / name}"):
            found = sorted((self.directory / name).glob("*.conf"))
            return {path.name: path.read_bytes() for path in found}

    def read(self, file: str) -> bytes | None:
        """A file of the generation in force, None when it has none of that name."""
        name = self.current()
        path = self.directory / (name or CURRENT) / file
        with told(f"read {path}"):
            return path.read_bytes() if path.is_file() else None

    def write(self, files: Mapping[str, bytes], base: str | None, *, durably: bool = True) -> str:
        """Write a complete new generation and return its name. Files equal to those of `base` are links to them. It is
        not in force; one that shall be is written `durably`. When it cannot be written, nothing of it is left."""
        name = self._next()
        folder = self.directory / name
        with told(f"write {folder}", undo=lambda: self.remove(name)):
            folder.mkdir()
            folder.chmod(0o755)  # whatever the umask: the proxy may run as another user
            former = self.files(base)
            for file, content in files.items():
                if former.get(file) != content or not _linked(self.directory / str(base) / file, folder / file):
                    _write(folder / file, content, durably=durably)
            if durably:
                _sync_folder(folder)
        return name

    def publish(self, name: str, entry: str) -> None:
        """Put the generation in force, in one rename; `rollout.conf` says `entry`."""
        with told(f"write {self.directory}"):
            self._entry(entry)
            new = self.directory / _LINK
            new.unlink(missing_ok=True)
            new.symlink_to(name)
            new.replace(self.directory / CURRENT)
            _sync_folder(self.directory)

    def unpublish(self) -> None:
        """No generation is in force, as before the first one."""
        with told(f"write {self.directory}"):
            (self.directory / CURRENT).unlink(missing_ok=True)
            (self.directory / ENTRY).unlink(missing_ok=True)
            _sync_folder(self.directory)

    def keep(self, *names: str | None) -> None:
        """Remove every generation but these, and what an aborted change left."""
        with told(f"clean up {self.directory}"):
            for name in self._all():
                if name not in names:
                    self.remove(name)
            for rest in (_LINK, f".{ENTRY}.new"):
                (self.directory / rest).unlink(missing_ok=True)

    def tidy(self, name: str) -> None:
        """Remove what a change left that was killed once its generation, `name`, was seen live: as if it had ended."""
        number = _number(name)
        self.keep(name, max((n for n in self._all() if _number(n) < number), key=_number, default=None))

    def remove(self, name: str) -> None:
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def existing(self, name: str) -> str | None:
        """`name`, when there is such a generation."""
        return name if _GENERATION.fullmatch(name) and (self.directory / name).is_dir() else None

    @contextmanager
    def folder(self, name: str, below: str) -> Iterator[Path]:
        """A folder in a generation, for the length of the block."""
        path = self.directory / name / below
        try:
            with told(f"write {path}"):
                yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _all(self) -> list[str]:
        return sorted(p.name for p in self.directory.iterdir() if _GENERATION.fullmatch(p.name) and not p.is_symlink())

    def _next(self) -> str:
        return f"gen-{max(map(_number, self._all()), default=0) + 1:06d}"

    def _entry(self, text: str) -> None:
        path = self.directory / ENTRY
        if path.is_file() and path.read_text() == text:
            return
        new = self.directory / f".{ENTRY}.new"
        _write(new, text.encode())
        new.replace(path)


@contextmanager
def told(what: str, undo: Callable[[], None] | None = None, hint: str = _CONFIG_HINT) -> Iterator[None]:
    """What the operating system refuses is a StateError that says what could not be done; `undo` is called first."""
    try:
        yield
    except OSError as error:
        if undo is not None:
            undo()
        raise StateError(f"cannot {what}: {error.strerror or error}", hint=hint) from error


def _number(generation: str) -> int:
    return int(generation.removeprefix("gen-"))


def _linked(old: Path, new: Path) -> bool:
    try:
        os.link(old, new)
    except OSError:
        return False  # a file system without hard links (a share of Docker Desktop): copy
    return True


def _write(path: Path, content: bytes, *, durably: bool = True) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        if durably:
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- the ledger ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ledger:
    """`good` is the generation last seen live. `pending` is the identity of the proxy that was told to load another one
    and not yet seen to do it: empty when every change was seen through. `unpaired`: why only their end proves that the
    workers of `good` are done (nginx_workers)."""

    good: str = ""
    pending: str = ""
    unpaired: str = ""

    def settled(self, identity: str) -> bool:
        """Whether no worker of this proxy can be of a generation that nobody saw come or go."""
        return self.pending != identity


class LedgerFile:
    """The lock between processes that change one proxy, and what they must know of each other's changes."""

    SIZE = 1024  # a record is written in one piece, over the former

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = Path(path)
        self._clock = clock
        self._held: IO[bytes] | None = None

    def read(self) -> Ledger:
        try:
            return _ledger(self._path.read_bytes())
        except FileNotFoundError:
            return Ledger()
        except OSError as error:
            raise StateError(f"cannot read {self._path}: {error.strerror}") from error

    def write(self, ledger: Ledger) -> None:
        """Only within `hold`."""
        assert self._held is not None
        with told(f"write {self._path}", hint=STATE_HINT):
            record = json.dumps(asdict(ledger)).encode().ljust(self.SIZE - 1) + b"\n"
            os.pwrite(self._held.fileno(), record, 0)

    def update(self, **changes: object) -> None:
        self.write(replace(self.read(), **changes))  # type: ignore[arg-type]  # the fields' own types, by the callers

    @contextmanager
    def hold(self) -> Iterator[Ledger]:
        """The lock, freed by the kernel when the process dies. Raises StateError."""
        with exclusively(str(self._path), self._clock) as file:
            self._held = file
            try:
                yield self.read()
            finally:
                self._held = None


def _ledger(record: bytes) -> Ledger:
    with suppress(ValueError, TypeError):
        return Ledger(**json.loads(record))
    return Ledger()
