"""The nginx that runs: its command line, its configuration as it would load it now, its verdict on another."""

from __future__ import annotations

import posixpath
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollout.errors import ProxyUnreachable
from rollout.ports import Clock, Process, ProxyProcess
from rollout.proxies.nginx_config import LoadedConfig, built_argument, parse, read_dump, version_of

FRESH = 10.0  # seconds for which a configuration that was read is taken as what is on disk
_PROGRAMS = ("nginx", "openresty", "angie", "freenginx", "tengine")
_INITS = ("docker-init", "tini", "dumb-init", "catatonit")  # these pass signals on to what they start
_TITLE = re.compile(r"(?:nginx|angie): ")
_MASTER = re.compile(r"(?:nginx|angie): master process ?")
_ANGIE = re.compile(r"v\d.*? #\d+ \[(.*?)\]?")  # its version and the number of the generation around the command line
_MISSING = (126, 127)
# Listed by the shell as glob(3) does it for nginx: in the order of bytes, without splitting at spaces.
_GLOB = 'LC_ALL=C; IFS=; for file in $0; do [ -f "$file" ] && printf "%s\\n" "$file"; done; true'


@dataclass(frozen=True, slots=True)
class _Read:
    identity: str
    at: float
    config: LoadedConfig


class Program:
    """The nginx behind a ProxyProcess. `binary` and `main` override what its command line says."""

    def __init__(self, process: ProxyProcess, clock: Clock, binary: str = "", main: str = "") -> None:
        self._process = process
        self._clock = clock
        self._binary = binary
        self._main = main
        self._read: _Read | None = None
        self._reading = threading.Lock()

    def config(self) -> LoadedConfig:
        """What it would load now, file by file; at most a few seconds old. Raises ProxyUnreachable."""
        with self._reading:  # who comes meanwhile wants the same
            identity, now = self._process.identity(), self._clock.now()
            known = self._read
            if (
                known is None
                or known.identity != identity
                or now - known.at > (FRESH if not known.config.problem else 0)
            ):
                self._read = known = _Read(identity, now, self._load())
            return known.config

    def forget(self) -> None:
        """The files have changed: read them again."""
        self._read = None

    def test(self, main: str) -> list[str]:
        """nginx's own words against the configuration that begins with this file; none when it accepts it."""
        done = self._process.exec([*self._command(main), "-q", "-t"])
        if done.exit_code in _MISSING:
            raise self._missing()
        return _complaints(done.output) if done.exit_code else []

    def reload(self, processes: Sequence[Process]) -> None:
        """Tell it to load its configuration again. Returns at once. `processes` are those it has now, the main one
        first. Raises ProxyUnreachable."""
        if _reached(processes):
            self._process.signal("HUP")
            return
        # the main process is what started nginx: a shell, which the signal may end, or a supervisor, which starts anew
        done = self._process.exec([*self._command(self._main), "-s", "reload"])
        if done.exit_code:
            raise ProxyUnreachable(
                f"{self._process.describe()} cannot be told to reload", details=_complaints(done.output)
            )

    # --- within ---------------------------------------------------------------------------------------------

    def _command(self, main: str) -> list[str]:
        """nginx with the options it was started with, and this main configuration (empty: its own)."""
        program, options = _started_with(self._process)
        main = main or self._main or options.get("-c", "")
        kept = [word for name in ("-p", "-g", "-e") if name in options for word in (name, options[name])]
        return [self._binary or program, *kept, *(("-c", main) if main else ())]

    def _load(self) -> LoadedConfig:
        done = self._process.exec([*self._command(self._main), "-V", "-q", "-T"])
        if done.exit_code in _MISSING:
            raise self._missing()
        _, options = _started_with(self._process)
        prefix = options.get("-p") or built_argument(done.output, "prefix") or "/usr/local/nginx"
        config = read_dump(done.output) if done.exit_code == 0 else None
        if config is None:
            main = self._main or options.get("-c") or built_argument(done.output, "conf-path") or "conf/nginx.conf"
            config = self._followed(done.output, posixpath.join(prefix, main))
        users = [d.args for d in config.tree() if d.name == "user" and d.args]
        return replace(config, user=":".join(users[-1]) if users else config.user, prefix=prefix)

    def _followed(self, output: str, main: str) -> LoadedConfig:
        """The files of a configuration that nginx refuses (an upstream that is still to come is enough for that), found
        by following its includes."""
        about = "".join(line for line in output.splitlines(keepends=True) if "emerg" not in line)
        files: dict[str, str] = {}
        found = LoadedConfig(
            main,
            files,
            version_of(about),
            built_argument(about, "user") or "nobody",
            problem=tuple(_complaints(output)),
        )
        self._follow(main, found, files)
        return found

    def _follow(self, file: str, config: LoadedConfig, files: dict[str, str]) -> None:
        content = self._process.read(file)
        if content is None or file in files:
            return
        files[file] = content.decode(errors="surrogateescape")
        pending = list(parse(files[file], file))
        while pending:
            directive = pending.pop()
            pending.extend(directive.block or ())
            if directive.name == "include" and directive.args:
                for name in self._glob(config.resolve(directive.args[0])):
                    self._follow(name, config, files)

    def _glob(self, pattern: str) -> Sequence[str]:
        if not set(pattern) & set("*?["):
            return [pattern]
        done = self._process.exec(["sh", "-c", _GLOB, pattern])
        return done.output.splitlines() if done.exit_code == 0 else []

    def _missing(self) -> ProxyUnreachable:
        program = self._command("")[0]
        return ProxyUnreachable(
            f"there is no program {program} in {self._process.describe()}",
            hint="is it nginx? x-rollout.proxy names the type of the proxy and where it runs",
        )


