"""What people and machines see of a sidecar: its metrics in the real Prometheus, its page in a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright

from tests.api.bench import TOKEN, kept_port
from tests.e2e.projects import Edge, Shop, docker, eventually, running, serving
from tests.e2e.sidecars import ask, audited
from tests.load import Load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples/monitoring"
IMAGE = "rollout-test/prometheus:latest"
EDGES = (Edge("haproxy", "3.0"), Edge("nginx", "1.30"))
METRIC = re.compile(r"\brollout_[a-z_]+")
PLANTED = "planted-do-not-tell"
# a browser ends what it has under way when an address comes or goes: one of another test's containers
MACHINES_OWN = "ERR_NETWORK_CHANGED"
# a new replica is ready when a test lets it be
GATED = {
    "x-rollout": {"health": {"path": None, "command": ["test", "-e", "/term/ready"]}},
    "environment": {"API_KEY": PLANTED},
}


@dataclass
class Seen:
    shop: Shop
    url: str
    load: Load


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """A project under load whose sidecar listens on TCP as well."""
    directory = Path(tempfile.mkdtemp(prefix="rollout-"))
    (directory / "token").write_text(f"ci:{TOKEN}\n")
    with kept_port() as port, running(request.param, directory) as shop:
        shop.rollout("deploy", "--force")  # so that there is a receipt
        (directory / "term/ready").touch()
        shop.service("web", **GATED)
        listen = ("--listen", f"127.0.0.1:{port}", "--token-file", "token")
        with serving(shop, *listen) as sidecar, shop.load() as load:
            yield Seen(shop, f"http://127.0.0.1:{port}", load)
        assert PLANTED not in sidecar.end().said
        assert load.report().failed == 0, load.report().describe()
    shutil.rmtree(directory)


# --- metrics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", EDGES, indirect=True, ids=str)
def test_prometheus_takes_the_metrics_and_the_examples(seen: Seen, tmp_path: Path) -> None:
    """promtool's conventions, a real scrape, and no query of the examples that asks for what is not there."""
    text = ask(seen.shop, "GET", "/metrics")
    linted = _promtool(tmp_path, "check", "metrics", given=text)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, ""), "promtool has no complaint"
    config = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text())
    (tmp_path / "token").write_text(TOKEN)
    shutil.copy(EXAMPLES / "alerts.yml", tmp_path)
    # a scrape may take as long as the interval
    config["global"] = {"scrape_interval": "3s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [seen.url.removeprefix("http://")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    for words in (("check", "config", "/etc/p/prometheus.yml"), ("check", "rules", "/etc/p/alerts.yml")):
        checked = _promtool(tmp_path, *words)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    named = {name for query in _queries() for name in METRIC.findall(query)}
    exposed = set(METRIC.findall("\n".join(line for line in text.splitlines() if not line.startswith("# HELP"))))
    assert named <= exposed, named - exposed
    with kept_port() as port, _prometheus(tmp_path, port) as query:
        eventually(lambda: query("up == 1"), "a scrape that went well")
        eventually(lambda: query("sum(rate(rollout_requests_total[20s])) > 1"), "requests, counted")
        (live,) = query('rollout_revision{service="web"}')
        assert float(live["value"][1]) >= 1
        for one in _queries():
            query(one)  # a query that means nothing is refused
        # one that is pending may be a scrape that came late; it goes, or it fires
        others = 'ALERTS{alertname!="RolloutFailed"}'
        eventually(lambda: not query(others), f"the end of {query(others)}: all is well, and nothing may say otherwise")


def _promtool(folder: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = ["docker", "run", "--rm", "-i", "--entrypoint", "promtool", "-v", f"{folder}:/etc/p:ro", IMAGE, *words]
    return subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=60)


def _queries() -> list[str]:
    """Every expression of the alerts and the dashboard, with the dashboard's variables filled in."""
    rules = [
        rule["expr"]
        for group in yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    shown += [one["expr"] for one in board["annotations"]["list"]]
    filled = [e.replace("$project", ".*").replace("$service", ".*").replace("$__rate_interval", "1m") for e in shown]
    assert len(rules) > 5 and len(filled) > 5 and "$" not in "".join(filled)
    return [*rules, *filled]


@contextlib.contextmanager
def _prometheus(folder: Path, port: int) -> Iterator[Any]:
    """A server with that configuration; answers queries. It shares the host's network, where the sidecar listens."""
    name = f"rollout-test-prometheus-{uuid.uuid4().hex[:8]}"
    flags = ("--config.file=/etc/p/prometheus.yml", "--storage.tsdb.path=/data")
    where = ("--network", "host", "--tmpfs", "/data", "-v", f"{folder}:/etc/p:ro")
    docker("run", "-d", "--rm", "--name", name, *where, IMAGE, *flags, f"--web.listen-address=127.0.0.1:{port}")

    def query(text: str) -> list[dict[str, Any]]:
        address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(address, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=10):
            return True
        return False

    try:
        eventually(ready, "Prometheus")
        yield query
    finally:
        docker("rm", "-f", name, check=False)


# --- the page ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")  # else the browser that Playwright has installed for itself
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def visiting(browser: Browser, url: str, expected: tuple[str, ...] = (), **context: Any) -> Iterator[Page]:
    """A page of a browser that has logged in; whatever else than `expected` its console complains of fails the test."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    visit = browser.new_context(**context)
    page = visit.new_page()
    page.set_default_timeout(60_000)
    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="web", exact=True).wait_for()
    page.locator("html.live").wait_for()  # the script comes after what it is for
    yield page
    visit.close()
    assert [one for one in complaints if not any(word in one for word in (*expected, MACHINES_OWN))] == []


@pytest.mark.parametrize("seen", EDGES[:1], indirect=True, ids=str)
def test_a_deploy_is_asked_for_confirmed_and_followed_on_the_page(seen: Seen, browser: Browser) -> None:
    before, deploys = seen.shop.answers(), deploys_of(seen.shop)
    tag = "2" if before != "2" else "3"
    seen.shop.tag(tag)
    with closed(seen.shop.directory / "term/ready") as gate, visiting(browser, seen.url) as page:
        page.get_by_role("button", name="Deploy").click()
        dialog = page.get_by_role("dialog")
        assert "No request is lost" in dialog.inner_text()
        assert page.evaluate("document.activeElement.textContent") == "Cancel", "the harmless button has the focus"
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        # the dialog is hidden first, and then the page is told that it was closed
        eventually(lambda: page.evaluate("document.activeElement.textContent") == "Deploy", "the focus where it was")
        assert deploys_of(seen.shop) == deploys
        page.keyboard.press("Enter")
        dialog.get_by_role("button", name="Deploy").click()
        page.get_by_text("rolling out").wait_for()
        assert page.evaluate("document.activeElement.id") == "web-title", "the button is gone: its card has the focus"
        page.locator(".steps .running", has_text="check that they are ready").wait_for()
        page.locator(".steps .done", has_text="start").first.wait_for()
        gate.touch()
        page.get_by_text("Deploy web: done").wait_for()
        page.get_by_text("2 of 2 ready").wait_for()
        assert page.evaluate("document.activeElement.id") == "web-title", "and keeps it"
        page.locator(".rollouts summary", has_text="deployed").first.click()
        page.locator(".receipt dt", has_text="phases").first.wait_for()
    assert seen.shop.answers() == tag
    assert deploys_of(seen.shop) == deploys + 1
    assert audited(seen.shop)[-1]["who"] == "api:ci"


@contextlib.contextmanager
def closed(gate: Path) -> Iterator[Path]:
    gate.unlink()
    try:
        yield gate
    finally:
        gate.touch()  # else the tests after this one would wait for it as well


def deploys_of(shop: Shop) -> int:
    """That were asked of the sidecar."""
    return [line["what"] for line in audited(shop)].count("deploy")


@pytest.mark.parametrize("seen", EDGES[:1], indirect=True, ids=str)
def test_a_button_that_is_there_can_be_clicked(seen: Seen, browser: Browser) -> None:
    """Before the script has come there is none, and new contents do not take it away under the finger."""
    with visiting(browser, seen.url) as page:
        late: list[Route] = []
        page.route("**/page.js", lambda script: late.append(script))
        with page.expect_request("**/page.js"):
            page.reload(wait_until="commit")
        page.get_by_role("heading", name="web", exact=True).wait_for()
        eventually(lambda: page.evaluate("document.styleSheets.length"), "the style, without which nothing is shown")
        deploy = page.locator("#web-deploy")
        assert deploy.count() == 1 and not deploy.is_visible()
        (script,) = late
        script.continue_()
        deploy.wait_for(state="visible")
        deploy.hover()
        deploy.evaluate("one => one.dataset.old = 'yes'")  # so that new contents differ
        page.mouse.down()
        page.evaluate("Promise.race([look(), new Promise((done) => setTimeout(done, 1000))])")
        page.mouse.up()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        eventually(lambda: deploy.get_attribute("data-old") is None, "the new contents")


@pytest.mark.parametrize("seen", EDGES[:1], indirect=True, ids=str)
def test_no_secret_of_the_project_is_told(seen: Seen) -> None:
    """The page's deploy before has taken it into the new replicas."""
    image = ask(seen.shop, "GET", "/v1/services/web/revisions")["revisions"][0]["image"]
    number = ask(seen.shop, "POST", "/v1/deploy", {"services": ["web"], "image": image})["id"]
    said = [ask(seen.shop, "GET", f"/v1/operations/{number}/events")]
    pages = ("/", "/metrics", "/v1/project", "/v1/rollouts", "/v1/operations", "/v1/services/web/revisions")
    said += [json.dumps(ask(seen.shop, "GET", page)) for page in pages]
    inside = docker("inspect", seen.shop.running()[0].id)
    assert PLANTED in inside and TOKEN in (seen.shop.directory / "token").read_text()
    everything = "".join([*said, json.dumps(audited(seen.shop))])
    assert len(everything) > 5000
    assert PLANTED not in everything and TOKEN not in everything


@pytest.mark.parametrize("seen", EDGES[:1], indirect=True, ids=str)
def test_what_cannot_be_done_is_told_on_the_page(seen: Seen, browser: Browser) -> None:
    with visiting(browser, seen.url, expected=("status of 422", "status of 401")) as page:
        page.get_by_role("button", name="Deploy").click()
        page.get_by_label("Another image").fill("not an image")
        page.keyboard.press("Enter")
        page.get_by_text("is not an image").wait_for()
        page.context.clear_cookies()
        page.reload()
        page.get_by_label("Token").wait_for()
        page.get_by_role("heading", name="rollout").wait_for()


@pytest.mark.parametrize("seen", EDGES[:1], indirect=True, ids=str)
def test_why_nothing_new_is_shown_is_told(seen: Seen, browser: Browser) -> None:
    """An engine that is away is not a sidecar that is; who does not see the page is told that it is old."""
    expected = ("status of 503", "ERR_FAILED")
    why = "<section data-part='problem'><h2>The project cannot be read</h2><p>the engine is away</p></section>"
    html = {"Content-Type": "text/html"}
    its_own = {**html, "Rollout-Csrf": "another"}
    with visiting(browser, seen.url, expected=expected) as page:
        page.locator("#web-deploy").focus()
        told = page.get_by_role("status").get_by_text("does not answer")
        page.route("**/fragment", lambda asked: asked.abort())
        page.evaluate("look()")
        told.wait_for()
        page.unroute("**/fragment")
        page.evaluate("look()")
        told.wait_for(state="hidden")  # else the next would be met by this one
        # of something between the two
        page.route("**/fragment", lambda asked: asked.fulfill(status=503, body=why, headers=html))
        page.evaluate("look()")
        told.wait_for()
        assert page.get_by_text("the engine is away").count() == 0
        page.unroute("**/fragment")
        page.route("**/fragment", lambda asked: asked.fulfill(status=503, body=why, headers=its_own))
        page.evaluate("look()")
        page.get_by_text("the engine is away").wait_for()
        told.wait_for(state="hidden")
        assert page.evaluate("document.activeElement.textContent") == "The project cannot be read"
        page.unroute("**/fragment")
        page.evaluate("look()")
        page.locator("#web-deploy").wait_for()


@pytest.mark.parametrize("seen", EDGES[:1], indirect=True, ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_every_width_and_can_be_read_by_everyone(seen: Seen, browser: Browser, width: int, scheme: Any) -> None:
    """Nothing wider than the screen, no text too pale, every button with a name and large enough for a thumb; plots and
    dots have words for who cannot see them."""
    with visiting(browser, seen.url, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        page.locator(".plots path").first.wait_for()
        for summary in page.locator("summary").all():
            summary.click()
        page.screenshot(path=seen.shop.directory / f"page-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(PALE) == []
        assert page.evaluate(SMALL) == []
        assert page.locator("svg[role=img]:not([aria-label])").count() == 0
        assert "requests: revision" in (page.locator("svg[role=img]").first.get_attribute("aria-label") or "")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches(':focus-visible')")


# texts whose contrast to what is behind them is below WCAG's 4.5, by its formula
PALE = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const weights = [.2126, .7152, .0722];
  const light = (color) => weights.reduce((sum, weight, i) => sum + weight * linear(color[i] / 255), 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const color = parts(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const said = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...document.querySelectorAll("body *")].filter((one) => one.offsetParent && said(one)).map((one) => {
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(ground(one))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), one.className, one.textContent.trim()];
  }).filter(([contrast]) => contrast < 4.5);
}"""
SMALL = """() => [...document.querySelectorAll("button")].filter((one) => one.offsetParent)
  .filter((one) => one.offsetHeight < 40 || !one.textContent.trim()).map((one) => one.outerHTML)"""
