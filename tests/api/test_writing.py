"""What is asked of the sidecar: begun once, recorded, told to its end; and the signed webhook."""

from __future__ import annotations

import fcntl
import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollout.errors import Interrupted, LockHeld, NotUndone, StateError, UsageError
from rollout.events import Notice, Sink
from rollout.model import WebhookSettings
from rollout.notify.message import signature
from rollout.server import operations
from rollout.server.audit import Audit
from rollout.server.http import streams
from rollout.server.http.webhook import HEADER, _allowed
from rollout.server.operations import KEPT, LOADING, Asked, ThreadOperations
from rollout.steps.run import Ports
from rollout.wiring import Wired
from tests.api.bench import Answer, Api, connect, receipt, serving
from tests.clocks import HandClock

SECRET = b"0123456789abcdef-the-secret"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    webhook = WebhookSettings(str(tmp_path / "secret"), ("registry.example/shop/web:*",))
    with serving(tmp_path, webhook=webhook) as api:
        yield api


def ended(api: Api, answer: Answer) -> dict[str, Any]:
    assert answer.status == 202, answer.body
    found: dict[str, Any] = api.unix("GET", f"/v1/operations/{answer.json['id']}?wait=20").json
    return found


def begun(api: Api) -> list[str]:
    """The operations that were begun. Each performs in a thread of its own, later; it is recorded before its answer."""
    return [line["what"] for line in api.audited() if line["what"] in operations.KINDS]


# --- operations -------------------------------------------------------------------------------------------------


def test_a_deploy_is_begun_recorded_and_told_to_its_end(api: Api) -> None:
    body = {"services": ["web"], "image": "shop/web:3", "force": True, "strategy": "blue-green", "wait_lock": 7}
    answer = api.unix("POST", "/v1/deploy", body)
    assert answer.headers["location"] == f"/v1/operations/{answer.json['id']}"
    found = ended(api, answer)
    (asked,) = api.performed
    assert (asked.services, asked.image, asked.force, asked.strategy, asked.wait_lock) == (
        ("web",), "shop/web:3", True, "blue-green", 7.0,
    )  # fmt: skip
    assert (found["state"], found["exit_code"], found["error"]) == ("failed", 2, "UsageError")
    (line,) = api.audited()
    assert (line["what"], line["services"], line["image"]) == ("deploy", ["web"], "shop/web:3")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/deploy", {"services": ["nothing"]}, 404),
        ("/v1/deploy", {"image": "shop/web:3"}, 422),
        ("/v1/deploy", {"services": ["web"], "image": "shop/web:3", "build": True}, 422),
        ("/v1/deploy", {"services": ["web"], "image": "--privileged"}, 422),
        ("/v1/deploy", {"services": ["web\n"]}, 422),
        ("/v1/deploy", {"services": "web"}, 422),
        ("/v1/deploy", {"force": "yes"}, 422),
        ("/v1/deploy", {"wait_lock": -1}, 422),
        ("/v1/deploy", {"unknown": 1}, 422),
        ("/v1/deploy", {"strategy": "canary"}, 422),
        ("/v1/deploy", [], 422),
        ("/v1/services/nothing/rollback", {}, 404),
        ("/v1/services/web/rollback", {"to": 0}, 422),
        ("/v1/services/web/rollback", {"to": True}, 422),
        ("/v1/services/nothing/pause", {}, 404),
        ("/v1/services/web/pause", {"now": 1}, 422),
        ("/v1/operations/99/interrupt", {}, 404),
        ("/v1/operations/99999999999999999999999999/interrupt", {}, 404),
        (f"/v1/operations/{'9' * 5000}/interrupt", {}, 404),
    ],
)
def test_bad_input_changes_nothing(api: Api, path: str, body: object, status: int) -> None:
    answer = api.unix("POST", path, body)
    assert (answer.status, answer.json["exit_code"]) == (status, 2), answer.body
    assert (api.performed, api.journal.wishes(2), api.audited()) == ([], [], [])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"imagee": "a"}, "body.imagee: unknown key imagee"),
        ({"strategy": "blue-gren"}, "unknown value 'blue-gren' (did you mean blue-green? known: rolling, blue-green"),
        ({"wait_lock": -1}, "body.wait_lock: must be at least 0, not -1"),
        ({"force": "yes"}, "body.force: must be true or false, not 'yes'"),
        ({"services": "web"}, "body.services: must be a list, not 'web'"),
        ({"image": "A B"}, "body.image: 'A B' is not an image"),
    ],
)
def test_what_is_refused_is_said_as_for_a_file(api: Api, body: object, words: str) -> None:
    (detail,) = api.unix("POST", "/v1/deploy", body).json["details"]
    assert words in detail


