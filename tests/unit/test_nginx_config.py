"""nginx's language read as nginx reads it, and a candidate tested within the user's own files."""

from __future__ import annotations

import pytest

from rollout.proxies.nginx_check import entry, leads_to, plan_check, quoted
from rollout.proxies.nginx_config import LoadedConfig, matches, parse, read_dump, seconds

OURS = "/etc/nginx/rollout.d"


def loaded(main: str, **files: str) -> LoadedConfig:
    named = {"/etc/nginx/nginx.conf": main, **{f"/etc/nginx/{name}": text for name, text in files.items()}}
    return LoadedConfig("/etc/nginx/nginx.conf", named, (1, 26, 3))


def test_words_blocks_comments_and_quotes() -> None:
    text = """
    # include nothing.conf; {
    user www-data;  # as
    http { map $a $b { default "x; } {"; 'it''s' y\\ z; }
        if ($uri ~ "^/a{2}$") { return 200 ${name}text#no; } }
    """
    user, http = parse(text, "f")
    assert (user.name, user.args, user.line, user.where) == ("user", ("www-data",), 3, "f:3")
    assert text[user.start : user.end] == "user www-data;"
    assert http.block is not None
    mapping, condition = http.block
    assert mapping.block is not None
    assert mapping.block[0].args == ("x; } {",)
    assert condition.name == "if"
    assert condition.block is not None
    assert condition.block[0].args == ("200", "${name}text#no")


def test_the_span_of_a_block_reaches_to_its_end() -> None:
    text = "a { b { c; } } d;"
    first, second = parse(text)
    assert text[first.start : first.end] == "a { b { c; } }"
    assert text[second.start : second.end] == "d;"


def test_a_lua_block_is_skipped_with_its_braces() -> None:
    text = "content_by_lua_block { local t = { '}' } -- }\n [[ } ]] } server { listen 1; }"
    lua, server = parse(text)
    assert lua.name == "content_by_lua_block"
    assert server.block is not None
    assert server.block[0].args == ("1",)


@pytest.mark.parametrize("text", ["server {", "listen 80", "}", '"open', "a b { c", "\\", ""])
def test_a_text_that_ends_too_early_is_read_as_far_as_it_goes(text: str) -> None:
    parse(text)


def test_an_include_brings_in_what_glob_would() -> None:
    assert matches("/etc/nginx/conf.d/a.conf", "/etc/nginx/conf.d/*.conf")
    assert not matches("/etc/nginx/conf.d/x/a.conf", "/etc/nginx/conf.d/*.conf")
    assert not matches("/etc/nginx/conf.d/.a.conf", "/etc/nginx/conf.d/*.conf")


def test_the_tree_has_includes_replaced_in_order_and_ends_for_a_loop() -> None:
    config = loaded("http { include c/*.conf; last; } include nginx.conf;", **{"c/b.conf": "two;", "c/a.conf": "one;"})
    assert [d.name for d in config.walk()][:4] == ["http", "one", "two", "last"]


def test_a_dump_is_read_whatever_stderr_says_between() -> None:
    output = (
        "nginx version: nginx/1.26.3\nbuilt with OpenSSL 3.5\nconfigure arguments: --user=nginx --prefix=/usr\n"
        "# configuration file /etc/nginx/nginx.conf:\nevents {}\n"
        "nginx: [warn] conflicting server name\n2026/11/23 14:31:54 [warn] 12#12: conflicting\n"
        "# a comment\n\n# configuration file /etc/nginx/b.conf:\nx;\n"
    )
    config = read_dump(output)
    assert config is not None
    assert config.files == {"/etc/nginx/nginx.conf": "events {}\n# a comment\n", "/etc/nginx/b.conf": "x;"}
    assert (config.main, config.version, config.user) == ("/etc/nginx/nginx.conf", (1, 26, 3), "nginx")
    assert read_dump("nginx: [emerg] unexpected end of file") is None


VERSION = (
    "nginx version: openresty/1.27.1.2\nbuilt by gcc 12 \nbuilt with OpenSSL 3.5 (running with OpenSSL 3.5.9)\n"
    "TLS SNI support enabled\nconfigure arguments: --user=www --prefix=/usr\n"
)
WORDS = """events {}
http {
    # this file was built by Ansible
    include /etc/nginx/rollout.d/*.conf;
    add_header X-Powered-By "built with love";  # nginx version: nginx/9.9.9
    # TLS SNI support enabled
    http2 on;
    # nginx: [warn] conflicting server name, see configure arguments: --with-http_v2_module
    server { listen 80; }  # 2026/11/23 14:31:54 [warn] 12#12: never mind
}
"""


