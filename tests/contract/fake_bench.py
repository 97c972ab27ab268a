"""The fakes of the simulation, held to the contracts."""

from __future__ import annotations

from rollout.model import RevisionKey
from rollout.ports import Clock, Engine, Images
from tests.simulation.fakes import FakeClock, FakeEngine, FakeImages
from tests.simulation.world import SERVICE, Image, World

IMAGE_ID = "sha256:1"


class FakeBench:
    def __init__(self) -> None:
        self.world = World(images={IMAGE_ID: Image()}, tags={"shop/web:1": IMAGE_ID})
        self.engine: Engine = FakeEngine(self.world, lambda _: RevisionKey("hash", IMAGE_ID))
        self.images: Images = FakeImages(self.world)
        self.clock: Clock = FakeClock(self.world)
        self.service = SERVICE
        self.config = "the resolved project"
        self.image = "shop/web:1"

    def die(self, replica_id: str) -> None:
        self.world.halt(self.world.containers[replica_id], exit_code=1)

    def close(self) -> None:
        """Nothing is left of it."""
