"""Which files make a project another when they change."""

from __future__ import annotations

from pathlib import Path

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
    found = sources((str(tmp_path / "shop.yaml"),), ("prod.env",), str(tmp_path))
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
