"""Notifications: what is told of what, signed how, retried when, and what is never said."""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from pathlib import Path

import pytest
import tenacity  # noqa: F401  # lazily it comes with the first message, and may take longer than a test waits for that

import rollout.notify.delivery  # noqa: F401  # the same
from rollout.clock import SystemClock
from rollout.events import Event, Finished, Held, Notice, Paused, StepFinished, Unfinished, Warned
from rollout.model import OUTCOMES, NotifySettings
from rollout.notify import Notifier
from rollout.receipt import Receipt
from tests.receiver import Receiver, receiver

PATH = "/services/T00/B00/planted-hunter2"


def finished(outcome: str = "deployed", reason: str = "") -> Finished:
    receipt = Receipt("web", 7, "deploy", outcome, "rolling", 3, 2, 2, 1.7e9, 2.4, reason=reason)
    return Finished("web", outcome, receipt.as_json())


def notifier(*settings: NotifySettings) -> tuple[Notifier, list[Event]]:
    warnings: list[Event] = []
    return Notifier("shop", settings, SystemClock(), warnings.append), warnings


def one(at: Receiver, event: Event, **settings: object) -> list[Event]:
    """Tell of one event and wait for the end; the warnings."""
    made, warnings = notifier(NotifySettings(url=at.url + PATH, **settings))  # type: ignore[arg-type]  # by name
    made(event)
    made.close()
    return warnings


def test_the_end_of_a_rollout_is_told_with_its_receipt() -> None:
    with receiver() as at:
        assert one(at, finished("undone", "service web: the pre_deploy hook failed")) == []
        (told,) = at.requests
    assert told.path == PATH and told.headers["Content-Type"] == "application/json"
    assert told.json["id"] == told.headers["X-Rollout-Delivery"] and len(told.json["id"]) == 32
    assert {k: told.json[k] for k in ("project", "service", "outcome", "rollout")} == {
        "project": "shop", "service": "web", "outcome": "undone", "rollout": 7,
    }  # fmt: skip
    assert told.json["text"].startswith("web: not deployed after 2.40 s: revision 3 was taken back")
    assert told.json["text"].endswith("the pre_deploy hook failed")
    assert told.json["receipt"]["revision"] == 3 and abs(told.json["at"] - time.time()) < 60
    assert "X-Rollout-Signature" not in told.headers


@pytest.mark.parametrize(
    ("event", "outcome", "text"),
    [
        (Held("web", 7, 3, ("10.0.0.2:80",)), "held", "web: ready and held: `rollout promote web`"),
        (Paused("web", 7, "cli:anna", "stop 0f3a"), "paused", "web: paused by cli:anna, before: stop 0f3a"),
        (Unfinished("web", 7, "the engine is gone", ""), "unfinished", "web: left unfinished: the engine is gone"),
    ],
)
def test_what_waits_for_a_person_is_told(event: Event, outcome: str, text: str) -> None:
    with receiver() as at:
        assert one(at, event) == []
        (told,) = at.requests
    assert (told.json["outcome"], told.json["rollout"], told.json["receipt"]) == (outcome, 7, None)
    assert told.json["text"].startswith(text)


def test_all_that_is_said_on_the_way_is_not_told() -> None:
    with receiver() as at:
        for event in (Notice("web", "x"), StepFinished("web", 0, "start", "x", 1.0), Warned("web", "x", "y")):
            assert one(at, event) == []
        assert at.requests == []


def test_only_the_outcomes_asked_for_are_told() -> None:
    with receiver() as at:
        for outcome in ("deployed", "undone", "failed"):
            one(at, finished(outcome), on=("failed", "undone"))
        assert [told.json["outcome"] for told in at.requests] == ["undone", "failed"]
    assert set(NotifySettings().on) == set(OUTCOMES)


def test_slack_gets_a_text_in_which_nothing_is_markup() -> None:
    with receiver() as at:
        one(at, finished("undone", "it said <!channel> & left"), format="slack")
        assert list(at.requests[0].json) == ["text"]
        assert at.requests[0].json["text"].startswith("shop: web: not deployed")
        assert at.requests[0].json["text"].endswith("it said &lt;!channel&gt; &amp; left")


