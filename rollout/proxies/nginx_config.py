"""nginx's configuration language: text to directives, and the complete configuration as `nginx -T` prints it.

Read by tokens, so that comments, quotes and Lua blocks are what they are to nginx. Only what nginx itself accepted, or
is about to judge, is read here; text that ends in the middle of a directive is not an error of this module.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive. `text[start:end]` is all of it, its `;` or block included; `block` is None for a simple one."""

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    start: int
    end: int
    block: tuple[Directive, ...] | None = None

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The configuration of an nginx, file by file in the order it reads them, by absolute path as nginx sees it."""

    main: str
    files: Mapping[str, str]
    version: tuple[int, ...] = ()
    user: str = ""  # the worker's account that nginx was built with
    prefix: str = "/usr/local/nginx"  # what relative paths of logs begin at
    problem: tuple[str, ...] = ()  # what nginx says is wrong with it; empty when it loads
    _parsed: dict[str, tuple[Directive, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def directory(self) -> str:
        """What relative paths of includes and certificates begin at."""
        return posixpath.dirname(self.main)

    def resolve(self, path: str) -> str:
        return path if path.startswith("/") else posixpath.join(self.directory, path)

    def directives(self, file: str) -> tuple[Directive, ...]:
        """The file's own directives, includes as they stand."""
        if file not in self._parsed:
            self._parsed[file] = parse(self.files.get(file, ""), file)
        return self._parsed[file]

    def included(self, include: Directive) -> list[str]:
        """The files an include directive brings in, in nginx's order."""
        pattern = self.resolve(include.args[0]) if include.args else ""
        return sorted(file for file in self.files if matches(file, pattern))

    def tree(self, block: tuple[Directive, ...] | None = None, depth: int = 0) -> Iterator[Directive]:
        """The directives of a block (of the main file without one) with includes replaced by what they bring in."""
        for directive in self.directives(self.main) if block is None else block:
            if directive.name == "include" and depth < 32:  # as nginx: a file that includes itself ends somewhere
                for file in self.included(directive):
                    yield from self.tree(self.directives(file), depth + 1)
            else:
                yield directive

    def walk(self, block: tuple[Directive, ...] | None = None) -> Iterator[Directive]:
        """Every directive at every depth, includes replaced."""
        for directive in self.tree(block):
            yield directive
            if directive.block is not None:
                yield from self.walk(directive.block)


def matches(path: str, pattern: str) -> bool:
    """Whether an include of `pattern` brings in `path`: as glob(3), where `*` stops at a slash and hides dot files."""
    names, patterns = path.split("/"), pattern.split("/")
    if len(names) != len(patterns):
        return False
    return all(
        fnmatchcase(name, wanted) and (not name.startswith(".") or wanted.startswith("."))
        for name, wanted in zip(names, patterns, strict=True)
    )


def parse(text: str, file: str = "") -> tuple[Directive, ...]:
    """The directives of a configuration file, blocks nested."""
    return tuple(_Parser(text, file).block())


