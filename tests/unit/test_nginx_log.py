"""Reading nginx's access log from one mark to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.proxies.nginx_log import UNKNOWN, Mark, lines, size


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


def test_a_log_that_may_not_be_looked_at_has_an_unknown_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "access.log"
    log.write_text("one\ntwo\n")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as another_user:
        another_user.setattr(Path, "stat", refused)
        assert size(str(log)) == UNKNOWN
    assert size(str(tmp_path / "none yet")) == 0


def test_what_came_after_a_mark_that_is_not_known_is_not_known(tmp_path: Path) -> None:
    """Whoever may read the log is not told all that was ever in it."""
    log = tmp_path / "access.log"
    log.write_text("one\ntwo\n")
    for start, end in ((UNKNOWN, None), (UNKNOWN, 4), (0, UNKNOWN)):
        with pytest.raises(ValueError, match="not known"):
            list(lines(str(log), start, end))


def test_a_mark_is_what_its_text_says() -> None:
    mark = Mark(1.7e9, {"/var/log/a": 7})
    assert Mark.read(mark.text()) == mark


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"since": "x", "sizes": {}}', '{"since": 1, "sizes": {"a": "b"}}']
)
def test_a_text_that_is_no_mark(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Mark.read(text)
