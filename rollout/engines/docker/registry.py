"""Registries, asked by the engine: it has the network, the mirrors and the certificates that a pull would use."""

from __future__ import annotations

from typing import Any

from rollout.engines.docker import reading
from rollout.engines.docker.connection import Connection, EngineAnswer, Retry


class DockerRegistry:
    """`ports.Registry`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def offered(self, reference: str) -> str:
        def ask(client: Any) -> str:
            client.reload_config()  # somebody may have logged in since
            seen = reading.shaped(client.inspect_distribution(reference), {"Descriptor": {"digest": str}})
            return str(seen["Descriptor"]["digest"])

        return self._connection.call(f"ask the registry for {reference}", ask, Retry.NEVER)

    def digests(self, image_id: str) -> frozenset[str]:
        def look(client: Any) -> list[str]:
            return reading.shaped(client.inspect_image(image_id), {"RepoDigests": [str]})["RepoDigests"] or []

        try:
            found = self._connection.call(f"look up the image {image_id}", look, Retry.ANY)
        except EngineAnswer as answer:
            if answer.status == 404:
                return frozenset()
            raise
        return frozenset(reference.partition("@")[2] for reference in found)