def test_the_signature_is_over_time_and_body(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("planted-hunter2\n")
    with receiver() as at:
        assert one(at, finished(), secret_file=str(secret)) == []
        (told,) = at.requests
    stamp, _, digest = told.headers["X-Rollout-Signature"].removeprefix("t=").partition(",v1=")
    wanted = hmac.new(b"planted-hunter2", stamp.encode() + b"." + told.body, hashlib.sha256).hexdigest()
    assert digest == wanted and abs(int(stamp) - time.time()) < 60


def test_a_receiver_that_fails_first_is_told_in_the_end_and_once() -> None:
    with receiver(500, 429) as at:
        assert one(at, finished()) == []
        assert [told.status for told in at.requests] == [500, 429, 200]
        assert len({told.headers["X-Rollout-Delivery"] for told in at.requests}) == 1


@pytest.mark.parametrize(("answer", "reason"), [(404, "it answered 404"), (302, "it answered 302")])
def test_what_is_refused_for_good_is_one_warning_without_the_address(answer: int, reason: str) -> None:
    with receiver(answer) as at:
        (warning,) = one(at, finished())
        assert len(at.requests) == 1, "neither repeated nor followed elsewhere"
    assert isinstance(warning, Warned) and warning.code == "not-notified"
    assert warning.text == f"127.0.0.1 was not told that rollout 7 is deployed: {reason}"


def test_whom_nobody_reaches_is_waited_for_no_longer_than_said() -> None:
    with socket.socket() as taken:  # and never listening: else the port may be another test's by now
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}{PATH}"
        made, warnings = notifier(NotifySettings(url=url), NotifySettings(url=url))
        began = time.monotonic()
        made(finished())
        assert time.monotonic() - began < 0.9, "the rollout waits for nobody"
        made.close(patience=1.0)
        assert 0.9 < time.monotonic() - began < 8
    assert [w.text for w in warnings if isinstance(w, Warned)] == [
        "127.0.0.1 was not told that rollout 7 is deployed: it cannot be reached"
    ] * 2  # fmt: skip
    assert "hunter2" not in repr(warnings) + repr(NotifySettings(url=url))


def test_a_receiver_that_hangs_delays_no_other_and_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, receiver() as at:
        hanging = NotifySettings(url=f"http://127.0.0.1:{silent.getsockname()[1]}/")
        made, warnings = notifier(hanging, NotifySettings(url=at.url))
        made(finished())
        _, good = made._boxes
        asked = False

        def given_up() -> bool:
            nonlocal asked
            asked = True
            return not good._waiting  # the answer that it got is not yet known here when it is there

        made.close(patience=60.0, given_up=given_up)  # a signal: at once
        assert asked and len(at.requests) == len(warnings) == 1


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_secret_that_cannot_be_read_sends_nothing_unsigned(content: str | None, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content)
    with receiver() as at:
        (warning,) = one(at, finished(), secret_file=str(secret))
        assert at.requests == []
    assert isinstance(warning, Warned) and "secret_file" in warning.text


def test_certificates_that_are_not_there_are_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    made, warnings = notifier(NotifySettings(url="https://127.0.0.1:9" + PATH))
    for _ in range(2):
        made(finished())
    made.close()
    (first, second) = [str(warning) for warning in warnings]
    assert "REQUESTS_CA_BUNDLE" in first and "REQUESTS_CA_BUNDLE" in second, "the second is told as well"
    assert "hunter2" not in first


def test_the_address_may_be_in_a_file_that_changes(tmp_path: Path) -> None:
    file = tmp_path / "url"
    made, warnings = notifier(NotifySettings(url_file=str(file)))
    with receiver() as first, receiver() as second:
        for at in (first, second):
            file.write_text(f"{at.url}{PATH}\n")
            made(finished())
            at.wait_for(1)
        made.close()
    assert warnings == [] and first.requests[0].path == second.requests[0].path == PATH


def test_no_password_of_netrc_reaches_the_receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login anna password planted-hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with receiver() as at:
        one(at, finished())
        assert "Authorization" not in at.requests[0].headers


def test_who_closes_has_heard_of_every_failure() -> None:
    """The last warning comes before the end, not beside it."""
    for _ in range(20):
        with receiver(404) as at:
            warnings: list[Event] = []

            def slowly(event: Event, warnings: list[Event] = warnings) -> None:
                time.sleep(0.02)
                warnings.append(event)

            made = Notifier("shop", [NotifySettings(url=at.url)], SystemClock(), slowly)
            made(finished())
            made.close()
            assert len(warnings) == 1
