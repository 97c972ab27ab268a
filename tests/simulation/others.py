"""What others do to a project while rollout is away, or in the middle of its work: people with plain Docker commands,
the kernel, other projects. None of it is rollout's doing, so the world excuses what it costs until the next run.
"""

from __future__ import annotations

from dataclasses import replace

from rollout.model import ReplicaState, RevisionKey
from tests.simulation.world import NETWORK, Container, World

ALIVE = (ReplicaState.RUNNING, ReplicaState.PAUSED)


class Others:
    def __init__(self, world: World) -> None:
        self.world = world

    def of(self, service: str) -> list[Container]:
        return [c for c in self.world.containers.values() if c.replica.service == service]

    def stop(self, container: Container) -> None:
        if container.replica.state in ALIVE:
            self.world.die(container)

    def start(self, container: Container) -> None:
        if container.replica.state not in ALIVE and container.image.startable:
            self.world.run(container)

    def restart(self, container: Container, *, elsewhere: bool) -> None:
        """It exits and comes back; at another address when somebody was quicker to take its own."""
        self.stop(container)
        if elsewhere:
            self.stranger()
        restarts = container.replica.restart_count + 1
        container.replica = replace(container.replica, restart_count=restarts)
        self.start(container)

    def lose_address(self, container: Container) -> None:
        """It exits, and another project's container has its address at once."""
        self.stop(container)
        self.stranger()

    def pause(self, container: Container) -> None:
        if container.replica.state is ReplicaState.RUNNING:
            self.world.excuse(container)
            container.replica = replace(container.replica, state=ReplicaState.PAUSED)

    def sicken(self, container: Container) -> None:
        if container.replica.state is ReplicaState.RUNNING:
            self.world.excuse(container)
            container.image.healthy = False

    def remove(self, container: Container) -> None:
        """`docker rm -f`: between a list and an inspect, say."""
        self.stop(container)
        self.world.containers.pop(container.replica.id, None)
        self.world.changes += 1

    def scale(self, service: str, key: RevisionKey, count: int) -> None:
        """`docker compose up -d --no-recreate --scale`."""
        have = self.of(service)
        for container in have[count:]:
            self.remove(container)
        for container in have[:count]:
            self.start(container)
        for _ in range(count - len(have)):
            self.start(self.world.add(key, service=service))

    def up(self, service: str, key: RevisionKey, count: int) -> None:
        """`docker compose up -d`: recreates what is of another version, in place and without a thought for traffic."""
        have = sorted(self.of(service), key=lambda c: (c.replica.key == key, c.replica.number), reverse=True)
        for container in have[count:]:
            self.remove(container)
        for container in have[:count]:
            if container.replica.key != key:
                self.remove(container)
                self.start(self.world.add(key, service=service))
        self.scale(service, key, count)

    def stranger(self) -> None:
        """Another project starts a container: it gets the lowest free address."""
        self.world.foreign.add(self.world.free_address())
        self.world.changes += 1

    def heal(self) -> None:
        """Whatever is wrong with the machine is mended; what is wrong with a container that Docker calls unhealthy, or
        that is paused, is for the next deploy to see."""
        world = self.world
        world.reject_pools = world.disk_full = world.drains_forever = False
        world.generations = [replace(g, ends=min(g.ends, world.now + 3.0)) for g in world.generations]
        for key in world.images:
            world.images[key] = replace(world.images[key], healthy=True, exits_after=None, startable=True)
        for container in world.containers.values():
            container.image.exits_after, container.image.startable = None, True
            if not container.image.healthcheck:
                container.image.healthy = True


def picture(world: World) -> str:
    """For a failure: who is there, and where the proxy sends."""
    lines = [
        f"{c.replica.name} {c.replica.short_id} {c.replica.key.config_hash} {c.replica.state} "
        f"{c.replica.addresses.get(NETWORK, '')}"
        for c in world.containers.values()
    ]
    lines += [f"{s} on disk {[u.address for u in p.upstreams]}" for s, p in world.disk.items()]
    lines += [f"{s} loaded {[u.address for u in p.upstreams]}" for s, p in world.loaded.items()]
    return "\n".join([*lines, f"others' {sorted(world.foreign)}"])
