"""Who may come in, from where, how often and with how much."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.errors import LockHeld, StateError, UsageError
from rollout.events import Warned
from rollout.server.http import peer
from rollout.server.http.limits import Limits, Rate
from rollout.server.listening import Tcp, read_tokens, unix_socket
from tests.api.bench import TOKEN, Api, connect, hasty_once_it_has_answered, kept_port, serving, with_token

DEPLOY = {"services": ["web"]}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(tmp_path_factory.mktemp("api")) as api:
        yield api


def logged_in(api: Api) -> dict[str, str]:
    """A browser's headers after a login."""
    origin = f"http://{api.address[0]}:{api.address[1]}"
    answer = api.tcp("POST", "/login", raw=f"token={TOKEN}".encode(), headers={**FORM, "Origin": origin})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0], "Origin": origin}


def performed(api: Api) -> int:
    """How many operations were begun: each begins in a thread of its own, after its answer."""
    api.site.operations.join()  # type: ignore[attr-defined]
    return len(api.performed)


def csrf_of(api: Api, headers: dict[str, str]) -> str:
    page = api.tcp("GET", "/", headers=headers).body.decode()
    return page.partition('name="rollout-csrf" content="')[2].partition('"')[0]


# --- tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": "rollout_session=guess"},
        {"Cookie": "\x7f=;;=;"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/project", "/v1/events", "/metrics", "/fragment", "/v1/nothing"])
def test_over_tcp_nobody_comes_in_without_a_token(api: Api, headers: dict[str, str], path: str) -> None:
    answer = api.tcp("GET", path, headers=headers)
    assert answer.status == 401
    assert answer.json["exit_code"] == 2
    assert answer.headers["www-authenticate"] == "Bearer"


def test_who_asks_is_named_by_the_token_or_by_the_socket(api: Api) -> None:
    assert api.tcp("POST", "/v1/sync", {}, with_token()).json["who"] == "api:ci"
    assert api.unix("POST", "/v1/sync", {}).json["who"].startswith("api:")
    assert api.unix("POST", "/v1/sync", {}, {"User-Agent": "rollout/0.1"}).json["who"].startswith("cli:")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("short\n", "shorter than 16"),
        ("a:0123456789abcdef\na:0123456789abcdefg\n", "twice"),
        (None, "cannot be read"),
    ],
)
def test_a_token_file_that_is_no_good_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_tokens(str(file))


