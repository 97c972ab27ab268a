"""Opening the Docker SDK's client, and what its exceptions mean. Importing this module imports the SDK."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
import urllib3.exceptions
from docker import errors as docker_errors
from docker.api.client import APIClient
from docker.context import ContextAPI
from docker.credentials import errors as store_errors
from docker.tls import TLSConfig

from rollout.causes import caused_by, causes
from rollout.engines.docker.connection import EngineAnswer
from rollout.engines.docker.transport import UnixAdapter
from rollout.errors import EngineError

API_FLOOR = "1.41"  # Engine 20.10
API_NEWEST = "1.51"  # the newest tried; a newer engine is spoken to in this version
DEFAULT_HOST = "unix:///var/run/docker.sock"


def connect(environ: Mapping[str, str], timeout: int) -> APIClient:
    """A client for the engine that the Docker CLI would speak to with this environment, known to answer.

    `timeout` are the seconds that one answer may take. Raises EngineError with a hint that fits the reason.
    """
    base_url = DEFAULT_HOST
    client: APIClient | None = None
    try:
        base_url, tls = endpoint(environ)
        # A fixed version: the SDK's own negotiation would send its request before trust_env is off.
        client = APIClient(
            base_url=base_url,
            version=API_FLOOR,
            timeout=timeout,
            tls=tls or False,
            use_ssh_client=base_url.startswith("ssh://"),
        )
        if base_url.startswith("unix://"):
            client.mount("http+docker://", UnixAdapter(base_url.replace("unix://", "http+unix://"), timeout))
        # REQUESTS_CA_BUNDLE and HTTP_PROXY are meant for the web, not for the engine.
        client.trust_env = False
        client._version = negotiated(client, base_url)  # type: ignore[attr-defined]  # there is no public way
    except Exception as error:
        if client is not None:
            client.close()
        if isinstance(error, FOREIGN):
            raise translate(error, "connect", where=base_url) from error
        raise
    return client


def endpoint(environ: Mapping[str, str]) -> tuple[str, TLSConfig | None]:
    """Address and TLS settings as the CLI finds them: DOCKER_HOST, DOCKER_CONTEXT, the current context, the default."""
    host = environ.get("DOCKER_HOST", "")
    if host.startswith("ssh://"):
        raise EngineError(
            f"{host}: rollout works beside its engine, where the containers' addresses can be reached",
            hint="run it on that host",
        )
    if host:
        return host, _tls(environ) if host.startswith(("tcp://", "https://")) else None
    name = environ.get("DOCKER_CONTEXT") or None
    context = ContextAPI.get_context(name)
    if context is None:
        raise EngineError(
            f"the Docker context {name or 'in use'} does not exist",
            hint="see `docker context ls`; unset DOCKER_CONTEXT",
        )
    return context.Host or DEFAULT_HOST, context.TLSConfig


def _tls(environ: Mapping[str, str]) -> TLSConfig | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    given = environ.get("DOCKER_CERT_PATH", "")
    if not verify and not given:
        return None
    folder = Path(given) if given else Path.home() / ".docker"
    return TLSConfig(
        client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")), ca_cert=str(folder / "ca.pem"), verify=verify
    )


def negotiated(client: APIClient, where: str) -> str:
    """The API version to speak: the engine's, but none newer than has been tried.

    Raises EngineError when it is too old, or no engine at all.
    """
    # `/_ping` takes 1 ms; `/version`, which the SDK asks, takes 10: it asks containerd and runc in turn.
    answer = client.get(f"{client.base_url}/_ping", timeout=client.timeout)
    if answer.status_code >= 400:
        raise _answer(answer.status_code, answer.text.strip(), "connect")
    offered = answer.headers.get("Api-Version", "")
    if not re.fullmatch(r"\d+(\.\d+)*", offered, re.ASCII):
        raise EngineError(f"what answers at {where} is not a Docker engine", hint=HINT_HOST)
    if _number(offered) < _number(API_FLOOR):
        raise EngineError(
            f"the Docker engine at {where} is too old: API {offered}, needed {API_FLOOR}",
            hint="update it to Engine 20.10 or newer",
        )
    return min(offered, API_NEWEST, key=_number)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


# --- what foreign exceptions mean -------------------------------------------------------------------------------

HINT_HOST = "check DOCKER_HOST and `docker context ls`"
HINT_START = "is it running? `systemctl start docker`; elsewhere: set DOCKER_HOST"
HINT_GROUP = "join the group docker (`sudo usermod -aG docker $USER`, then log in again) or use sudo"
HINT_TLS = "check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH (ca.pem, cert.pem, key.pem)"
HINT_CONFIG = "check ~/.docker/config.json and `docker context ls`"
HINT_BUG = "this is a fault in rollout: please report it"

Meaning = Callable[[Any, str, str], EngineError]


def _answer(status: int, words: str, what: str) -> EngineError:
    if "HTTP request to an HTTPS server" in words:
        return EngineError("the Docker engine wants TLS", hint=HINT_TLS)
    return EngineAnswer(f"the Docker engine could not {what}: {words or f'HTTP {status}'}", status=status, words=words)


def _api(error: docker_errors.APIError, what: str, _: str) -> EngineError:
    words: Any = error.explanation  # bytes when the body is not JSON, whatever the SDK's types say
    if isinstance(words, bytes):
        words = words.decode(errors="replace")
    return _answer(error.status_code or 500, str(words or "").strip(), what)


def _says(hint: str) -> Meaning:
    return lambda error, what, _: EngineError(f"could not {what}: {error}", hint=hint)


def _late(_: Exception, what: str, where: str) -> EngineError:
    return EngineError(f"the Docker engine at {where} did not answer in time ({what})", hint=HINT_START, transient=True)


UNREACHED: tuple[tuple[type[BaseException], str, str, bool], ...] = (
    (FileNotFoundError, "no Docker engine listens at {where}", HINT_START, True),
    (NotADirectoryError, "no Docker engine listens at {where}", HINT_HOST, False),
    (PermissionError, "permission denied on the Docker engine's socket {where}", HINT_GROUP, False),
    (ConnectionRefusedError, "the Docker engine at {where} refuses connections", HINT_START, True),
    (ssl.SSLError, "no TLS connection to the Docker engine at {where}: {error}", HINT_TLS, False),
    (socket.gaierror, "the Docker engine's host in {where} has no address", HINT_HOST, False),
)


def _lost(error: Exception, what: str, where: str) -> EngineError:
    for kind, words, hint, transient in UNREACHED:
        cause = caused_by(error, kind)
        if cause is not None:
            return EngineError(words.format(where=where, error=cause), hint=hint, transient=transient)
    return EngineError(
        f"the connection to the Docker engine at {where} was lost ({what}): {list(causes(error))[-1]}",
        hint=HINT_START,
        transient=True,
    )


# Most specific first. Every exception of the SDK has its own row (a test compares), so that a new one is looked at.
MEANINGS: tuple[tuple[type[Exception], Meaning], ...] = (
    (docker_errors.ImageNotFound, _api),
    (docker_errors.NotFound, _api),
    (docker_errors.APIError, _api),
    (docker_errors.TLSParameterError, _says(HINT_TLS)),
    (docker_errors.InvalidConfigFile, _says(HINT_CONFIG)),
    (docker_errors.MissingContextParameter, _says(HINT_CONFIG)),
    (docker_errors.ContextAlreadyExists, _says(HINT_CONFIG)),
    (docker_errors.ContextNotFound, _says(HINT_CONFIG)),
    (docker_errors.ContextException, _says(HINT_CONFIG)),
    (docker_errors.InvalidVersion, _says("update the Docker engine to 20.10 or newer")),
    (docker_errors.InvalidRepository, _says("check the image's name")),
    (docker_errors.NullResource, _says(HINT_BUG)),
    (docker_errors.InvalidArgument, _says(HINT_BUG)),
    (docker_errors.DeprecatedMethod, _says(HINT_BUG)),
    (docker_errors.ContainerError, _says("")),
    (docker_errors.BuildError, _says("")),
    (docker_errors.ImageLoadError, _says("")),
    (docker_errors.StreamParseError, _lost),
    (docker_errors.DockerException, _says(HINT_HOST)),
    (store_errors.StoreError, _says(HINT_CONFIG)),
    (requests.exceptions.SSLError, _lost),
    (requests.exceptions.Timeout, _late),
    (requests.exceptions.RequestException, _lost),
    (urllib3.exceptions.TimeoutError, _late),
    (urllib3.exceptions.HTTPError, _lost),
    (TimeoutError, _late),
    (OSError, _lost),
)
FOREIGN = tuple(kind for kind, _ in MEANINGS)


def translate(error: BaseException, what: str, *, where: str) -> EngineError:
    """The EngineError that says what `error` means. `what` was being done (an infinitive), `where` is the address."""
    for kind, meaning in MEANINGS:
        if isinstance(error, kind):
            return meaning(error, what, where)
    raise TypeError(f"not an error of the Docker SDK: {error!r}")