@pytest.mark.parametrize(
    "raw", [b"{", b"nul", b'{"wait_lock": NaN}', b'{"force": true, "force": false}', b"[" * 50_000]
)
def test_what_is_not_json_is_refused(api: Api, raw: bytes) -> None:
    assert api.unix("POST", "/v1/deploy", raw=raw).status == 422
    assert api.unix("POST", "/v1/deploy", raw=b"{}", headers={"Content-Type": "text/plain"}).status == 415
    assert begun(api) == []


def test_what_has_ended_is_kept_for_a_while_and_without_the_project_that_came_with_it(api: Api) -> None:
    for _ in range(KEPT + 5):
        ended(api, api.unix("POST", "/v1/deploy", {"config": "services: {}"}))
    kept = api.site.operations.recent()
    assert len(kept) <= KEPT + 1
    assert {operation.asked.config for operation in kept} == {""}
    assert api.unix("GET", "/v1/operations/1").status == 404


def test_what_ended_last_is_kept_whenever_it_was_begun(tmp_path: Path) -> None:
    free = threading.Event()

    def perform(asked: Asked, emit: Sink) -> None:
        if asked.services == ("api",):
            assert free.wait(60)

    with serving(tmp_path, perform) as api:
        key = {"Idempotency-Key": "held-for-long"}
        first = api.unix("POST", "/v1/deploy", {"services": ["api"]}, key)
        for _ in range(KEPT):
            ended(api, api.unix("POST", "/v1/deploy", {"services": ["web"]}))
        free.set()
        ended(api, first)
        ended(api, api.unix("POST", "/v1/deploy", {"services": ["web"]}))
        assert api.unix("POST", "/v1/deploy", {"services": ["api"]}, key).json["id"] == first.json["id"]


def test_what_ended_last_is_kept_although_the_clock_was_set_back() -> None:
    clock, begun = HandClock(1.7e9), list[Asked]()

    def wire(asked: Asked, emit: Sink) -> AbstractContextManager[Wired]:
        begun.append(asked)
        raise UsageError("this project is not real")

    operations = ThreadOperations(wire, lambda event: None, clock, lambda asked: None)

    def ask(key: str = "") -> int:
        number = operations.submit(Asked("deploy", ("web",), "api:ci", key=key)).id
        operations.join()
        return number

    for _ in range(KEPT):
        ask()
    clock.time -= 7200
    first = ask("build-1234")
    ask()
    ask()
    assert ask("build-1234") == first
    assert [asked.key for asked in begun].count("build-1234") == 1


