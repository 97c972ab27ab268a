"""A proxy that runs on this host, behind `ports.ProxyProcess`."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.errors import ProxyUnreachable
from rollout.ports import ExecResult, Mount, Process

_PROC = Path("/proc")


class HostProcess:
    """`ports.ProxyProcess` for the process whose pid is in `pid_file`. `log` is a file that it writes its errors to,
    empty when unknown; `program` names it in messages."""

    def __init__(self, program: str, pid_file: str, log: str = "") -> None:
        self._program = program
        self._pid_file = Path(pid_file)
        self._log = Path(log) if log else None
        self._log_from = 0

    def describe(self) -> str:
        return f"{self._program} on this host"

    def identity(self) -> str:
        eldest = self._masters()[-1]
        return f"{eldest}@{_started(eldest)}"

    def argv(self) -> list[str]:
        return _command_line(self._pid()).rstrip("\0").split("\0")

    def exec(self, argv: Sequence[str], *, user: str = "", timeout: float = 30.0) -> ExecResult:
        account = user.partition(":")[0] if user and os.geteuid() == 0 else None
        try:
            done = subprocess.run(
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
                user=account,
            )
        except subprocess.TimeoutExpired as error:
            raise ProxyUnreachable(f"{argv[0]} did not end within {timeout:.0f} s") from error
        except (FileNotFoundError, PermissionError, LookupError) as error:
            return ExecResult(127 if isinstance(error, FileNotFoundError) else 126, str(error))
        return ExecResult(done.returncode, done.stdout.decode(errors="replace"))

    def warm_up(self) -> None:
        """Programs of this host start at once."""

    def signal(self, name: str) -> None:
        # its log has seconds only: what it says to this signal is what stands behind here
        self._log_from = self._log.stat().st_size if self._log and self._log.is_file() else 0
        try:
            os.kill(self._pid(), signal.Signals[f"SIG{name}"])
        except PermissionError as error:
            raise ProxyUnreachable(f"may not signal {self.describe()}", hint="run rollout as root") from error
        except ProcessLookupError as error:
            raise ProxyUnreachable(f"{self.describe()} has just ended") from error

    def processes(self) -> list[Process]:
        masters = set(self._masters())
        return [Process(pid, _title(pid)) for pid in _pids() if masters & {pid, _parent(pid)}]

    def output(self, since: float, until: float | None = None) -> list[str]:  # noqa: ARG002  # as its log says no times
        if self._log is None or not self._log.is_file() or self._log.stat().st_mtime < since:
            return []
        return read_from(self._log, self._log_from).splitlines()

    def networks(self) -> Mapping[str, str]:
        return {"host": "127.0.0.1"}

    def mount(self, host_path: str) -> Mount | None:
        return Mount(host_path)

    def host_path(self, path: str) -> str | None:
        return path

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    def _masters(self) -> list[int]:
        """The process of the pid file, and before an upgrade of nginx's program is over (USR2, as packages do it) the
        former master that has started it: its workers serve until it ends."""
        masters = [self._pid()]
        while _title(parent := _parent(masters[-1])).startswith("nginx: master process"):
            masters.append(parent)
        return masters

    def _pid(self) -> int:
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError) as error:
            hint = "start it, or say where its pid is: x-rollout.proxy.pid_file"
            raise ProxyUnreachable(f"{self._program} does not run: no pid in {self._pid_file}", hint=hint) from error
        if not (_PROC / str(pid)).is_dir():
            raise ProxyUnreachable(f"{self._program} does not run: no process {pid} ({self._pid_file} is stale)")
        return pid


def _pids() -> list[int]:
    return sorted(int(path.name) for path in _PROC.iterdir() if path.name.isdigit())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold spaces and brackets; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _started(pid: int) -> str:
    """When it started, in clock ticks since boot: a pid used again differs in it."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _title(pid: int) -> str:
    return _command_line(pid).replace("\0", " ").strip()


def _command_line(pid: int) -> str:
    """Empty when it is gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def read_from(path: Path, offset: int) -> str:
    """The text behind `offset` bytes; all of it when the file has become shorter (it was rotated)."""
    with path.open("rb") as file:
        file.seek(offset if path.stat().st_size >= offset else 0)
        return file.read().decode(errors="replace")
