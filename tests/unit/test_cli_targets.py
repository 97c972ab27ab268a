"""From what was asked for to a revision: order, images, the one to go back to; and where the state is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rollout import targets
from rollout.cli.changes import mask, service_diff
from rollout.clock import SystemClock
from rollout.compose import LoadedProject, with_image
from rollout.deploy import Request
from rollout.errors import ImageNotFound, StateError, UsageError
from rollout.journal import SqliteJournal
from rollout.model import (
    Project,
    ProxySettings,
    ProxyType,
    Replica,
    ReplicaState,
    Revision,
    RevisionKey,
    ServiceSettings,
)
from rollout.state import StateDirectory

CONFIG = """\
name: shop
services:
  web:
    image: shop/wéb:1
    environment:
      PASSWORD: hunter2
      MODE: "0444"
  built:
    build:
      context: /shop
"""


def loaded(config: str = CONFIG) -> LoadedProject:
    return LoadedProject("shop", "/shop", config, yaml.safe_load(config), {"web": "hash-now", "built": "hash-built"})


def project(*names: str) -> Project:
    settings = {name: ServiceSettings(name, 8000, image="shop/web:1" if name == "web" else "") for name in names}
    return Project("shop", "/shop", ProxySettings(ProxyType.NGINX, "/shop/edge", service="edge"), settings, CONFIG)


class Images:
    def __init__(self, **ids: str) -> None:
        self.ids = {k.replace("__", ":").replace("_", "/"): v for k, v in ids.items()}
        self.tagged: list[tuple[str, str]] = []

    def image_id(self, reference: str) -> str | None:
        return self.ids.get(reference) or (reference if reference in self.ids.values() else None)

    def tag(self, image_id: str, reference: str) -> None:
        self.tagged.append((image_id, reference))
        self.ids[reference] = image_id


class Engine:
    def __init__(self, *replicas: Replica) -> None:
        self._replicas = list(replicas)

    def replicas(self, service: str) -> list[Replica]:
        return [r for r in self._replicas if r.service == service]


def revision(number: int = 1, image_id: str = "sha256:one", config: str = CONFIG) -> Revision:
    return Revision("web", number, RevisionKey("hash-one", image_id), "shop/web:1", config, 0.0)


# --- with another image


def test_only_the_image_changes() -> None:
    changed = with_image(CONFIG, "web", "shop/web:2")
    assert changed == CONFIG.replace("shop/wéb:1", '"shop/web:2"')


def test_a_service_that_is_built_gets_an_image() -> None:
    changed = yaml.safe_load(with_image(CONFIG, "built", "shop/built:2"))
    assert changed["services"]["built"] == {"image": "shop/built:2", "build": {"context": "/shop"}}
    assert changed["services"]["web"] == yaml.safe_load(CONFIG)["services"]["web"]


def test_no_such_service() -> None:
    with pytest.raises(KeyError):
        with_image(CONFIG, "nope", "x")


# --- order


def test_services_come_after_what_they_depend_on_however_indirectly() -> None:
    text = """
name: shop
services:
  a: {depends_on: {between: {condition: service_started}}}
  between: {depends_on: [z]}
  z: {}
  m: {}
