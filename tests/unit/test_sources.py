"""Which files make a project another when they change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rollout.compose.sources import sources


def test_compose_files_name_others(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        """
        include: [one.yaml, { path: [two.yaml], env_file: two.env }]
        services:
          web: { extends: { file: base/web.yaml, service: web }, env_file: [a.env, { path: b.env }] }
          api: { extends: web, env_file: c.env }
          odd: { env_file: "${WHICH}.env" }
        """
    )
    (tmp_path / "base").mkdir()
    (tmp_path / "base/web.yaml").write_text("services: { web: { env_file: d.env } }")
    (tmp_path / "two.yaml").write_text("services: {")
    (tmp_path / "compose.yaml").rename(tmp_path / "shop.yaml")
    found = sources((str(tmp_path / "shop.yaml"),), (str(tmp_path / "prod.env"),), str(tmp_path))
    named = "shop.yaml one.yaml two.yaml two.env base/web.yaml a.env b.env c.env base/d.env prod.env .env"
    assert set(found) == {tmp_path / name for name in named.split()}
    assert list(found) == sorted(found)


def test_an_override_that_comes_later_is_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}")
    found = sources((str(tmp_path / "compose.yaml"),), (), str(tmp_path))
    assert tmp_path / "compose.override.yaml" in found and tmp_path / "docker-compose.override.yml" in found
    both = (str(tmp_path / "compose.yaml"), str(tmp_path / "compose.override.yml"))
    assert set(sources(both, (), str(tmp_path))) == {tmp_path / ".env", *map(Path, both)}


def test_files_that_make_no_sense_name_nothing(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    for text in (
        "",
        "[]",
        "services: 3",
        "services: { web: 1, api: { extends: [1], env_file: 7 } }",
        "include: 1",
        "a: [",
    ):
        file.write_text(text)
        assert sources((str(file), "-"), (), str(tmp_path)) == (tmp_path / ".env", file)


def found(
    root: Path, *files: str, env_files: tuple[str, ...] = (), directory: str = "", cwd: str = "", named: str = ""
) -> set[str]:
    """Relative to `root`, as everything that is given. `named` is COMPOSE_ENV_FILES."""
    with pytest.MonkeyPatch.context() as patch:
        (root / cwd).mkdir(exist_ok=True)
        patch.chdir(root / cwd)
        patch.setenv("COMPOSE_ENV_FILES", named)
        those = sources([str(root / file) for file in files], env_files, str(root / directory))
    return {str(file.relative_to(root)) for file in those}


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_names_are_resolved_without_dots(tmp_path: Path) -> None:
    write(tmp_path, {"deploy/shop.yaml": "include: [../inc/i.yaml]\nservices: { web: { env_file: ../web.env } }"})
    assert found(tmp_path, "deploy/shop.yaml", directory="deploy") == {
        "deploy/shop.yaml", "deploy/.env", "inc/i.yaml", "inc/.env", "web.env",
    }  # fmt: skip


def test_env_files_that_are_named_are_seen_from_here(tmp_path: Path) -> None:
    assert found(tmp_path, env_files=("prod.env",), directory="deploy", cwd="w") == {"w/prod.env", "deploy/.env"}
    both = found(tmp_path, directory="deploy", cwd="w", named="a.env,../b.env")
    assert both == {"w/a.env", "b.env", "deploy/.env"}
    assert found(tmp_path, env_files=("c.env",), cwd="w", named="a.env") == {"w/c.env", ".env"}


def test_an_env_file_that_says_where_the_project_is(tmp_path: Path) -> None:
    write(tmp_path, {".env": "COMPOSE_FILE=deploy/shop.yaml\nTAG=1\n", "deploy/shop.yaml": ""})
    assert found(tmp_path, "deploy/shop.yaml", directory="deploy") == {"deploy/shop.yaml", "deploy/.env", ".env"}


def test_the_users_files_are_seen_from_the_project_directory_and_those_extended_from_their_own(tmp_path: Path) -> None:
    text = "services: { web: { env_file: web.env, extends: { file: base/b.yaml, service: b } } }"
    write(tmp_path, {"deploy/shop.yaml": "", "other/shop.yaml": text})
    write(tmp_path, {"deploy/base/b.yaml": "services: { b: { env_file: b.env, extends: { file: ../c.yaml } } }"})
    assert found(tmp_path, "deploy/shop.yaml", "other/shop.yaml", directory="deploy") == {
        "deploy/shop.yaml", "other/shop.yaml", "deploy/.env", "deploy/web.env", "deploy/base/b.yaml",
        "deploy/base/b.env", "deploy/c.yaml",
    }  # fmt: skip
    assert "base/b.yaml" in found(tmp_path, "other/shop.yaml"), "as with --project-directory"


def test_what_is_included_is_seen_from_a_directory_of_its_own(tmp_path: Path) -> None:
    include = "include: [{ path: [a/a.yaml, b/b.yaml] }, { path: c/c.yaml, project_directory: d, env_file: e.env }]"
    files = {
        "shop.yaml": include,
        "a/a.yaml": "services: { a: { env_file: a.env } }",
        "b/b.yaml": "services: { b: { env_file: b.env } }",
        "c/c.yaml": "include: [n.yaml]\nservices: { c: { env_file: c.env } }",
    }
    write(tmp_path, files)
    assert found(tmp_path, "shop.yaml") == {
        "shop.yaml", ".env", "a/a.yaml", "a/.env", "a/a.env", "b/b.yaml", "a/b.env", "c/c.yaml", "d/.env", "d/c.env",
        "e.env", "d/n.yaml",
    }  # fmt: skip


def test_tags_and_further_documents_hide_no_names(tmp_path: Path) -> None:
    text = "services: { web: { ports: !reset [], command: !reset x, env_file: !override [a.env], build: !x {} } }\n"
    write(tmp_path, {"shop.yaml": f"{text}---\nservices: {{ web: {{ env_file: b.env }} }}\n---\nservices: {{"})
    assert found(tmp_path, "shop.yaml") == {"shop.yaml", ".env", "a.env", "b.env"}


def test_what_a_link_points_to_is_one_of_them(tmp_path: Path) -> None:
    write(tmp_path, {"conf/real.yaml": "services: { web: { env_file: web.env } }", "prod.env": "TAG=1"})
    (tmp_path / "shop.yaml").symlink_to("conf/real.yaml")
    (tmp_path / ".env").symlink_to("prod.env")
    assert found(tmp_path, "shop.yaml") == {"shop.yaml", "conf/real.yaml", ".env", "prod.env", "web.env"}
