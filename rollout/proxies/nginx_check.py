"""A way to test a configuration before nginx could ever load it.

The files between the main configuration and rollout's directory are copied with the one include that leads there
turned to the candidate; `nginx -t -c` then reads everything else from where it is. Relative paths begin at the
directory of the file given with `-c`: its copy stands in a tree that mirrors its path, with links to what is there.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rollout.proxies.nginx_config import Directive, LoadedConfig

FOLDER = "check"
ENTRY = "rollout.conf"


def entry(directory: str) -> str:
    """The text of `rollout.conf` for the directory as nginx sees it, what the user's include finds: constant."""
    about = "# Written by rollout. The configuration in force is the one that `current` points to."
    return f"{about}\ninclude {quoted(f'{directory}/current/*.conf')};\n"


def quoted(word: str) -> str:
    """A word as nginx reads it back."""
    if not set(word) & set(" \t\r\n;{}#'\"\\$"):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, slots=True)
class Check:
    """The files and links of a check, by path below its folder, and the file to give to `nginx -t -c`."""

    main: str
    files: dict[str, str]
    links: dict[str, str]

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            path = folder / name
            _make_folder(path.parent, folder)
            path.write_bytes(text.encode(errors="surrogateescape"))
            path.chmod(0o644)
        for name, target in self.links.items():
            _make_folder((folder / name).parent, folder)
            (folder / name).symlink_to(target)

    def original(self, words: str, generation: str) -> str:
        """nginx's words about a copy as words about the user's own file, about the generation as about a template."""
        for name in self.files:
            words = words.replace(f"{generation}/{FOLDER}/{name}", "/" + name.partition("/")[2])
        return words.replace(f"{generation}/", "the new ")


def _make_folder(path: Path, top: Path) -> None:
    if not path.is_dir():
        if path != top:
            _make_folder(path.parent, top)
        path.mkdir()
        path.chmod(0o755)  # whatever the umask: nginx may run as another user


def plan_check(config: LoadedConfig, directory: str, generation: str) -> Check | None:
    """How to test `generation` (a folder in `directory`; both as nginx sees them) within the user's configuration.

    None when no include of that configuration leads to `directory`: then nothing in it would be loaded.
    """
    files = {**config.files, f"{directory}/{ENTRY}": entry(directory)}
    copies = _Copies(LoadedConfig(config.main, files, config.version), directory, generation)
    if not copies.affects(config.main):
        return None
    copies.write(config.main)
    return Check(
        copies.path(config.main), copies.written, _links(config, directory, posixpath.dirname(copies.path(config.main)))
    )


def leads_to(config: LoadedConfig, directory: str) -> bool:
    """Whether an include of the configuration loads what is in `directory`."""
    return plan_check(config, directory, f"{directory}/any") is not None


class _Copies:
    """Rewritten copies of those files, and only those, that lead to rollout's directory."""

    def __init__(self, config: LoadedConfig, directory: str, generation: str) -> None:
        self._config = config
        self._current = f"{directory}/current/"
        self._generation = generation
        self._affected: dict[str, bool] = {}
        self.written: dict[str, str] = {}

    def path(self, original: str) -> str:
        """Where the copy of a file is below the check's folder; not in the mirror, where links may be in the way."""
        return ("mirror" if original == self._config.main else "copies") + original

    def affects(self, file: str) -> bool:
        if file not in self._affected:
            self._affected[file] = False  # a file that includes itself
            self._affected[file] = any(self._redirected(directive) for directive in self._includes(file))
        return self._affected[file]

    def write(self, file: str) -> None:
        if self.path(file) in self.written:
            return
        self.written[self.path(file)] = ""
        text = self._config.files[file]
        for directive in reversed(self._includes(file)):
            replaced = self._redirected(directive)
            if replaced:
                text = text[: directive.start] + replaced + text[directive.end :]
        self.written[self.path(file)] = text

    def _includes(self, file: str) -> list[Directive]:
        return [d for d in _within(self._config.directives(file)) if d.name == "include" and d.args]

    def _redirected(self, directive: Directive) -> str:
        """What stands in the copy for this include; empty when it does not lead to rollout's directory."""
        pattern = self._config.resolve(directive.args[0])
        if pattern.startswith(self._current):
            return f"include {quoted(f'{self._generation}/{pattern.removeprefix(self._current)}')};"
        files = self._config.included(directive)
        if not any(self.affects(file) for file in files):
            return ""
        return " ".join(f"include {quoted(self._place(file))};" for file in files)

    def _place(self, file: str) -> str:
        if not self.affects(file):
            return file
        self.write(file)
        return f"{self._generation}/{FOLDER}/{self.path(file)}"


def _within(block: tuple[Directive, ...]) -> list[Directive]:
    found = []
    for directive in block:
        found.append(directive)
        found.extend(_within(directive.block or ()))
    return found


# Their words are no paths: no link is made for each of a thousand server names.
_NO_PATHS = frozenset({"types", "server_name", "listen", "server", "upstream", "location", "return", "rewrite", "if"})
_OWN_KEYS = frozenset({"types", "map", "geo", "split_clients"})


def _links(config: LoadedConfig, directory: str, mirror: str) -> dict[str, str]:
    """For every word that could be a relative path: a link in the mirror to where it would begin in the original."""
    links: dict[str, str] = {}
    for file in config.files:
        if file.startswith(f"{directory}/"):
            continue  # rollout's own: no relative paths
        for directive in _with_paths(config.directives(file)):
            for word in directive.args:
                if set(word.partition("/")[0]) & set("*?["):
                    words = [posixpath.relpath(f, config.directory) for f in config.included(directive)]
                else:
                    words = [word]
                for name in words:
                    _link(links, config.directory, mirror, name)
    links.pop(f"{mirror}/{posixpath.basename(config.main)}", None)
    return links


def _with_paths(block: tuple[Directive, ...]) -> Iterator[Directive]:
    for directive in block:
        if directive.name not in _NO_PATHS:
            yield directive
        if directive.name in _OWN_KEYS:
            yield from (d for d in directive.block or () if d.name == "include")
        else:
            yield from _with_paths(directive.block or ())


def _link(links: dict[str, str], directory: str, mirror: str, word: str) -> None:
    """Add the link for the first part of a relative `word` that leaves the path of `directory` itself."""
    if not word or word[0] in "/$" or "\n" in word or "\0" in word:
        return
    at = directory
    for part in word.split("/"):
        below = posixpath.normpath(posixpath.join(at, part))
        if directory == below or directory.startswith(f"{below.rstrip('/')}/"):
            at = below
        elif len(part.encode()) < 256:
            links[posixpath.normpath(posixpath.join(mirror, posixpath.relpath(below, directory)))] = below
            return
        else:
            return