@pytest.mark.parametrize("how", ["asked for", "the sidecar stops"])
def test_an_image_that_is_fetched_for_ever_holds_up_no_interruption(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching, abandoned, stop = threading.Event(), threading.Event(), threading.Event()
    wired = SimpleNamespace(compose=SimpleNamespace(abandon=abandoned.set), ports=Ports(*[None] * 10))  # type: ignore[arg-type]

    def fetch(*_: object) -> None:
        fetching.set()
        assert abandoned.wait(60)
        raise Interrupted("service web: interrupted while its image was fetched")

    monkeypatch.setattr("rollout.actions.deploy", fetch)
    operations = ThreadOperations(
        lambda asked, emit: nullcontext(cast("Wired", wired)), lambda event: None, HandClock(0), lambda asked: None
    )
    part = threading.Thread(target=operations.run, args=(stop,))
    part.start()
    number = operations.submit(Asked("deploy", ("web",), "schedule")).id
    assert fetching.wait(60)
    if how == "asked for":
        operations.abort(number)
    else:
        stop.set()
    ended_as = operations.wait(number, 60)
    stop.set()
    part.join()
    assert ended_as is not None and ended_as.exit_code == 130


def test_few_projects_are_loaded_at_once(tmp_path: Path) -> None:
    loading, most = [0], [0]
    count = threading.Lock()
    full = threading.Event()

    def perform(asked: Asked, emit: Sink) -> None:
        with count:
            loading[0] += 1
            most[0] = max(most[0], loading[0])
            if most[0] == LOADING:
                full.set()
        assert full.wait(60)
        with count:
            loading[0] -= 1

    with serving(tmp_path, perform) as api:
        answers = [api.unix("POST", "/v1/deploy", {"services": ["web"]}) for _ in range(3 * LOADING)]
        for answer in answers:
            ended(api, answer)
    assert most[0] == LOADING


def test_a_project_that_comes_along_arrives_as_it_was_sent(api: Api) -> None:
    """Compose writes a dollar twice, and reads it so: a single one would be a variable."""
    config = 'services: { web: { environment: { PASSWORD: "a$$b" } } }'
    ended(api, api.unix("POST", "/v1/deploy", {"config": config}))
    assert [asked.config for asked in api.performed] == [config]


def test_one_key_is_one_operation(api: Api) -> None:
    key = {"Idempotency-Key": "build-17"}
    first = api.unix("POST", "/v1/deploy", {"services": ["web"]}, key)
    again = api.unix("POST", "/v1/deploy", {"services": ["web"]}, key)
    other = api.unix("POST", "/v1/deploy", {"services": ["api"]}, key)
    assert first.json["id"] == again.json["id"]
    assert (other.status, "idempotency key" in other.json["message"]) == (422, True)
    ended(api, first)
    assert len(begun(api)) == 1
    assert api.unix("POST", "/v1/deploy", {}, {"Idempotency-Key": "k" * 300}).status == 422


def test_another_project_under_the_same_key_is_another_request(api: Api) -> None:
    key, one, two = {"Idempotency-Key": "k"}, {"config": "services: { a: {} }"}, {"config": "services: { b: {} }"}
    first = api.unix("POST", "/v1/deploy", one, key)
    assert api.unix("POST", "/v1/deploy", two, key).status == 422
    ended(api, first)
    assert api.unix("POST", "/v1/deploy", two, key).status == 422, "also when the project is no longer kept"
    assert api.unix("POST", "/v1/deploy", one, key).json["id"] == first.json["id"]
    assert len(begun(api)) == 1


def test_a_wish_reaches_the_rollout_with_the_name_of_who_has_it(api: Api) -> None:
    asked = [api.unix("POST", f"/v1/services/web/{wish}") for wish in ("pause", "resume", "abort")]
    assert [(a.status, a.json["rollout"], a.json["at_work"]) for a in asked] == [(200, 2, True)] * 3
    assert [(w.wish, w.who) for w in api.journal.wishes(2)] == [(a.json["wish"], a.json["who"]) for a in asked]
    assert [line["what"] for line in api.audited()] == ["pause", "resume", "abort"]


def test_a_wish_that_makes_no_sense_is_refused(api: Api) -> None:
    for service, wish, words in (
        ("web", "promote", "is not held"),
        ("web", "resume", "is not paused"),
        ("api", "pause", "no rollout is under way"),
    ):
        answer = api.unix("POST", f"/v1/services/{service}/{wish}")
        assert (answer.status, words in answer.json["message"]) == (422, True), answer.body
    assert api.journal.wishes(2) == []


def test_what_an_operation_says_is_heard_by_its_listeners_and_by_all(tmp_path: Path) -> None:
    gate = threading.Event()

    def perform(asked: Asked, emit: Sink) -> None:
        emit(Notice("web", "one"))
        assert gate.wait(20)
        emit(Notice("web", "two"))
        raise NotUndone("half of it is there", hint="look", details=["a line"])

    with serving(tmp_path, perform) as api:
        number = api.unix("POST", "/v1/deploy", {"services": ["web"]}).json["id"]
        every, own = (
            stream(api, "/v1/events?service=web", {"Last-Event-ID": "dead-0"}),
            stream(api, f"/v1/operations/{number}/events"),
        )
        assert [next(own)[1]["text"], next(every)[1]["text"]] == ["one", "one"]
        gate.set()
        assert [next(own)[1]["text"], next(every)[1]["text"]] == ["two", "two"]
        kind, end = next(own)
        assert (kind, end["exit_code"], end["error"], end["details"]) == ("end", 5, "NotUndone", ["a line"])
        assert next(own, None) is None, "the stream ends with its operation"
        late = stream(api, "/v1/events", {"Last-Event-ID": "b007-1"})
        assert next(late)[1]["text"] == "two"
        every.close()
        late.close()
        assert api.unix("GET", "/v1/events", headers={"Last-Event-ID": "x"}).status == 422


def test_a_stream_lives_whatever_else_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.3)
    over = threading.Event()
    with serving(tmp_path) as api, connect(api.directory / "api.sock") as sock:

        def busy() -> None:
            while not over.wait(0.05):
                api.site.bus(Notice("api", "busy"))

        other = threading.Thread(target=busy)
        other.start()
        try:
            sock.settimeout(5)
            sock.sendall(b"GET /v1/events?service=web HTTP/1.1\r\nHost: localhost\r\n\r\n")
            heard = b""
            while heard.count(b": still here") < 3:
                more = sock.recv(65536)
                assert more, f"it was closed after {heard!r}"
                heard += more
        finally:
            over.set()
            other.join()
    assert b"busy" not in heard