@pytest.mark.parametrize("at", ["first", "last", "within a line", "between lines, in parts"])
def test_a_users_own_words_are_not_stderrs(at: str) -> None:
    dump = f"# configuration file /etc/nginx/nginx.conf:\n{WORDS}\n"
    middle, line = dump.index("include"), dump.index("    include")
    version, rest = VERSION.split("built with")
    output = {
        "first": VERSION + dump,
        "last": dump + VERSION,
        "within a line": dump[:middle] + VERSION + dump[middle:],
        "between lines, in parts": version + dump[:line] + "built with" + rest + dump[line:],
    }[at]
    config = read_dump(output)
    assert config is not None
    assert config.files == {"/etc/nginx/nginx.conf": WORDS}
    assert (config.version, config.user) == ((1, 27, 1, 2), "www")


def test_what_nginx_logs_in_the_middle_of_a_line_is_taken_out_again() -> None:
    """Where both streams come over one connection, a frame of the one may end within a line of the other."""
    dump = f"# configuration file /etc/nginx/nginx.conf:\n{WORDS}\n"
    warning = '2026/11/29 14:04:10 [warn] 32#32: conflicting server name "a" on 0.0.0.0:80, ignored\n'
    for at in (dump.index("include") + 3, dump.index("include")):
        config = read_dump(VERSION + dump[:at] + 2 * warning + dump[at:])
        assert config is not None and config.files == {"/etc/nginx/nginx.conf": WORDS}
    comment = f"# configuration file /n:\n# as in {warning}events {{}}\n"
    config = read_dump(comment)
    assert config is not None and config.files == {"/n": f"# as in {warning}events {{}}"}


def test_times_are_read_as_nginx_writes_them() -> None:
    assert [seconds(t) for t in ("75", "75s", "1h 30m", "500ms", "0", "")] == [75, 75, 5400, 0.5, 0, 0]


# --- checks ----------------------------------------------------------------------------------------------------


def test_only_the_files_on_the_way_are_copied_and_turned() -> None:
    config = loaded(
        "http { include mime.types; include conf.d/*.conf; }",
        **{
            "mime.types": "types { text/html html; }",
            "conf.d/a.conf": "# first",
            "conf.d/b.conf": "include rollout.d/*.conf; ssl_certificate certs/a.pem;",
            "rollout.d/own.conf": "# the user's",
        },
    )
    check = plan_check(config, OURS, f"{OURS}/gen-2")
    assert check is not None
    base = f"{OURS}/gen-2/check/copies"
    assert check.main == "mirror/etc/nginx/nginx.conf"
    assert check.files == {
        check.main: "http { include mime.types; include /etc/nginx/conf.d/a.conf; "
        f"include {base}/etc/nginx/conf.d/b.conf; }}",
        "copies/etc/nginx/conf.d/b.conf": f"include {OURS}/own.conf; include {base}{OURS}/rollout.conf; "
        "ssl_certificate certs/a.pem;",
        f"copies{OURS}/rollout.conf": entry(OURS).replace(f"{OURS}/current/", f"{OURS}/gen-2/"),
    }
    assert check.links["mirror/etc/nginx/certs"] == "/etc/nginx/certs"
    assert check.links["mirror/etc/nginx/mime.types"] == "/etc/nginx/mime.types"


def test_links_follow_paths_that_climb() -> None:
    check = plan_check(
        loaded("include ../ssl/a.inc; include ../nginx/b.inc; include rollout.d/*.conf;"), OURS, f"{OURS}/gen-1"
    )
    assert check is not None
    assert check.links["mirror/etc/ssl"] == "/etc/ssl"
    assert check.links["mirror/etc/nginx/b.inc"] == "/etc/nginx/b.inc"


@pytest.mark.parametrize(
    ("main", "leads"),
    [
        ("http { include /etc/nginx/rollout.d/*.conf; }", True),
        ("http { include rollout.d/rollout.conf; }", True),
        ("http { include /etc/nginx/rollout.d/current/*.conf; }", True),
        ('http { include "/etc/nginx/rollout.d/*.conf"; }', True),
        ("http { # include /etc/nginx/rollout.d/*.conf;\n }", False),
        ("http { return 200 'include /etc/nginx/rollout.d/*.conf;'; }", False),
        ("http { include /etc/nginx/rollout.d2/*.conf; }", False),
    ],
)
def test_whether_a_configuration_leads_to_our_directory(main: str, leads: bool) -> None:
    assert leads_to(loaded(main), OURS) is leads


def test_words_about_a_copy_are_told_of_the_original() -> None:
    generation = f"{OURS}/gen-000002"
    check = plan_check(loaded("include rollout.d/*.conf;"), OURS, generation)
    assert check is not None
    assert check.original(f"bad in {generation}/check/{check.main}:3", generation) == "bad in /etc/nginx/nginx.conf:3"
    assert check.original(f"bad in {generation}/web.conf:3", generation) == "bad in the new web.conf:3"


@pytest.mark.parametrize("word", ["/a b/*.conf", "/a;b", '/a"b', "/a{b}", "/plain", "/a'b", "/a\\b"])
def test_a_quoted_word_is_read_back(word: str) -> None:
    assert parse(f"include {quoted(word)};")[0].args == (word,)
