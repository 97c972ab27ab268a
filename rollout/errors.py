"""Everything a user can be told went wrong.

    RolloutError
    ├── UsageError            2   wrong flag, unknown service: nothing was touched
    ├── SpecError             2   faults in the configuration, all of them at once: nothing was touched
    ├── LockHeld              3   another rollout holds the lock
    ├── Unreachable           4   nothing was touched
    │   ├── EngineError           the Docker engine
    │   ├── ComposeError          Docker Compose
    │   ├── ProxyUnreachable      the proxy
    │   └── StateError            `.rollout/` cannot be read or written (disk full, permission)
    ├── DeployFailed          1   the service is exactly as it was
    │   ├── Aborted               somebody asked for it
    │   ├── Unhealthy             a new replica did not become ready, or died
    │   ├── ProxyRejected         the proxy refused the config; the last good one is in force
    │   ├── ImageNotFound         there is no such image to deploy
    │   └── BuildFailed           Compose could not build the image
    ├── NotUndone             5   failed and not fully undone; the hint says what to do
    └── Interrupted         130   a signal; the state is safe and the next run continues

Any other exception is a fault of rollout's own (`Bug`): one line, a traceback only with -v, exit code 70.

Raised anywhere, printed in one place (`cli`). `message` says what happened and to what, `hint` what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process answers; DESIGN's table, public and stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    LOCKED = 3
    UNREACHABLE = 4
    NOT_UNDONE = 5
    BUG = 70  # sysexits' EX_SOFTWARE: an exception that must not happen; never raised on purpose
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in the configuration: where (`services.web.x-rollout.port`), what, and the way out."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class RolloutError(Exception):
    """The root. `details` are further lines to show (health output, last log lines), oldest first."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    @property
    def kind(self) -> str:
        """The class's name, stable; what programs tell errors apart by."""
        return type(self).__name__


class UsageError(RolloutError):
    """The command line asks for something that is not there or not possible."""

    exit_code = ExitCode.USAGE


class SpecError(RolloutError):
    """The configuration is refused whole: `faults` lists every fault found, not just the first."""

    exit_code = ExitCode.USAGE

    def __init__(self, faults: Sequence[Fault], *, hint: str = "") -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(
            f"{count} in the configuration; nothing was touched", hint=hint, details=[str(f) for f in faults]
        )


class LockHeld(RolloutError):
    """Another rollout of the same service is under way; `message` names its holder."""

    exit_code = ExitCode.LOCKED


class Unreachable(RolloutError):
    """Something this run needs does not answer."""

    exit_code = ExitCode.UNREACHABLE


class EngineError(Unreachable):
    """The Docker engine does not answer, refuses us, or failed a call. `transient`: the same call may go through
    later.
    """

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = (), transient: bool = False) -> None:
        super().__init__(message, hint=hint, details=details)
        self.transient = transient


class ComposeError(Unreachable):
    """Docker Compose is missing, too old, or failed; its own words are in `details`."""


class ProxyUnreachable(Unreachable):
    """The proxy is not running or its control socket does not answer."""


class StateError(Unreachable):
    """`.rollout/` or the proxy's config directory cannot be read or written."""


class DeployFailed(RolloutError):
    """The deploy failed; unless `NotUndone` follows, the service is exactly as it was."""

    exit_code = ExitCode.FAILED


class Aborted(DeployFailed):
    """Somebody asked for the rollout to be taken back (`rollout abort`)."""


class Unhealthy(DeployFailed):
    """A replica did not become ready before its deadline, exited, restarted, or turned unhealthy."""


class ProxyRejected(DeployFailed):
    """The proxy did not take the config, or it did not render; the last good config is in force and on disk."""


class ImageNotFound(DeployFailed):
    """The image to deploy does not exist here, and could not be pulled."""


class BuildFailed(DeployFailed):
    """The image to deploy could not be built; the builder's own words are in `details`."""


class NotUndone(RolloutError):
    """The deploy failed and what it had done could not be taken back completely."""

    exit_code = ExitCode.NOT_UNDONE


class Interrupted(RolloutError):
    """A signal asked us to end; the state is safe and the next run continues."""

    exit_code = ExitCode.INTERRUPTED


class Bug(RolloutError):
    """Something that must not happen. Made where an exception ends, never raised on purpose."""

    exit_code = ExitCode.BUG

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"this is a bug in rollout: {type(cause).__name__}: {cause}",
            hint="please report it, with what the same command says with -v; the next run continues from here",
        )