def test_an_operation_that_is_interrupted_is_told_and_others_are_not(tmp_path: Path) -> None:
    begun = threading.Event()

    def perform(asked: Asked, emit: Sink) -> None:
        begun.set()
        emit(Notice("web", "at work"))
        raise LockHeld("web: busy")

    with serving(tmp_path, perform) as api:
        found = ended(api, api.unix("POST", "/v1/sync", {}))
        assert (found["exit_code"], found["error"]) == (3, "LockHeld")
        again = api.unix("POST", f"/v1/operations/{found['id']}/interrupt")
        assert (again.status, again.json["exit_code"]) == (200, 3)
        assert [line["what"] for line in api.audited()] == ["sync"], "what has ended is not interrupted"


def test_a_fault_of_our_own_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    def perform(asked: Asked, emit: Sink) -> None:
        raise RuntimeError("oops")

    with serving(tmp_path, perform) as api:
        found = ended(api, api.unix("POST", "/v1/deploy", {}))
        assert (found["exit_code"], found["error"]) == (70, "Bug")
        assert "oops" in found["message"] and "Traceback" not in json.dumps(found)


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["rollouts/{}", "rollouts/{}/receipt", "operations/{}", "operations/{}/events"])
def test_a_number_that_is_too_long_is_no_address(api: Api, path: str) -> None:
    for digits in (19, 30, 31, 5000):
        answer = api.unix("GET", f"/v1/{path.format('9' * digits)}")
        assert (answer.status, answer.json["exit_code"]) == (404, 2), answer.body


def test_past_rollouts_and_their_receipts(api: Api) -> None:
    newest, oldest = api.unix("GET", "/v1/rollouts?service=web").json["rollouts"]
    assert (newest["state"], oldest["state"]) == ("running", "deployed")
    assert api.unix("GET", f"/v1/rollouts/{oldest['rollout']}/receipt").json == receipt(oldest["rollout"])
    assert api.unix("GET", f"/v1/rollouts/{newest['rollout']}/receipt").status == 404
    assert [r["revision"] for r in api.unix("GET", "/v1/services/web/revisions").json["revisions"]] == [2, 1]
    assert api.unix("GET", "/v1/rollouts?limit=0").status == 422
    assert api.unix("GET", "/v1/rollouts?limit=1&limit=2").status == 422


# --- the webhook ------------------------------------------------------------------------------------------------

BODY = {"service": "web", "image": "registry.example/shop/web:7"}


def signed(body: object, late: int = 0, secret: bytes = SECRET) -> tuple[bytes, dict[str, str]]:
    """The request and its signature, made `late` seconds from now."""
    raw = json.dumps(body).encode()
    return raw, {HEADER: signature(secret, int(time.time()) + late, raw)}


def test_a_signed_request_deploys_an_allowed_image_and_needs_no_token(api: Api) -> None:
    raw, headers = signed(BODY)
    assert ended(api, api.tcp("POST", "/v1/webhook", raw=raw, headers=headers))["who"] == "webhook"
    (asked,) = api.performed
    assert (asked.kind, asked.services, asked.image) == ("deploy", ("web",), BODY["image"])
    assert asked.pull == "always", "its tag may have moved"


def test_a_signed_request_may_ask_for_an_image_that_is_here(api: Api) -> None:
    raw, headers = signed({**BODY, "pull": "missing"})
    ended(api, api.tcp("POST", "/v1/webhook", raw=raw, headers=headers))
    assert [asked.pull for asked in api.performed] == ["missing"]


