"""The Docker engine behind `ports.Engine`, `ports.Images`, `ports.Registry`, `ports.ProxyProcess`.

Importing this package is cheap; the Docker SDK is imported when the connection is first used, or by `Connection.warm`.
"""

from rollout.engines.docker.connection import Connection
from rollout.engines.docker.container import ContainerProcess
from rollout.engines.docker.engine import DockerEngine
from rollout.engines.docker.registry import DockerRegistry

__all__ = ["Connection", "ContainerProcess", "DockerEngine", "DockerRegistry"]