_TOKEN = re.compile(
    r"""[ \t\r\n]+ | \#[^\n]*
    | (?P<mark>[;{}])
    | "(?P<double>(?:\\.|[^"\\])*)"? | '(?P<single>(?:\\.|[^'\\])*)'?
    | (?P<bare>(?:\\.|\$\{|[^ \t\r\n;{\\])+) | \\""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"""\\([trn"'\\])""")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}
_LUA = re.compile(
    r"""--\[(=*)\[.*?\]\1\]|--[^\n]*|\[(=*)\[.*?\]\2\]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{}]""", re.DOTALL
)

_DEEPEST = 50  # blocks within blocks; nginx's own contexts allow about six


class _Parser:
    """One pass over a text: words gather until `;` or a block makes them a directive."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._depth = 0
        self._lines = [found.end() for found in re.finditer("\n", text)]

    def block(self) -> Iterator[Directive]:
        """The directives up to the end of the block, or of the text."""
        words: list[str] = []
        start = self._at
        while found := _TOKEN.match(self._text, self._at):
            self._at = found.end()
            kind = found.lastgroup
            if kind == "mark":
                if found.group() == "}":
                    return
                inner = self._inner(words) if found.group() == "{" else None
                if words:
                    line = bisect_right(self._lines, start) + 1
                    yield Directive(words[0], tuple(words[1:]), self._file, line, start, self._at, inner)
                words = []
            elif kind is not None:
                start = start if words else found.start()
                words.append(_ESCAPE.sub(lambda e: _ESCAPED.get(e.group(1), e.group(1)), found.group(kind)))

    def _inner(self, words: list[str]) -> tuple[Directive, ...]:
        if words and words[0].endswith("_by_lua_block"):
            self._skip_lua()
            return ()
        if self._depth == _DEEPEST:
            self._skip_block()
            return ()
        self._depth += 1
        inner = tuple(self.block())
        self._depth -= 1
        return inner

    def _skip_block(self) -> None:
        depth = 1
        while depth and (found := _TOKEN.match(self._text, self._at)):
            self._at = found.end()
            depth += {"{": 1, "}": -1}.get(found["mark"] or "", 0)

    def _skip_lua(self) -> None:
        """Go past a Lua block to its closing brace, which is not one within a string or a comment."""
        depth = 1
        for found in _LUA.finditer(self._text, self._at):
            depth += {"{": 1, "}": -1}.get(found.group(), 0)
            if depth == 0:
                self._at = found.end()
                return
        self._at = len(self._text)


# --- what `nginx -V -q -T` prints ------------------------------------------------------------------------------

_HEADER = re.compile(r"^# configuration file (/[^\n]*):\n", re.MULTILINE)
_VERSION = re.compile(r"^(?:nginx|[A-Za-z]+) version: \S+?/(\d{1,9}(?:\.\d{1,9})*)", re.MULTILINE)
# What stderr says arrives anywhere between the files on stdout, and a user's comment may have the same words. So what
# nginx was built with is looked for as a whole block, which nobody writes, or at the beginning of a line, where no
# directive has them; and what it logs anywhere, also within a line, but in no comment.
_BUILD = re.compile(r"(?:[A-Za-z]+ version: \S+/\d[^\n]*\n)+(?:(?:built|TLS) [^\n]*\n)*configure arguments:[^\n]*\n")
_BUILD_PART = re.compile(
    r"^(?:[A-Za-z]+ version: \S+/\d|built by |built with |TLS SNI support |configure arguments:)[^\n]*\n", re.MULTILINE
)
_LOGGED = re.compile(
    r"(?:nginx: (?:\[\w+\]|configuration file) |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\w+\] \d+#\d+: )[^\n]*\n"
)


def read_dump(output: str) -> LoadedConfig | None:
    """The configuration from the output of `nginx -V -q -T`; None when nginx did not print one (it is not valid)."""
    text = _LOGGED.sub(_unless_in_a_comment, output)
    build = _BUILD.search(text)
    about = [build.group()] if build else _BUILD_PART.findall(text)
    text = text[: build.start()] + text[build.end() :] if build else _BUILD_PART.sub("", text)
    heads = list(_HEADER.finditer(text))
    if not heads:
        return None
    ends = [*(head.start() for head in heads[1:]), len(text)]
    files = {head.group(1): text[head.end() : end].removesuffix("\n") for head, end in zip(heads, ends, strict=True)}
    words = "".join(about)
    return LoadedConfig(heads[0].group(1), files, version_of(words), built_argument(words, "user") or "nobody")


def _unless_in_a_comment(found: re.Match[str]) -> str:
    line = found.string.rfind("\n", 0, found.start()) + 1
    return found.group() if "#" in found.string[line : found.start()] else ""


def version_of(output: str) -> tuple[int, ...]:
    """The version in the output of `nginx -v`, empty when it is not there."""
    found = _VERSION.search(output)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def built_argument(output: str, name: str) -> str:
    """What nginx was built with (`nginx -V`): `--conf-path=` and the like; empty when not given."""
    found = re.search(rf"--{name}=(\S+)", output)
    return found.group(1).strip("'\"") if found else ""


def seconds(text: str) -> float:
    """A time as nginx writes it (`1h 30m`, `500ms`, `75`, `75s`) in seconds; 0 for what is none."""
    unit = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
    return sum(float(number) * unit[name] for number, name in re.findall(r"(\d+)\s*(ms|[smhdwMy]|)", text))