def test_a_request_counts_once_also_for_the_next_sidecar(api: Api, tmp_path: Path) -> None:
    raw, headers = signed(BODY)
    first = api.tcp("POST", "/v1/webhook", raw=raw, headers=headers)
    ended(api, first)
    again = api.tcp("POST", "/v1/webhook", raw=raw, headers=headers)
    assert (again.status, again.json["id"]) == (202, first.json["id"]), "its answer was lost: it is given again"
    assert len(begun(api)) == 1
    (tmp_path / "next").mkdir()
    (tmp_path / "next/audit.log").write_text((tmp_path / "audit.log").read_text())
    with serving(tmp_path / "next", webhook=WebhookSettings(str(tmp_path / "secret"), ("*",))) as after:
        answer = after.tcp("POST", "/v1/webhook", raw=raw, headers=headers)
        assert answer.status == 403 and "not begun again" in answer.json["message"]
        assert begun(after) == ["deploy"], "by the one before it"


def test_a_request_that_began_nothing_may_be_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, headers = signed(BODY)
    with monkeypatch.context() as full:
        full.setattr(operations, "UNDER_WAY", 0)
        assert api.tcp("POST", "/v1/webhook", raw=raw, headers=headers).status == 409
    assert api.audited() == []
    assert api.tcp("POST", "/v1/webhook", raw=raw, headers=headers).status == 202
    assert [(line["what"], line["key"]) for line in api.audited()] == [("deploy", headers[HEADER])]


@pytest.mark.parametrize(
    ("body", "late", "secret", "status"),
    [
        (BODY, 0, b"another secret, as long", 401),
        (BODY, -400, SECRET, 401),
        (BODY, 400, SECRET, 401),
        ({**BODY, "image": "registry.example/shop/db:7"}, 0, SECRET, 403),
        ({**BODY, "image": "registry.example/shop/web:7 --x"}, 0, SECRET, 422),
        ({**BODY, "service": "nothing"}, 0, SECRET, 404),
        ({**BODY, "force": True}, 0, SECRET, 422),
    ],
)
def test_no_other_request_begins_anything(api: Api, body: object, late: int, secret: bytes, status: int) -> None:
    raw, headers = signed(body, late, secret)
    assert api.tcp("POST", "/v1/webhook", raw=raw, headers=headers).status == status
    assert begun(api) == []


DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("image", "pattern", "allowed"),
    [
        ("reg.example/shop/web:release-1", "reg.example/shop/web:release-*", True),
        (f"reg.example/shop/web:release-1@{DIGEST}", "reg.example/shop/web:release-*", False),
        (f"reg.example/shop/web:release-1@{DIGEST}", "reg.example/shop/web:release-*@sha256:*", True),
        (f"reg.example/shop/web:release-1@{DIGEST}", "reg.example/shop/web", True),
        (f"reg.example/shop/web@{DIGEST}", "reg.example/shop/web:*", False),
        ("web:5000/other", "web:*", False),
        ("reg:5000/web:7", "reg:5000/web:*", True),
    ],
)
def test_what_a_pattern_allows(image: str, pattern: str, allowed: bool) -> None:
    """The engine goes by the digest, whatever tag stands before it."""
    assert _allowed(image, pattern) is allowed


def test_a_secret_that_cannot_be_read_is_no_fault_of_the_request(api: Api, tmp_path: Path) -> None:
    raw, headers = signed(BODY)
    (tmp_path / "secret").write_bytes(b"short")
    assert api.tcp("POST", "/v1/webhook", raw=raw, headers=headers).status == 503
    (tmp_path / "secret").unlink()
    answer = api.tcp("POST", "/v1/webhook", raw=raw, headers=headers)
    assert answer.status == 503 and "secret_file cannot be read" in answer.json["message"]
    assert begun(api) == []


def test_wrong_signatures_do_not_fill_the_record(tmp_path: Path) -> None:
    clock = HandClock(1.7e9)
    audit = Audit(tmp_path, clock)
    for seconds in (1, 1, 1, 60, 30):
        audit.refused("webhook", "refused: wrong signature")
        clock.sleep(seconds)
    assert [(line["at"], line.get("unrecorded")) for line in audit.lines()] == [(1.7e9, None), (1.7e9 + 63, 3)]


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: a write is cut short there, and the next one fails."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_record_that_finds_no_room_leaves_nothing_and_begins_nothing(tmp_path: Path) -> None:
    audit, log = Audit(tmp_path, HandClock(1.7e9)), tmp_path / "audit.log"
    audit.begun(Asked("deploy", ("web",), "webhook", key="first"))
    before = log.read_bytes()
    with full_at(len(before) + 40), pytest.raises(StateError, match="nothing was begun"):
        audit.begun(Asked("deploy", ("web",), "webhook", key="torn"))
    assert log.read_bytes() == before
    audit.begun(Asked("deploy", ("web",), "webhook", key="next"))
    assert [line["key"] for line in audit.lines()] == ["first", "next"]


