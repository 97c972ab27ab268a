"""The floor: the engine calls that no deploy can do without, made by a bare SDK script."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass, field
from typing import Any, Self

import docker

PAUSE = 0.005  # seconds between two probes


@dataclass
class Floor:
    """Replaces one container by another: create, start, first good probe, stop the old one, remove it."""

    network: str
    image: str
    label: str
    running: str = ""
    parts: dict[str, list[float]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.client: Any = docker.APIClient(version="auto")
        self.client.trust_env = False
        return self

    def __exit__(self, *_: object) -> None:
        for found in self.client.containers(all=True, filters={"label": self.label}):
            self.client.remove_container(found["Id"], force=True, v=True)
        self.client.close()

    def replace(self) -> float:
        """Seconds it took."""
        began = last = time.perf_counter()

        def part(name: str) -> None:
            nonlocal last
            now = time.perf_counter()
            self.parts.setdefault(name, []).append(now - last)
            last = now

        new = self.client.create_container(
            self.image,
            labels=[self.label],
            host_config=self.client.create_host_config(restart_policy={"Name": "unless-stopped"}),
            networking_config=self.client.create_networking_config(
                {self.network: self.client.create_endpoint_config()}
            ),
        )["Id"]
        part("create")
        self.client.start(new)
        part("start")
        self._probe(new)
        part("probe")
        if self.running:
            self.client.stop(self.running, timeout=10)
            part("stop")
            self.client.remove_container(self.running, v=True)
            part("remove")
        self.running = new
        return time.perf_counter() - began

    def _probe(self, container: str) -> None:
        seen = self.client.inspect_container(container)
        address = seen["NetworkSettings"]["Networks"][self.network]["IPAddress"]
        while True:
            connection = http.client.HTTPConnection(address, 8000, timeout=2)
            try:
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(PAUSE)
            finally:
                connection.close()
