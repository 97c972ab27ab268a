"""rollout render"""

from __future__ import annotations

from pathlib import Path

import click

from rollout.cli.options import global_options
from rollout.cli.session import session


@click.command()
@global_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Write the proxy's configuration from what runs now, without a reload.

    Also before the proxy runs, so that it can start with files that name its upstreams; a service that has no replica
    yet answers 503.
    """
    with session(ctx, document=True) as running, running.project() as wired:
        from rollout.initial import write_initial

        directory = Path(wired.project.proxy.config)
        before = _contents(directory)
        write_initial(wired)
        now = _contents(directory)
        written = sorted(path for path, text in now.items() if before.get(path) != text)
        running.show({"directory": str(directory), "written": written}, lambda: _text(directory, written))


def _contents(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def _text(directory: Path, written: list[str]) -> str:
    if not written:
        return f"{directory} is up to date: nothing was written"
    return "\n".join([f"written in {directory}:", *(f"  {path}" for path in written)])
