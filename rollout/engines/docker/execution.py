"""Running a command inside a container, with a real timeout and its exit code."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry
from rollout.errors import EngineError
from rollout.ports import ExecResult
from rollout.waiting import DeadlinePassed, wait_for

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the shell's exit codes
SETTLE = 5.0  # seconds in which the engine must know the exit code once the output has ended
CHUNK = 65536
STDERR = 2
FRAME = struct.Struct(">BxxxL")  # stream number, length: how the engine packs stdout and stderr into one stream


def execute(
    connection: Connection,
    container: str,
    argv: Sequence[str],
    *,
    user: str = "",
    timeout: float = 30.0,
    environment: Mapping[str, str] | None = None,
) -> ExecResult:
    """Run argv (no shell) in a running container; stdout and stderr joined.

    A missing program is 127, one that is not executable 126. Raises EngineAnswer (404, 409) when the container is not
    running, EngineError when the command takes longer than `timeout`: the engine offers no way to end it, it runs on.
    """
    what = f"run {argv[0]} in {container[:12]}"
    try:
        prepared: dict[str, Any] = connection.call(
            what,
            lambda c: reading.shaped(
                c.exec_create(container, list(argv), user=user, environment=dict(environment or {})), {"Id": str}
            ),
            Retry.NEVER,
        )
        output = _output(connection, prepared["Id"], what, timeout)
    except EngineAnswer as answer:
        failed = _no_such_program(answer.words)
        if failed is None:
            raise
        return ExecResult(failed, answer.words)
    code = _exit_code(connection, prepared["Id"], what)
    if code == NOT_EXECUTABLE and output.startswith("OCI runtime exec failed"):
        code = _no_such_program(output) or code
    return ExecResult(code, output)


def _output(connection: Connection, exec_id: str, what: str, timeout: float) -> str:
    # Not the SDK's exec_start: it reads with no timeout, and below the buffer in which the first bytes may already be.
    import urllib3.exceptions

    clock = connection.clock
    deadline = clock.now() + timeout
    client = connection.client

    def read() -> bytes:
        url = f"{client.base_url}/v{client.api_version}/exec/{exec_id}/start"
        got = bytearray()
        with client.post(url, json={"Detach": False, "Tty": False}, stream=True, timeout=timeout) as response:
            client._raise_for_status(response)  # type: ignore[attr-defined]  # it makes the SDK's own errors
            stream = client._get_raw_response_socket(response)  # type: ignore[attr-defined]  # as the SDK finds it
            connected = getattr(stream, "_sock", stream)
            while chunk := response.raw.read1(CHUNK):
                got += chunk
                left = deadline - clock.now()
                if left <= 0:
                    raise urllib3.exceptions.TimeoutError
                connected.settimeout(left)
        return bytes(got)

    try:
        return connection.call(what, lambda _: _joined(read(), what), Retry.NEVER)
    except EngineError as error:
        if clock.now() >= deadline:
            raise EngineError(f"{what}: timed out after {timeout:g}s") from error
        raise


def _joined(frames: bytes, what: str) -> str:
    """The output in these frames. Raises EngineError when it ends within one: half an output must not pass for all."""
    parts, at = [], 0
    while at < len(frames):
        stream, length = FRAME.unpack_from(frames.ljust(at + FRAME.size), at)
        at += FRAME.size
        parts.append(frames[at : at + length])
        at += length
        if stream > STDERR or at > len(frames):
            raise EngineError(f"{what}: its output was cut off", transient=True)
    return b"".join(parts).decode(errors="replace")


def _exit_code(connection: Connection, exec_id: str, what: str) -> int:
    def look() -> int | None:
        seen: dict[str, Any] = connection.call(
            what,
            lambda c: reading.shaped(c.exec_inspect(exec_id), {"Running": bool, "ExitCode": (int, NoneType)}),
            Retry.ANY,
        )
        return None if seen["Running"] else seen["ExitCode"]

    try:
        return wait_for(connection.clock, look, timeout=SETTLE)
    except DeadlinePassed:
        raise EngineError(f"{what}: its output ended but the engine still calls it running") from None


def _no_such_program(words: str) -> int | None:
    """The shell's exit code for what the container runtime says when it cannot run a program; None: it says else."""
    lowered = words.lower()
    if "exec" not in lowered:
        return None
    if "executable file not found" in lowered or "no such file or directory" in lowered:
        return NOT_FOUND
    if "permission denied" in lowered or "exec format error" in lowered:
        return NOT_EXECUTABLE
    return None
