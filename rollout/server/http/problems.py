"""Errors as HTTP answers: a status, and a JSON object with message, hint and exit code."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from rollout.errors import ExitCode, Interrupted, LockHeld, RolloutError, Unreachable, UsageError
from rollout.server.view import NoSuchThing


class Refused(RolloutError):
    """A request that is not taken. `status` is HTTP's."""

    exit_code = ExitCode.USAGE
    status = 422


class NotAllowed(Refused):
    """Nobody we know."""

    status = 401


class Forbidden(Refused):
    status = 403


class TooSlow(Refused):
    status = 408


class TooLarge(Refused):
    status = 413


class NotJson(Refused):
    status = 415


class TooMany(Refused):
    status = 429


class NotHere(Refused):
    """No such address."""

    status = 404


class WrongMethod(Refused):
    status = 405


STATUS: dict[type[RolloutError], int] = {
    NoSuchThing: 404,
    UsageError: 422,
    LockHeld: 409,
    Interrupted: 409,
    Unreachable: 503,
}


def as_json(error: RolloutError) -> dict[str, Any]:
    return {
        "error": error.kind,
        "message": error.message,
        "hint": error.hint,
        "details": list(error.details),
        "exit_code": int(error.exit_code),
    }


def answer(error: RolloutError, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(as_json(error), _status(error), headers)


def _status(error: RolloutError) -> int:
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
