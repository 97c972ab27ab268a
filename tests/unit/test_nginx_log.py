"""Reading nginx's access log from one mark to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.proxies.nginx_log import Mark, lines, size


def test_from_mark_to_mark_each_line_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    read: list[str] = []
    sizes = [size(str(log))]
    for k in range(5):
        with log.open("a") as file:
            file.write(f"first of {k}\nsecond of {k}, \u00e9\n")
        sizes.append(size(str(log)))
        with log.open("a") as file:
            file.write(f"meanwhile {k}\n")  # written after the mark, before the log is read
        read += lines(str(log), sizes[-2], sizes[-1])
    assert [*read, *lines(str(log), sizes[-1])] == log.read_text().splitlines()


def test_a_log_that_was_rotated_is_read_from_its_first_line(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("one\ntwo\n")
    assert list(lines(str(log), 1000)) == ["one", "two"]
    assert list(lines(str(log), 1000, 4)) == ["one"]


def test_what_no_decoder_knows_is_a_line_too(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(b"\xff\xfe\nnext\n")
    assert list(lines(str(log), 0)) == ["\ufffd\ufffd", "next"]


def test_a_mark_is_what_its_text_says() -> None:
    mark = Mark(1.7e9, {"/var/log/a": 7})
    assert Mark.read(mark.text()) == mark


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"since": "x", "sizes": {}}', '{"since": 1, "sizes": {"a": "b"}}']
)
def test_a_text_that_is_no_mark(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Mark.read(text)
