"""Jinja2 templates to proxy configuration: the user's own first, then those that come with rollout.

Every value is checked before a template sees it, and every failure is told with the template's name and line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.errors import ProxyRejected, RolloutError
from rollout.model import Pool, Upstream

if TYPE_CHECKING:
    import jinja2

# A newline, a semicolon or a brace in any of these would be configuration of the proxy, not a name.
_NAME = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]*")
_HOST = re.compile(r"(\*\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?")
LONGEST = 200  # of a name: a file is named after it, and those end at 255
BALANCES = ("roundrobin", "leastconn", "random")


class Templates:
    """The templates of one proxy (`nginx`, `haproxy`). `own` is the user's directory, empty when there is none;
    a file in it (`own/nginx/upstream.conf.j2`) replaces the built-in one of the same name."""

    def __init__(self, proxy: str, own: str = "") -> None:
        self._proxy = proxy
        self._own = own
        self._loaded: jinja2.Environment | None = None

    def render(self, template: str, **values: object) -> str:
        """The text of `template` (`upstream.conf.j2`) with these values. The same values give the same bytes.

        Raises ProxyRejected naming the template and the line: not found, a syntax error, an undefined name.
        """
        name = f"{self._proxy}/{template}"
        with self._errors_told(name):
            return self._environment().get_template(name).render(values)

    def warm_up(self) -> None:
        """Import Jinja2 now: 15 ms."""
        self._environment()

    def _environment(self) -> jinja2.Environment:
        if self._loaded is None:
            import jinja2

            places = [self._own] if self._own else []
            self._loaded = jinja2.Environment(
                loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(p) for p in (*places, str(built_in()))]),
                undefined=jinja2.StrictUndefined,
                autoescape=False,  # noqa: S701  # not HTML; what reaches a template has been checked (checked_pool)
                trim_blocks=True,
                lstrip_blocks=True,
                keep_trailing_newline=True,
            )
        return self._loaded

    @contextmanager
    def _errors_told(self, name: str) -> Iterator[None]:
        import jinja2

        try:
            yield
        except RolloutError:
            raise  # an interruption, say: not the template's fault
        except jinja2.TemplateNotFound as error:
            raise ProxyRejected(
                f"template {error.name or name} not found",
                hint=f"it is looked for in {self._own or '(no templates of your own)'} and in {built_in()}",
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise ProxyRejected(
                f"template {error.filename or error.name or name}, line {error.lineno}: {error.message}"
            ) from error
        # whatever an expression in a user's template can raise: it is the template that is at fault
        except Exception as error:
            where, line = _place(error, name)
            raise ProxyRejected(f"template {where}, line {line}: {str(error) or type(error).__name__}") from error


def _place(error: BaseException, name: str) -> tuple[str, int]:
    """The innermost template line in the traceback: Jinja2 puts templates into it under their own file names."""
    where, line = name, 0
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if file.endswith(".j2"):
            where, line = file, step.tb_lineno
        step = step.tb_next
    return where, line


def built_in() -> Path:
    """Where the templates that come with rollout are: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def checked_pool(pool: Pool) -> Pool:
    """The pool, when every name and address in it is one. Raises ProxyRejected with all that are not."""
    wrong = list(_faults(pool))
    if wrong:
        raise ProxyRejected(f"the pool of {pool.service!r} cannot be rendered", details=wrong)
    return pool


def _faults(pool: Pool) -> Iterator[str]:
    if not is_name(pool.service):
        yield f"service name {pool.service!r}: only letters, digits, '.', '_' and '-', {LONGEST} at most"
    for upstream in pool.upstreams:
        yield from _upstream_faults(upstream)
    if len(pool.names) != len(pool.upstreams):
        yield "two upstreams have the same name"
    for host in pool.options.hosts:
        if len(host) > 253 or not _HOST.fullmatch(host):
            yield f"host {host!r} is not a DNS name"
    if pool.options.balance not in BALANCES:
        yield f"balance {pool.options.balance!r} is not one of {', '.join(BALANCES)}"
    if pool.options.keepalive < 0 or not 0 <= pool.options.keepalive_timeout < 1e6:
        yield "keepalive and keepalive_timeout must not be negative"


def _upstream_faults(upstream: Upstream) -> Iterator[str]:
    if not is_name(upstream.name):
        yield f"upstream name {upstream.name!r}: only letters, digits, '.', '_' and '-', {LONGEST} at most"
    if not is_address(upstream.host):
        yield f"upstream {upstream.name!r}: {upstream.host!r} is not an IP address"
    if not 1 <= upstream.port <= 65535:
        yield f"upstream {upstream.name!r}: port {upstream.port} is not between 1 and 65535"
    if not 1 <= upstream.weight <= 256:
        yield f"upstream {upstream.name!r}: weight {upstream.weight} is not between 1 and 256"


def is_name(text: str) -> bool:
    """Whether it may name a service or a server in a configuration file, and a file."""
    return len(text) <= LONGEST and bool(_NAME.fullmatch(text))


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address without a scope."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
