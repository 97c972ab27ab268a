"""What HAProxy was told at its start: its command line and its configuration files, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SECTIONS = frozenset(
    [
        "global",
        "defaults",
        "frontend",
        "backend",
        "listen",
        "peers",
        "mailers",
        "resolvers",
        "userlist",
        "cache",
        "program",
        "http-errors",
        "ring",
        "log-forward",
        "fcgi-app",
        "crt-store",
        "traces",
        "acme",
        "log-profile",
    ]
)
# options of the program that take the next word with them
_WITH_VALUE = frozenset(["-C", "-L", "-N", "-m", "-n", "-p", "-x"])
_ENTRYPOINT = "docker-entrypoint.sh"  # the official image's: it adds -W -db to a bare `haproxy`


@dataclass(frozen=True, slots=True)
class CommandLine:
    """`files` are those of `-f` in order; `master_socket` without its options, empty when there is no `-S`."""

    program: str
    files: tuple[str, ...] = ()
    master_worker: bool = False
    master_socket: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a configuration file that is not empty. `section` is its section's first line."""

    file: str
    number: int
    words: tuple[str, ...]
    section: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def kind(self) -> str:
        return self.section[0] if self.section else ""

    def starts(self, *words: str) -> bool:
        return self.words[: len(words)] == words

    def after(self, word: str) -> str:
        """The word that follows `word`, empty when there is none."""
        rest = self.words[self.words.index(word) + 1 :] if word in self.words else ()
        return rest[0] if rest else ""


def parse_command_line(argv: Sequence[str]) -> CommandLine:
    """`argv` may begin with an entrypoint; without a word that is HAProxy's the options alone are read."""
    start = next((i for i, word in enumerate(argv) if word.rpartition("/")[2].startswith("haproxy")), None)
    program = argv[start] if start is not None else "haproxy"
    words = list(argv[start + 1 :] if start is not None else argv)
    files: list[str] = []
    master_worker = any(word.endswith(_ENTRYPOINT) for word in argv[: start or 1])
    master_socket = ""
    while words:
        word = words.pop(0)
        if word == "--":
            files += words
            break
        if word == "-f":
            while words and not words[0].startswith("-"):
                files.append(words.pop(0))
        elif word in ("-W", "-Ws"):
            master_worker = True
        elif word == "-S" and words and not words[0].startswith("-"):
            master_socket = words.pop(0).split(",")[0]
        elif word in _WITH_VALUE and words:
            words.pop(0)
    return CommandLine(program, tuple(files), master_worker, master_socket)


def parse_config(file: str, text: str) -> list[Line]:
    """The lines of a configuration file, each with its section; comments, quotes and escapes read as HAProxy does."""
    lines: list[Line] = []
    section: tuple[str, ...] = ()
    for number, raw in enumerate(text.splitlines(), 1):
        words = tokens(raw)
        if not words:
            continue
        if words[0] in SECTIONS:
            section = words
        lines.append(Line(file, number, words, section))
    return lines


def tokens(line: str) -> tuple[str, ...]:
    """One line's words. Environment variables stay as they are written: their value is not ours to know."""
    words: list[str] = []
    word = ""
    begun = False  # a word may be empty: ""
    quote = ""
    characters = iter(line)
    for character in characters:
        if character == "\\" and quote != "'":
            word += next(characters, "")
            begun = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "\"'":
            quote, begun = character, True
        elif character == "#":
            break
        elif character.isspace():
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word += character
            begun = True
    if begun:
        words.append(word)
    return tuple(words)


def seconds(value: str) -> float | None:
    """A time as HAProxy writes it (`15s`, `500ms`, bare milliseconds), in seconds; None when it is not one."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number = value.rstrip("usmhd")
    unit = value[len(number) :] or "ms"
    if not number.isdigit() or unit not in units:
        return None
    return int(number) * units[unit]
