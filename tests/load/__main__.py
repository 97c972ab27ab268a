"""`python -m tests.load URL`: load from a shell, until Ctrl-C or for --duration seconds. Exit 1 if a request failed."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys

from tests.load.clients import Session
from tests.load.mix import Mix
from tests.load.report import Report, Tally
from tests.load.wire import Target

LIVE_INTERVAL = 0.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("url", help="http://host[:port][/prefix]")
    parser.add_argument("--mix", default="standard", help="standard, light, or a JSON object of the fields of Mix")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds; 0 runs until Ctrl-C")
    parser.add_argument("--rate", type=float, help="open-loop arrivals a second, instead of the mix's")
    parser.add_argument("--host", default="", help="the Host header, if it is not that of the URL")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--control", action="store_true", help="take JSON commands on stdin, answer on stdout")
    return parser.parse_args()


class Control:
    """Answers the parent process (child.Load). One question is open at a time, except that `wait` may be superseded."""

    def __init__(self, session: Session) -> None:
        self.session, self.tally = session, session.tally
        self.wanted: int | None = None
        self.version = ""
        self.tally.changed = self.answer_wait

    async def serve(self) -> None:
        """Until `stop`, or the end of stdin: a parent that has died needs no load."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        say({"about": "ready"})
        while line := await reader.readline():
            question = json.loads(line)
            self.wanted = question.get("wait")
            self.version = question.get("version", "")
            self.answer_wait()
            if "progress" in question:
                say({"about": "progress", **progress(self.tally)})
            if "stop" in question:
                break
        self.wanted = None
        self.session.stop()

    def answer_wait(self) -> None:
        counted = self.tally.versions[self.version] if self.version else self.tally.total
        if self.wanted is not None and counted >= self.wanted:
            self.wanted = None
            say({"about": "wait", "counted": counted})


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def progress(tally: Tally) -> dict[str, object]:
    report = tally.report()
    names = ("total", "ok", "failed", "by_class", "by_version")
    return {name: getattr(report, name) for name in names}


async def live(session: Session) -> None:
    """One line on a terminal, rewritten."""
    tally, before = session.tally, 0
    while not session.stopping.is_set():
        await session.pause(LIVE_INTERVAL)
        versions = "  ".join(f"{version}: {count:,}" for version, count in sorted(tally.versions.items()))
        rate = (tally.total - before) / LIVE_INTERVAL
        before = tally.total
        line = f"{tally.total:,} requests  {rate:.0f}/s  {tally.failed:,} failed  versions {versions}"
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)


async def run(options: argparse.Namespace, mix: Mix) -> Report:
    session = Session(Target.parse(options.url, options.host), mix, Tally())
    loop = asyncio.get_running_loop()
    if not options.control:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, session.stop)
    if options.duration:
        loop.call_later(options.duration, session.stop)
    async with asyncio.TaskGroup() as group:
        group.create_task(session.run())
        if options.control:
            # A Ctrl-C in the terminal reaches the whole process group; only the parent decides when to stop.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            group.create_task(Control(session).serve())
        elif sys.stderr.isatty() and not options.json:
            group.create_task(live(session))
    return session.tally.report()


def main() -> int:
    options = arguments()
    try:
        mix = Mix.parse(options.mix)
        Target.parse(options.url)
    except (ValueError, OSError) as error:
        print(f"tests.load: {error}", file=sys.stderr)
        return 2
    if options.rate is not None:
        mix = dataclasses.replace(mix, arrivals=options.rate)
    report = asyncio.run(run(options, mix))
    if options.control:
        say({"about": "stop", "report": report.to_json()})
        return 0
    print(report.to_json() if options.json else report.describe())
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