@pytest.fixture
def port() -> Iterator[int]:
    with kept_port() as port:
        yield port


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate for localhost, a client's of that CA, and one of a stranger."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for ca in ("ca", "strange"):
        openssl("req", "-x509", *key, "-subj", f"/CN={ca}", "-days", "1", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
    for name, ca in (("localhost", "ca"), ("deployer", "ca"), ("stranger", "strange")):
        (folder / "san").write_text("subjectAltName=DNS:localhost\n")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-days", "1",
            "-extfile", "san", "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


def test_a_clients_certificate_is_a_way_in_and_its_name_is_who(certificates: Path, tmp_path: Path, port: int) -> None:
    at = {name: str(certificates / name) for name in ("localhost.pem", "localhost.key", "ca.pem")}
    tcp = Tcp(f"127.0.0.1:{port}", "", at["localhost.pem"], at["localhost.key"], at["ca.pem"])
    tcp.refuse()

    def asked(name: str) -> tuple[int, str]:
        trust = ssl.create_default_context(cafile=at["ca.pem"])
        if name:
            trust.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        connection = http.client.HTTPSConnection("localhost", tcp.address()[1], timeout=10, context=trust)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/sync", "{}", {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["who"]

    with serving(tmp_path, tcp=tcp):
        assert asked("deployer") == (202, "api:deployer")
        for stranger in ("", "stranger"):
            with pytest.raises(OSError):  # noqa: PT011  # of TLS or of the connection, as it happens to be told
                asked(stranger)


def test_a_client_over_tls_that_asks_no_more_is_let_go_without_a_word(
    certificates: Path, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not answer the end of the session, as one that keeps its connection for later does not."""
    hasty_once_it_has_answered(monkeypatch, 0.3)
    at = [str(certificates / name) for name in ("localhost.pem", "localhost.key", "ca.pem")]
    tcp = Tcp(f"127.0.0.1:{port}", "", at[0], at[1], at[2])
    trust = ssl.create_default_context(cafile=certificates / "ca.pem")
    trust.load_cert_chain(certificates / "deployer.pem", certificates / "deployer.key")
    looks: list[int] = []
    look = peer.PeerProtocol._look

    def counted(protocol: peer.PeerProtocol) -> None:
        looks.append(1)
        look(protocol)

    monkeypatch.setattr(peer.PeerProtocol, "_look", counted)
    with serving(tmp_path, tcp=tcp):
        plain = socket.create_connection(tcp.address(), timeout=20)
        with trust.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"GET /static/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536)
            until = time.monotonic() + 20
            while len(looks) < 4:
                assert time.monotonic() < until
                time.sleep(0.02)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


# --- browsers ---------------------------------------------------------------------------------------------------


def test_a_browser_is_led_to_the_login_and_a_wrong_token_stays_outside(api: Api) -> None:
    assert api.tcp("GET", "/").headers["location"] == "/login"
    answer = api.tcp("POST", "/login", raw=b"token=wrong", headers=FORM)
    assert (answer.status, "set-cookie" in answer.headers) == (401, False)
    assert "login refused" in [line["what"] for line in api.audited()]


def test_the_cookie_is_for_no_script_and_no_other_site(api: Api) -> None:
    answer = api.tcp("POST", "/login", raw=f"token={TOKEN}".encode(), headers=FORM)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie


def test_a_browser_changes_something_only_from_our_own_page(api: Api) -> None:
    browser = logged_in(api)
    begun = performed(api)
    ours = {**browser, "Rollout-Csrf": csrf_of(api, browser)}
    assert api.tcp("POST", "/v1/deploy", DEPLOY, browser).status == 403
    assert api.tcp("POST", "/v1/deploy", DEPLOY, {**ours, "Rollout-Csrf": "guess"}).status == 403
    assert api.tcp("POST", "/v1/deploy", DEPLOY, {**ours, "Origin": "http://evil.example"}).status == 403
    assert api.tcp("POST", "/v1/deploy", DEPLOY, {**ours, "Sec-Fetch-Site": "cross-site"}).status == 403
    assert performed(api) == begun
    assert api.tcp("POST", "/v1/deploy", DEPLOY, ours).status == 202


def test_a_page_goes_on_with_a_sidecar_that_was_started_anew(api: Api) -> None:
    """It is told the word of the new one with its next contents, which no other site's page can read."""
    browser = logged_in(api)
    answer = api.tcp("GET", "/fragment", headers=browser)
    assert answer.headers["rollout-csrf"] == csrf_of(api, browser)
    assert "access-control-allow-origin" not in answer.headers


def test_cookies_of_other_applications_on_this_host_do_no_harm(api: Api) -> None:
    ours = logged_in(api)["Cookie"]
    for theirs in ('settings={"a":1}', "a b=c", "=", 'x="unended', "\u00e9=1"):
        for cookies in (f"{theirs}; {ours}", f"{ours}; {theirs}"):
            assert api.tcp("GET", "/v1/project", headers={"Cookie": cookies}).status == 200, cookies


def test_a_log_out_ends_the_session(api: Api) -> None:
    browser = logged_in(api)
    ours = {**browser, "Rollout-Csrf": csrf_of(api, browser)}
    assert api.tcp("POST", "/logout", headers=ours).status == 204
    assert api.tcp("GET", "/v1/project", headers=browser).status == 401


def test_a_forwarded_socket_is_no_way_in_for_other_pages(api: Api) -> None:
    """`ssh -L` brings the socket to a browser: other sites' pages, and names that were made to mean this host."""
    assert api.unix("GET", "/v1/project", headers={"Host": "evil.example"}).status == 403
    assert api.unix("GET", "/v1/project", headers={"Host": "[::1"}).status == 403
    assert api.unix("GET", "/v1/project", headers={"Host": "127.0.0.1:8080"}).status == 200
    assert api.unix("POST", "/v1/deploy", DEPLOY, {"Origin": "http://evil.example"}).status == 403
    assert api.unix("POST", "/v1/deploy", DEPLOY, {"Host": "localhost", "Origin": "http://localhost"}).status == 403


@pytest.mark.parametrize("origin", ["http://[", "http://a]", "[", "null", ""])
def test_an_origin_that_makes_no_sense_is_another_sites(api: Api, origin: str) -> None:
    for answer in (
        api.tcp("POST", "/login", raw=f"token={TOKEN}".encode(), headers={**FORM, "Origin": origin}),
        api.tcp("POST", "/v1/deploy", DEPLOY, with_token({"Origin": origin})),
    ):
        assert (answer.status, answer.json["error"]) == (403, "Forbidden"), answer.body
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_answer_forbids_what_the_page_does_not_need(api: Api) -> None:
    for path in ("/", "/login", "/static/page.js", "/v1/project", "/v1/nothing"):
        headers = api.unix("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, path
        assert headers["x-content-type-options"] == "nosniff"


def test_only_the_pages_own_files_are_served(api: Api) -> None:
    assert api.unix("GET", "/static/page.css").status == 200
    for name in ("page.html", "..%2f..%2foperations.py", "%2e%2e/operations.py", "nothing"):
        assert api.unix("GET", f"/static/{name}").status == 404


# --- how much, how often ----------------------------------------------------------------------------------------


def test_a_request_that_is_too_large_is_refused(api: Api) -> None:
    begun = performed(api)
    big = {"services": ["x" * 100_000]}
    assert api.tcp("POST", "/v1/deploy", big, with_token()).status == 413
    huge = {"config": "x" * 17_000_000}
    assert api.unix("POST", "/v1/deploy", huge).status == 413
    assert performed(api) == begun


def test_a_project_is_only_taken_over_the_socket(api: Api) -> None:
    body = {**DEPLOY, "config": "services: {}"}
    assert api.tcp("POST", "/v1/deploy", body, with_token()).status == 403
    assert api.unix("POST", "/v1/deploy", body).status == 202


def test_who_asks_too_often_is_slowed_down_and_nobody_else(tmp_path: Path) -> None:
    limits = Limits(reads=Rate(0.001, 3), writes=Rate(0.001, 2), logins=Rate(0.001, 1))
    with serving(tmp_path, limits=limits) as api:
        reads = [api.tcp("GET", "/v1/services", headers=with_token()).status for _ in range(4)]
        writes = [api.tcp("POST", "/v1/sync", {}, with_token()).status for _ in range(2)]
        assert (reads, writes) == ([200, 200, 200, 429], [202, 202])
        assert api.tcp("POST", "/v1/sync", {}, with_token()).json["error"] == "TooMany"
        assert api.unix("GET", "/v1/services").status == 200


def test_who_guesses_tokens_is_slowed_down(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(logins=Rate(0.001, 3))) as api:
        guesses = [api.tcp("POST", "/login", raw=b"token=guess", headers=FORM).status for _ in range(4)]
        assert guesses == [401, 401, 401, 429]
        assert api.tcp("POST", "/login", raw=f"token={TOKEN}".encode(), headers=FORM).status == 429
        assert api.tcp("GET", "/v1/services", headers=with_token()).status == 200, "who has a token is not held up"
        assert [line["what"] for line in api.audited()] == ["login refused"], "guesses push nothing out of the record"


def test_a_login_of_any_form_is_looked_at(api: Api) -> None:
    many = b"&".join(b"f%d=1" % number for number in range(1000))
    assert api.tcp("POST", "/login", raw=many, headers=FORM).status == 401
    assert api.tcp("POST", "/login", raw=many + f"&token={TOKEN}".encode(), headers=FORM).status == 303


def test_strangers_take_no_share_of_those_who_are_known(tmp_path: Path) -> None:
    """All come from one address where a proxy stands in front."""
    with serving(tmp_path, limits=Limits(reads=Rate(0.001, 3), writes=Rate(0.001, 2))) as api:
        assert [api.tcp("GET", "/v1/services").status for _ in range(4)] == [401, 401, 401, 429]
        assert [api.tcp("POST", "/v1/webhook", {}).status for _ in range(3)] == [422, 422, 429]
        assert api.tcp("GET", "/v1/services", headers=with_token()).status == 200
        assert api.tcp("POST", "/v1/sync", {}, with_token()).status == 202


def test_what_the_server_of_http_complains_of_is_an_event_and_told_once(tmp_path: Path) -> None:
    with serving(tmp_path) as api, api.site.bus.listening() as heard:
        for _ in range(3):
            with socket.create_connection(api.address, timeout=30) as client:
                client.sendall(b"this is not HTTP\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 400")
        told = [numbered.event for numbered in heard.take(30)]
    assert told == [Warned("", "http", "Invalid HTTP request received.")]


# --- where it listens -------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone_and_goes_with_the_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with unix_socket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connect(path).close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_sidecar_left_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with unix_socket(path), pytest.raises(LockHeld, match="another sidecar"), unix_socket(path):
        raise AssertionError("two listen")


def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(StateError, match="not a socket"), unix_socket(path):
        raise AssertionError
    assert path.read_text() == "precious"


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with unix_socket(deep / "api.sock"):
        connect(deep / "api.sock").close()


@pytest.mark.parametrize(
    ("tcp", "words"),
    [
        (Tcp(token_file="t"), "nothing listens"),
        (Tcp("127.0.0.1:80"), "who may come in"),
        (Tcp("127.0.0.1"), "HOST:PORT"),
        (Tcp("127.0.0.1:99999", "TOKEN"), "HOST:PORT"),
        (Tcp("0.0.0.0:8088", "TOKEN"), "in the clear"),
        (Tcp("shop.example:8088", "TOKEN"), "in the clear"),
        (Tcp("127.0.0.1:80", "TOKEN", tls_cert="c"), "belong together"),
        (Tcp("127.0.0.1:80", client_ca="c"), "need"),
        (Tcp("0.0.0.0:80", "TOKEN", "no.pem", "no.pem"), "TLS files"),
        (Tcp("127.0.0.1:80", "TOKEN/under"), "Not a directory"),
    ],
)
def test_what_is_not_safe_is_not_listened_on(tmp_path: Path, tcp: Tcp, words: str) -> None:
    (tmp_path / "token").write_text(TOKEN)
    given = {name: str(getattr(tcp, name)).replace("TOKEN", str(tmp_path / "token")) for name in ("token_file",)}
    with pytest.raises(UsageError, match=words):
        Tcp(tcp.listen, given["token_file"], tcp.tls_cert, tcp.tls_key, tcp.client_ca).refuse()


@pytest.mark.parametrize("listen", ["127.0.0.1:8088", "[::1]:8088", "localhost:0"])
def test_loopback_with_a_token_is_enough_and_one_is_made(tmp_path: Path, listen: str) -> None:
    Tcp(listen, str(tmp_path / "token")).refuse()
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert list(read_tokens(str(tmp_path / "token"))) == ["token"]
    Tcp("0.0.0.0:8088", str(tmp_path / "token"), plain=True).refuse()