def _started_with(process: ProxyProcess) -> tuple[str, dict[str, str]]:
    """nginx's program and its options (`-c`, `-p`, `-g`, `-e`) from its master's title: the container may have been
    started with something else. From the container's command line where there is no master (yet)."""
    words = process.argv()
    masters = [one.title for one in process.processes() if _MASTER.match(one.title)]
    line = _command_line(masters[0]) if masters else ""
    for at, word in enumerate(words):
        if word.split() != [word]:
            continue  # a script for a shell
        # a title has no quotes left: the same as words is better
        if " ".join(words[at:]) == line if line else posixpath.basename(word) in _PROGRAMS:
            return word, _options(words[at + 1 :])
    # what follows -g goes up to the next option
    program, *split = re.split(r" (-[cpge]) ?", line)
    options = zip(split[::2], split[1::2], strict=True)
    return (program.split() or ["nginx"])[0], {name: value.strip() for name, value in options}


def _command_line(title: str) -> str:
    """What a master was started with, as its title has it."""
    line = _MASTER.sub("", title, count=1).strip()
    angie = _ANGIE.fullmatch(line)
    return angie.group(1) if angie else line


def _reached(processes: Sequence[Process]) -> bool:
    """Whether a signal to the main process, the first, gets to nginx: it is that (on this host all of them are), or an
    init that has started just that and no script, of which nobody knows what it has become."""
    main = processes[0].title if processes else ""
    if _TITLE.match(main):
        return True
    init, *words = main.split() or [""]
    after = words[words.index("--") + 1 :] if "--" in words else [word for word in words if word[0] != "-"]
    program = after[0] if after else ""
    return posixpath.basename(init) in _INITS and posixpath.basename(program) in _PROGRAMS


def _options(words: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in ("-c", "-p", "-g", "-e"):
            options[word] = next(rest, "")
        elif word[:2] in ("-c", "-p", "-g", "-e"):
            options[word[:2]] = word[2:]
    return options


def _complaints(output: str) -> list[str]:
    """The lines that say why, without time and process; all of them when none looks like one."""
    found = [line for line in output.splitlines() if "[emerg]" in line or "[crit]" in line or "[alert]" in line]
    kept = found or [line for line in output.splitlines() if line.strip()]
    return list(dict.fromkeys(shortened(line) for line in kept))


def shortened(line: str) -> str:
    """nginx's message without its date, pids and name in front."""
    return re.sub(r"^(?:(?:nginx|angie): )?(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?(\[\w+\]) (?:\d+#\d+: )?", r"\1 ", line)