"""
    order = targets.in_order(loaded(text), project("a", "m", "z"))
    assert sorted(order) == ["a", "m", "z"]
    assert order.index("z") < order.index("a")
    assert targets.in_order(loaded(text), project("a", "m", "z"), ["a"]) == ["a"]


# --- deploy


def test_a_built_service_has_the_image_compose_names_it_by() -> None:
    images = Images()
    images.ids = {"shop-built": "sha256:b"}
    request = targets.deploy_target(loaded(), project("built"), "built", images)  # type: ignore[arg-type]
    assert request.key == RevisionKey("hash-built", "sha256:b")
    assert request.image == "shop-built"
    assert request.from_files


def test_an_image_that_is_not_here_is_named() -> None:
    with pytest.raises(ImageNotFound, match="shop/web:1"):
        targets.deploy_target(loaded(), project("web"), "web", Images())  # type: ignore[arg-type]


def test_another_image_is_hashed_by_compose_and_not_taken_from_the_files() -> None:
    images = Images()
    images.ids = {"shop/web:9": "sha256:nine"}
    hashed: list[str] = []

    def hashes(config: str) -> dict[str, str]:
        hashed.append(config)
        return {"web": "hash-nine"}

    request = targets.image_target(loaded(), project("web"), "web", "shop/web:9", images, hashes)  # type: ignore[arg-type]
    assert request.key == RevisionKey("hash-nine", "sha256:nine")
    assert not request.from_files
    assert hashed == [request.config]
    assert yaml.safe_load(request.config)["services"]["web"]["image"] == "shop/web:9"


# --- rollback


def rollback(stored: Revision, images: Images, *replicas: Replica) -> Request:
    def pinned(_config: str) -> dict[str, str]:
        return {"web": "hash-pinned"}

    return targets.rollback_target(project("web"), stored, images, Engine(*replicas), pinned)  # type: ignore[arg-type]


def test_its_tag_still_means_the_image() -> None:
    images = Images()
    images.ids = {"shop/web:1": "sha256:one"}
    request = rollback(revision(), images)
    assert (request.key, request.config, request.what) == (revision().key, CONFIG, "rollback")
    assert not request.from_files
    assert images.tagged == []


def test_a_tag_that_moved_on_is_pinned_by_the_kept_one() -> None:
    images = Images()
    images.ids = {"shop/web:1": "sha256:two", "x": "sha256:one"}
    request = rollback(revision(3), images)
    assert yaml.safe_load(request.config)["services"]["web"]["image"] == "rollout-keep/shop/web:r3"
    assert request.key == RevisionKey("hash-pinned", "sha256:one")
    assert images.tagged == [("sha256:one", "rollout-keep/shop/web:r3")]


def test_warm_replicas_need_neither_image_nor_configuration() -> None:
    warm = Replica("a" * 64, "shop-web-1", "web", 1, revision().key, ReplicaState.RUNNING)
    request = rollback(revision(config=""), Images(), warm)
    assert request.key == revision().key


def test_an_image_that_is_gone_is_said() -> None:
    with pytest.raises(ImageNotFound, match="revision 1"):
        rollback(revision(), Images())


def test_a_revision_that_compose_made_has_no_configuration() -> None:
    with pytest.raises(UsageError, match="not made by rollout"):
        rollback(revision(config=""), Images())


class History:
    """A journal with rollouts of `web` in the order given."""

    def __init__(self, path: Path) -> None:
        self.journal = SqliteJournal(path / "state.db", SystemClock())

    def rollout(self, name: str, previous: str = "", state: str = "deployed") -> None:
        target = self.journal.revision("web", RevisionKey(name, name), name, CONFIG)
        before = (
            self.journal.revision("web", RevisionKey(previous, previous), previous, "").number if previous else None
        )
        record = self.journal.begin(
            what="deploy", strategy="rolling", target=target, old=(), previous=None, marker="", forced=False
        )
        self.journal.finish(record.id, state, {"previous": before})

    def back(self, number: int | None = None) -> str:
        return targets.choose_revision(self.journal, "web", number, self.journal.live("web")).image


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path)


def test_back_is_what_was_deployed_before(history: History) -> None:
    history.rollout("one")
    history.rollout("two", "one")
    history.rollout("three", "two")
    assert history.back() == "two"
    assert history.back(1) == "one"


def test_back_skips_what_never_served(history: History) -> None:
    history.rollout("one")
    history.rollout("two", "one")
    history.rollout("bad", "two", state="undone")
    assert history.back() == "one"


def test_back_from_a_rollback_is_forward_again(history: History) -> None:
    history.rollout("one")
    history.rollout("two", "one")
    history.rollout("one", "two")
    assert history.back() == "two"


def test_back_to_what_compose_made(history: History) -> None:
    history.rollout("one", "by-compose")
    assert history.back() == "by-compose"


def test_nothing_to_go_back_to(history: History) -> None:
    with pytest.raises(UsageError, match="no revision to go back to"):
        history.back()
    history.rollout("one")
    with pytest.raises(UsageError, match="no revision to go back to"):
        history.back()
    with pytest.raises(UsageError, match="no revision 7"):
        history.back(7)


# --- what changed


def test_a_diff_masks_environment_values_but_shows_that_they_changed() -> None:
    live = revision(config=CONFIG.replace("hunter2", "hunter1"))
    lines = service_diff("web", live, loaded(), RevisionKey("hash-now", "sha256:one"), False)
    text = "\n".join(lines)
    assert "hunter" not in text
    changed = [line for line in lines if line.startswith(("-  PASSWORD", "+  PASSWORD"))]
    assert len(changed) == 2
    assert all("***" in line for line in changed)
    assert not any(line.startswith(("-  MODE", "+  MODE")) for line in lines)


def test_secrets_are_shown_when_asked_for() -> None:
    live = revision(config=CONFIG.replace("hunter2", "hunter1"))
    lines = service_diff("web", live, loaded(), RevisionKey("hash-now", "sha256:one"), True)
    assert "-  PASSWORD: hunter1" in lines
    assert "+  PASSWORD: hunter2" in lines


def test_equal_values_have_equal_masks() -> None:
    assert mask("a") == mask("a") != mask("b")
    assert mask("") == ""


def test_no_diff_of_what_is_live_already() -> None:
    assert service_diff("web", revision(), loaded(), revision().key, False) == []
    assert service_diff("web", None, loaded(), revision().key, False) == []


# --- state


def test_state_is_beside_the_compose_file_and_invisible_to_git(tmp_path: Path) -> None:
    state = StateDirectory.of(str(tmp_path), {})
    assert state.path == tmp_path / ".rollout"
    assert not state.path.exists()
    state.prepare("shop")
    assert (state.path / ".gitignore").read_text() == "*\n"
    state.prepare("shop")


def test_the_state_directory_may_be_elsewhere(tmp_path: Path) -> None:
    assert StateDirectory.of("/shop", {"ROLLOUT_STATE_DIR": str(tmp_path / "s")}).path == tmp_path / "s"


def test_another_project_s_state_is_refused(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "s").prepare("shop")
    with pytest.raises(StateError, match="of project shop, not of other"):
        StateDirectory(tmp_path / "s").prepare("other")
    with pytest.raises(StateError):
        StateDirectory(tmp_path / "s").check("other")


def test_a_state_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be made"):
        StateDirectory(tmp_path / "file" / "s").prepare("shop")
