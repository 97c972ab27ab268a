"""The state directory: `.rollout/` beside the Compose file, or where ROLLOUT_STATE_DIR says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rollout.errors import StateError
from rollout.paths import exists, is_directory

NAME = ".rollout"
VARIABLE = "ROLLOUT_STATE_DIR"


class StateDirectory:
    """Where the journal, the locks and the name of their project are. Nothing is created before `prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, project_directory: str, environ: Mapping[str, str]) -> StateDirectory:
        return cls(Path(environ.get(VARIABLE) or Path(project_directory, NAME)).absolute())

    @property
    def journal(self) -> Path:
        return self.path / "state.db"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def proxy_lock(self) -> Path:
        return self.path / "proxy.lock"

    @property
    def socket(self) -> Path:
        """Where a sidecar is spoken to."""
        return self.path / "api.sock"

    def forget_passes(self) -> None:
        """A sidecar begins: what the one before it has done says nothing of this one."""
        with suppress(OSError):
            self._passed.unlink(missing_ok=True)

    def pass_done(self) -> None:
        """The sidecar has looked at every replica. Raises nothing: a full disk is told elsewhere."""
        with suppress(OSError):
            self._passed.touch()

    def last_pass(self) -> float:
        """When it last did, wall clock; 0 for never."""
        try:
            return self._passed.stat().st_mtime
        except OSError:
            return 0.0

    @property
    def _passed(self) -> Path:
        return self.path / "serve.passed"

    def in_the_way(self) -> str:
        """Why it cannot be made, or written; empty when it can. Makes nothing."""
        there = next(str(place) for place in (self.path, *self.path.parents) if exists(str(place)))
        if not is_directory(there):
            return f"{there} is no directory"
        return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"

    def check(self, project: str) -> None:
        """Refuse the state of another project (`-p` beside one Compose file makes two), and what cannot be read.
        Raises StateError."""
        owner = self._owner()
        if owner and owner != project:
            raise StateError(
                f"{self.path} holds the state of project {owner}, not of {project}",
                hint=f"give {project} its own with {VARIABLE}; was {owner} renamed: remove {self.path / 'project'}",
            )

    def prepare(self, project: str) -> None:
        """Create it, invisible to git. Raises StateError."""
        self.check(project)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, text in ((".gitignore", "*\n"), ("project", f"{project}\n")):
                file = self.path / name
                if not file.exists() or not file.stat().st_size:  # a full disk leaves it empty
                    file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StateError(
                f"the state directory {self.path} cannot be made: {error.strerror or error}",
                hint=f"run as a user who may write there, or set {VARIABLE}",
            ) from error
        if not os.access(self.path, os.W_OK):
            raise StateError(f"{self.path} is not writable", hint=f"run as its owner, or set {VARIABLE}")

    def _owner(self) -> str:
        try:
            return (self.path / "project").read_text(encoding="utf-8", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise StateError(
                f"the state in {self.path} cannot be read: {error.strerror}",
                hint=f"run as its owner, or set {VARIABLE}",
            ) from error
