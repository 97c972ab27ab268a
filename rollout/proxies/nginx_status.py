"""The private status listener: which configuration the answering worker is of."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

VERSION = "/-/rollout/version"
_TIMEOUT = (0.5, 2.0)  # connect, answer; a listener that is there answers in under a millisecond

# Docker's and Compose's networks are taken from these, and so is the gateway that a controller on the host comes from.
# Nothing but a digest, a version and counts of connections is told, so a whole private range may ask.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_LOCAL = ("127.0.0.0/8", "::1/128")


def trusted(addresses: Mapping[str, str]) -> list[str]:
    """The networks that may ask, for a proxy with these addresses (`ProxyProcess.networks`)."""
    networks = [*_LOCAL, *_PRIVATE]
    for text in sorted(addresses.values()):
        address = ipaddress.ip_address(text)
        if not any(address in ipaddress.ip_network(network) for network in networks):
            # an address pool of the administrator's own: Docker cuts networks of this size from it by default
            size = 16 if address.version == 4 else 64
            networks.append(str(ipaddress.ip_network(f"{address}/{size}", strict=False)))
    return networks


def listens(port: int, addresses: Mapping[str, str], *, locally: bool) -> str:
    """Where the listener listens, as nginx takes it, with spaces between; on IPv6 only for a proxy that is reached in
    no other way: files that need not change do not."""
    if locally:
        return f"127.0.0.1:{port}"
    versions = {ipaddress.ip_address(text).version for text in addresses.values()}
    # nginx itself asks the one on IPv4, for services without upstreams
    return f"{port} [::]:{port}" if versions == {6} else str(port)


def on_host(addresses: Mapping[str, str]) -> bool:
    """Whether the proxy shares the host's network, where only the host itself should reach the listener."""
    return "host" in addresses


class StatusListener:
    """Asks the listener at the proxy's addresses; remembers the one that answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._session: requests.Session | None = None
        self._answers = ""

    def digest(self, addresses: Mapping[str, str]) -> str:
        """The digest of the configuration that answered; empty when nothing of ours did."""
        known = [self._answers] if self._answers in addresses.values() else []
        for address in dict.fromkeys([*known, *sorted(addresses.values())]):
            answer = self._ask(address)
            if answer:
                self._answers = address
                return answer
        return ""

    def _ask(self, address: str) -> str:
        import requests

        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False  # the environment's proxies do not lead here
        host = f"[{address}]" if ":" in address else address
        try:
            # every answer from whichever worker accepts now: a kept connection would ask the same one again
            with self._session.get(
                f"http://{host}:{self._port}{VERSION}",
                timeout=_TIMEOUT,
                headers={"Connection": "close"},
                allow_redirects=False,
            ) as answer:
                words = answer.text.split()
        except (requests.RequestException, ValueError):  # ValueError: headers that are not even text
            return ""
        return words[0] if answer.status_code == 200 and words else ""
