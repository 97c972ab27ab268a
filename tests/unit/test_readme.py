"""What README and docs name exists, and what exists is named: commands, options, exit codes, keys, figures."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import click
import pytest

from bench.table import quoted
from rollout.cli.plugin import compatible
from rollout.cli.program import VERBS, program
from rollout.errors import ExitCode
from rollout.model import HealthCheck, PoolOptions, ServiceSettings, UpdateConfig
from rollout.spec import sections
from rollout.spec.section import Section
from rollout.spec.values import seconds

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
FOREIGN = ("docker", "make", "pip", "curl")  # programs with options of their own
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def first_column(text: str) -> list[str]:
    """What stands in backticks at the beginning of each row of the tables in `text`."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}.*?$(.*?)(?=^## |\Z)", CONFIGURATION, re.MULTILINE | re.DOTALL)
    assert found, f"docs/configuration.md has no section {title}"
    return found[1]


def code(text: str) -> list[str]:
    """Everything in backticks, and the lines of shell snippets."""
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*shell.splitlines(), *re.findall(r"`([^`\n]+)`", prose)]


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("`x-rollout.proxy`", sections.PROXY),
        ("`services.NAME.x-rollout`", sections.SERVICE),
        ("`services.NAME.x-rollout.health`", sections.HEALTH),
        ("`services.NAME.x-rollout.schedule`", sections.SCHEDULE),
        ("`services.NAME.x-rollout.hooks`", sections.HOOKS),
        ("`services.NAME.x-rollout.hooks.HOOK`", sections.HOOK),
        ("`x-rollout.notify`", sections.NOTIFY),
        ("`x-rollout.serve.webhook`", sections.WEBHOOK),
        ("`services.NAME.deploy.update_config`", sections.UPDATE),
    ],
)
def test_the_reference_names_exactly_the_keys_there_are(title: str, keys: Section) -> None:
    assert sorted(first_column(section(title))) == sorted(keys.fields)


def test_the_readme_names_only_keys_there_are() -> None:
    named = {key.removeprefix("x-rollout.") for key in first_column(README) if key.startswith("x-rollout.")}
    assert named
    assert named <= set(sections.SERVICE.fields)


@pytest.mark.parametrize(
    ("title", "holds"),
    [
        ("`services.NAME.x-rollout`", PoolOptions()),
        ("`services.NAME.x-rollout`", ServiceSettings("web", 80)),
        ("`services.NAME.x-rollout.health`", HealthCheck()),
        ("`services.NAME.deploy.update_config`", UpdateConfig()),
    ],
)
def test_the_reference_says_the_defaults_that_hold(title: str, holds: object) -> None:
    said = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", section(title), re.MULTILINE))
    plain = {key: getattr(holds, key) for key in said if isinstance(getattr(holds, key, None), int | float | str)}
    assert plain
    for key, value in plain.items():
        assert (seconds(said[key]) if type(value) is float else said[key]) == (
            value if type(value) is float else str(value).lower()
        ), key


def test_the_readme_lists_every_command() -> None:
    listed = {key.split()[1] for key in first_column(README) if key.startswith("rollout ")}
    assert listed == set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    context = click.Context(program)
    commands = {name: program.get_command(context, name) for name in VERBS}
    options = {
        option
        for command in (program, compatible, *commands.values())
        if command
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for words in (text.split() for text in code(page.read_text())):
        for before, word in itertools.pairwise(["", *words]):
            if before == "rollout" and words[0] not in FOREIGN and not word.startswith("-"):
                assert word in VERBS, " ".join(words)
            if word.startswith("--") and words[0] not in FOREIGN:
                assert word in options, " ".join(words)


def test_the_readme_lists_every_exit_code() -> None:
    table = README.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(map(int, ExitCode))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_quotes_the_figures_that_were_measured() -> None:
    results = json.loads((ROOT / "bench" / "results.json").read_text())
    assert README.partition("<!-- bench -->\n")[2].partition("<!-- /bench -->")[0] == quoted(results)