def test_two_that_put_the_record_aside_at_once_lose_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other does so between this one's opening of the file and its lock."""
    monkeypatch.setattr("rollout.server.audit.LONGEST", 200)
    clock = HandClock(1.7e9)
    ours, other = Audit(tmp_path, clock), Audit(tmp_path, clock)
    ours.write("api:ci", "deploy", key="first", padding="x" * 200)
    flock, met = fcntl.flock, list[int]()

    def later(fd: int, how: int) -> None:
        if not met:
            met.append(fd)
            other.write("cli:anna", "abort", key="second", padding="x" * 200)
        flock(fd, how)

    monkeypatch.setattr("rollout.server.audit.fcntl.flock", later)
    ours.write("api:ci", "deploy", key="third")
    assert [line["key"] for line in ours.lines()] == ["second", "third"], "each put aside what was there before"
    assert (tmp_path / "audit.log.1").stat().st_size > 200


def test_a_record_after_one_that_a_crash_has_torn_is_a_line_of_its_own(tmp_path: Path) -> None:
    audit, log = Audit(tmp_path, HandClock(1.7e9)), tmp_path / "audit.log"
    audit.write("webhook", "deploy", key="first")
    log.write_bytes(log.read_bytes() + b'{"at": 17')
    audit.write("webhook", "deploy", key="next")
    audit.write("webhook", "deploy", key="last")
    assert [line["key"] for line in audit.lines()] == ["first", "next", "last"]
    assert len(log.read_bytes().splitlines()) == 4


def test_a_changed_body_or_time_does_not_pass(api: Api) -> None:
    raw, headers = signed(BODY)
    other = raw.replace(b"web:7", b"web:8")
    assert api.tcp("POST", "/v1/webhook", raw=other, headers=headers).status == 401
    at = headers[HEADER].partition(",")[0]
    later = {HEADER: headers[HEADER].replace(at, f"t={int(at[2:]) + 1}")}
    assert api.tcp("POST", "/v1/webhook", raw=raw, headers=later).status == 401
    assert api.tcp("POST", "/v1/webhook", BODY).status == 401
    assert begun(api) == []


def test_the_secret_is_nowhere(api: Api, tmp_path: Path) -> None:
    raw, headers = signed(BODY)
    answer = api.tcp("POST", "/v1/webhook", raw=raw, headers=headers)
    page, metrics = api.unix("GET", "/"), api.unix("GET", "/metrics")
    everything = answer.body + page.body + metrics.body + (tmp_path / "audit.log").read_bytes()
    assert SECRET not in everything and b"the-token" not in everything


@pytest.mark.parametrize(
    ("pattern", "image", "status"),
    [
        ("web:*", "web:7", 202),
        ("web:*", "web:5000/other:7", 403),  # a registry called web
        ("reg.example:5000/shop/*", "reg.example:5000/shop/web:7", 202),
        ("reg.example:5000/shop/*:7", "reg.example:5000/shop/web:8", 403),
    ],
)
def test_a_pattern_is_of_a_name_and_a_tag(tmp_path: Path, pattern: str, image: str, status: int) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    raw, headers = signed({**BODY, "image": image})
    with serving(tmp_path, webhook=WebhookSettings(str(tmp_path / "secret"), (pattern,))) as api:
        assert api.tcp("POST", "/v1/webhook", raw=raw, headers=headers).status == status


def test_without_a_webhook_there_is_none(tmp_path: Path) -> None:
    raw, headers = signed(BODY)
    with serving(tmp_path) as api:
        assert api.tcp("POST", "/v1/webhook", raw=raw, headers=headers).status == 404


def stream(api: Api, path: str, headers: dict[str, str] | None = None) -> Any:
    """Kind and data of each event as it comes."""
    sock = connect(api.directory / "api.sock")
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode())
    with sock, sock.makefile("r", encoding="utf-8") as file:
        kind = ""
        for line in file:
            name, _, value = line.rstrip().partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)
