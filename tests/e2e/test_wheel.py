"""The wheel that users get: complete, and it renders from its own templates what the checkout renders from its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from rollout import __version__
from tests.e2e.projects import EDGES, Edge, project, tree

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
WHERE = "import rollout; from rollout.proxies.render import built_in; print(rollout.__file__, built_in(), sep='\\n')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", place, ROOT, cwd=place)
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing of rollout but the wheel. The libraries are shared with the one that tests: a path
    in a .pth file is searched, but the .pth files there, with the checkout among them, are not followed."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, symlinks=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", place, "install", "-q", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=place)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def run(*argv: str | Path, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(argv, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_the_package_with_every_template_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith(f"rollout-{__version__}.dist-info/")}
        entry_points = archive.read(f"rollout-{__version__}.dist-info/entry_points.txt").decode()
    templates = {f"rollout/templates/{p.relative_to(ROOT / 'templates')}" for p in (ROOT / "templates").rglob("*.j2")}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "rollout").rglob("*.py")} | {"rollout/py.typed"}
    pages = {str(p.relative_to(ROOT)) for p in (ROOT / "rollout/server/pages").iterdir()}
    assert held == templates | modules | pages
    assert "docker-rollout = rollout.cli:docker_rollout_script" in entry_points


def test_its_program_runs_from_it_alone(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "bin/rollout", "--version", cwd=tmp_path).split()[-1] == __version__
    for place in run(installed / "bin/python", "-c", WHERE, cwd=tmp_path).splitlines():
        assert Path(place).is_relative_to(installed), place


@pytest.mark.parametrize("edge", EDGES[1:], ids=str)
def test_it_renders_what_the_checkout_renders(edge: Edge, installed: Path, short_directory: Path) -> None:
    hosts = {"x-rollout": {"hosts": ["shop.example"]}} if edge.type == "nginx" else {}
    with project(edge, short_directory, **hosts) as shop:
        folder = short_directory / "edge/rollout.d"
        shop.rollout("render")
        from_checkout = tree(folder)
        assert len(from_checkout) > 0
        shop.program = (str(installed / "bin/rollout"),)
        empty(folder)
        shop.rollout("render")
        assert tree(folder) == from_checkout
        for template in (installed / "lib").glob(f"python*/site-packages/rollout/templates/{edge.type}/*.j2"):
            template.write_text(template.read_text() + "# the wheel's own\n")
        empty(folder)
        shop.rollout("render")
        assert b"# the wheel's own" in b"".join(tree(folder).values()), "these templates are not the ones it uses"


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
