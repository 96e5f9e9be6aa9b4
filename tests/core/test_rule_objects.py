"""Connection and Request: each attribute read, set, and given what it does not take."""

import copy
import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlb import rule, testing

from .rule_words import HEAD, POOLS, head, run, run_all, seen, trial

TLS = testing.Tls("TLSv1.2", "shop.example.com", ("h2", "http/1.1"), "CN=anna", b"\x30\x00")


def line(function, received=HEAD):
    return head(function, received).partition(b"\r\n")[0].decode()


def assign(name, value):
    def change(request):
        setattr(request, name, value)

    return change


# --- what is there before any message ---


def test_addresses():
    facts = testing.request(client="192.0.2.7:4711", peer="10.0.0.9:1", local="[2001:db8::1]:80")
    found = []
    run(
        lambda r: found.append((
            r.client_address, r.client_port, r.peer_address, r.local_address, r.local_port)),
        facts.trial("request"),
    )  # fmt: skip
    assert found == [("192.0.2.7", 4711, "10.0.0.9", "2001:db8::1", 80)]


def test_a_unix_socket_has_no_address():
    facts = testing.request(client=None, local=None)
    found = []
    run(lambda r: found.append((r.client_address, r.client_port, r.local_address)),
        facts.trial("request"))  # fmt: skip
    assert found == [(None, 0, None)]


def test_tls_and_where_it_came_in():
    found = []
    facts = testing.connection(tls=TLS, virtual_server="shop")
    run(
        lambda c: found.append((
            c.sni, c.alpn, c.tls_version, c.client_subject, c.client_certificate,
            c.virtual_server, c.protocol)),
        facts.trial("connection"),
    )  # fmt: skip
    assert found == [("shop.example.com", ("h2", "http/1.1"), "TLSv1.2", "CN=anna", b"\x30\x00",
                      "shop", "tls")]  # fmt: skip
    assert seen(lambda r: (r.sni, r.alpn, r.tls_version, r.client_subject, r.client_certificate,
                           r.protocol)) == (None, (), None, None, None, "http")  # fmt: skip


def test_the_client_can_be_said():
    def change(request):
        request.client_address = "2001:db8::7"
        assert (request.client_address, request.client_port) == ("2001:db8::7", 0)
        assert request.peer_address == "192.0.2.7"

    assert run(change) == {"client": "2001:db8::7"}


# --- the decision ---


def test_the_pool():
    def change(request):
        assert request.pool == "web"
        request.pool = "api"
        assert request.pool == "api"

    assert run(change) == {"pool": "api"}
    with pytest.raises(
        ValueError, match=r'request\.pool: no pool \'apo\'; there is web, api \(did you mean "api"'
    ):
        run(assign("pool", "apo"))
    facts = testing.connection(pools=POOLS)
    with pytest.raises(ValueError, match=r"connection\.pool: no pool"):
        run(assign("pool", "apo"), facts.trial("connection"))


def test_the_class():
    def change(request):
        assert request.persistence == "php"
        request.persistence = "by-ip"
        assert request.persistence == "by-ip"

    assert run(change) == {"persistence": "by-ip"}
    assert run(assign("persistence", None)) == {"persistence": None}
    with pytest.raises(
        ValueError, match=r"request\.persistence: no persistence class 'x'; there is php, by-ip$"
    ):
        run(assign("persistence", "x"))


def test_the_key():
    for value, key in ("ü", b"\xc3\xbc"), (b"\0\xff", b"\0\xff"), ("\udcff", b"\xff"), ("", b""):
        assert run(assign("persistence_key", value)) == {"key": key}

    def change(request):
        assert request.persistence_key is None
        request.persistence_key = "abc"
        assert request.persistence_key == "abc"
        request.persistence_key = None
        assert request.persistence_key is None

    assert run(change) == {"key": b""}
    with pytest.raises(ValueError, match=r"request\.persistence_key: 4097 bytes are too many"):
        run(assign("persistence_key", "x" * 4097))


def test_what_earlier_rules_said_is_seen():
    made = trial()
    made.set_earlier(pool=1, persistence=1, key=b"k", node="10.0.0.2")
    found = []
    run(lambda r: found.append((r.pool, r.persistence, r.persistence_key, r.persistence_node)),
        made)  # fmt: skip
    assert found == [("api", "by-ip", "k", "10.0.0.2")]


@pytest.mark.parametrize(
    ("text", "node", "address", "port"),
    [
        ("10.0.0.1:8080", "10.0.0.1:8080", "10.0.0.1", 8080),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1", None),
        ("[2001:DB8::1]:80", "[2001:db8::1]:80", "2001:db8::1", 80),
        ("2001:db8::1", "2001:db8::1", "2001:db8::1", None),
        ("[2001:db8::1]", "2001:db8::1", "2001:db8::1", None),
    ],
)
def test_the_node(text, node, address, port):
    def change(request):
        request.persistence_node = text
        named = request.persistence_node
        assert (named, named.address, named.port) == (node, address, port)
        assert isinstance(named, rule.Node)

    assert run(change) == {"node": node}


@pytest.mark.parametrize(
    "text",
    ["", "web1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:-1", "10.0.0.1:80 ", ":80",
     "[10.0.0.1]:80", "2001:db8::1:80:", "[2001:db8::1", "::", "10.0.0.1:\uff180", "10.0.0.1\0",
     "x" * 5000],
)  # fmt: skip
def test_what_is_no_node(text):
    with pytest.raises(ValueError, match=r"request\.persistence_node: expected a node like"):
        run(assign("persistence_node", text))


def test_data_goes_from_rule_to_rule():
    def keep(request):
        assert request.data == {"from": "connection"}
        request.data["user"] = "anna"

    kept = {"from": "connection"}
    made = trial()
    made.set_earlier(data=kept)
    run(keep, made)
    assert made.data == {"from": "connection", "user": "anna"}


# --- the request line ---


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "raw_query"),
    [
        ("/a%20b/%C3%BC?x=%20", "/a b/ü", "/a%20b/%C3%BC", "x=%20"),
        ("/", "/", "/", ""),
        ("/%FF%zz%2", "/\udcff%zz%2", "/%FF%zz%2", ""),
        ("/a?b?c", "/a", "/a", "b?c"),
        ("/a?", "/a", "/a", ""),
        ("http://h/x?y", "/x", "/x", "y"),
        ("http://h?y", "/", "", "y"),
        ("http://h", "/", "", ""),
        ("//h/x", "//h/x", "//h/x", ""),
    ],
)
def test_the_target_and_its_parts(target, path, raw_path, raw_query):
    received = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    found = seen(lambda r: (r.target, r.path, r.raw_path, r.raw_query), received)
    assert found == (target, path, raw_path, raw_query)


def test_targets_that_are_no_path():
    options = b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"
    connect = b"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example\r\n\r\n"
    assert seen(lambda r: (r.target, r.path, r.raw_query), options) == ("*", "*", "")
    assert seen(lambda r: (r.target, r.path, r.host), connect) == ("h.example:443", "", "h.example")
    assert line(assign("path", "/x"), options) == "OPTIONS /x HTTP/1.1"
    for name in "path", "raw_path":
        with pytest.raises(ValueError, match="the target of CONNECT has none"):
            head(assign(name, "/x"), connect)
    for change in assign("raw_query", "a"), lambda r: r.query.add("a", "b"):
        with pytest.raises(ValueError, match="the target of CONNECT has none"):
            head(change, connect)


@pytest.mark.parametrize(
    ("name", "value", "target"),
    [
        ("path", "/a b?ü%/;x=1", "/a%20b%3F%C3%BC%25/;x=1?id=5&x=a%20b"),
        ("path", "/\udcff\r\n", "/%FF%0D%0A?id=5&x=a%20b"),
        ("raw_path", "/%61", "/%61?id=5&x=a%20b"),
        ("raw_query", "y=1&&z", "/shop/cart?y=1&&z"),
        ("raw_query", "", "/shop/cart"),
        ("target", "/new?a", "/new?a"),
        ("target", "http://h/new", "http://h/new"),
    ],
)
def test_the_parts_can_be_set(name, value, target):
    assert line(assign(name, value)) == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", ""), ("path", "x"), ("raw_path", "x"), ("raw_path", "/a?b"), ("raw_path", "/ü"),
        ("raw_path", "/a b"), ("raw_query", "a b"), ("raw_query", "a#b"), ("target", ""),
        ("target", "x"), ("target", "*"), ("target", "/a b"), ("target", "ftp://h/"),
        ("target", "http://"), ("path", "/\ud800"),
    ],
)  # fmt: skip
def test_what_is_no_target(name, value):
    with pytest.raises(ValueError, match="request"):
        head(assign(name, value))


def test_an_absolute_target_stays_one():
    received = b"GET http://h.example:81/x?y HTTP/1.1\r\nHost: h\r\n\r\n"
    assert line(assign("path", "/z"), received) == "GET http://h.example:81/z?y HTTP/1.1"
    assert seen(lambda r: r.host, received) == "h.example"


def test_the_method():
    assert line(assign("method", "POST")) == "POST /shop/cart?id=5&x=a%20b HTTP/1.1"
    assert head(assign("method", "GET")) == b""
    for wrong in ("HEAD", "CONNECT", "", "G T", "GET\r\n", "x" * 33, "ü"):
        with pytest.raises(ValueError, match=r"request\.method"):
            head(assign("method", wrong))
    with pytest.raises(ValueError, match="from HEAD to GET"):
        head(assign("method", "GET"), b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")


def test_versions_and_hosts():
    old = b"GET / HTTP/1.0\r\n\r\n"
    assert seen(lambda r: (r.http_version, r.host), old) == ("HTTP/1.0", None)
    assert seen(lambda r: r.http_version) == "HTTP/1.1"
    assert head(assign("host", "h"), old) == b"GET / HTTP/1.0\r\nHost: h\r\n\r\n"
    with_port = b"GET / HTTP/1.1\r\nHost: WWW.Example.com:8080\r\n\r\n"
    assert seen(lambda r: r.host, with_port) == "www.example.com"


def test_what_nobody_changes_is_not_made_anew():
    def look(request):
        assert all((request.path, request.method, request.host, request.raw_query, request.target))
        assert request.headers.items()
        assert request.query.items()

    assert run(look) == {}


# --- wrong types and strange values ---

SETTABLE = ("client_address", "pool", "persistence", "persistence_key", "persistence_node",
            "method", "target", "path", "raw_path", "raw_query", "host")  # fmt: skip
READ_ONLY = ("client_port", "peer_address", "local_address", "local_port", "virtual_server",
             "protocol", "sni", "alpn", "tls_version", "client_subject", "client_certificate",
             "query", "http_version", "headers", "cookies", "log", "data")  # fmt: skip
NONE_TAKEN = ("persistence", "persistence_key", "persistence_node")


class Hostile:
    """Raises, recurses or changes the world, whatever is asked of it."""

    def __str__(self):
        return str(self)

    def __repr__(self):
        raise SystemError("repr")

    def __eq__(self, other):
        raise SystemError("eq")

    def __hash__(self):
        return hash(self)

    def __len__(self):
        return -5

    def __bool__(self):
        raise SystemError("bool")

    def __fspath__(self):
        return "/etc"


class HostileStr(str):
    def __eq__(self, other):
        raise SystemError("eq")

    def __hash__(self):
        raise SystemError("hash")

    def encode(self, *_):
        return b"\r\n"

    def startswith(self, *_):
        return True

    def __str__(self):
        raise SystemError("str")


@pytest.mark.parametrize("name", SETTABLE)
@pytest.mark.parametrize(
    "value", [5, 1.5, True, [], {}, ("a",), b"", bytearray(b"x"), object, Hostile(), None, ...],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_each_attribute_says_what_it_takes(name, value):
    if (value is None and name in NONE_TAKEN) or (
        type(value) is bytes and name == "persistence_key"
    ):
        run(assign(name, value))
        return
    with pytest.raises(TypeError, match=rf"request\.{name}: expected .*, found "):
        run(assign(name, value))


@pytest.mark.parametrize("name", READ_ONLY)
def test_the_others_are_read_only(name):
    with pytest.raises(AttributeError):
        run(assign(name, "x"))


@pytest.mark.parametrize("name", [*SETTABLE, *READ_ONLY])
def test_none_can_be_deleted(name):
    def remove(request):
        delattr(request, name)

    with pytest.raises((AttributeError, NotImplementedError, TypeError)):
        run(remove)


def test_others_cannot_be_made():
    with pytest.raises(AttributeError):
        run(assign("anything", 1))


@pytest.mark.parametrize("name", SETTABLE)
def test_a_hostile_str_is_its_characters(name):
    values = {"client_address": "192.0.2.9", "pool": "api", "persistence": "php", "method": "PUT",
              "persistence_node": "10.0.0.1", "host": "h"}  # fmt: skip
    text = values.get(name, "/x")
    assert run(assign(name, HostileStr(text))) == run(assign(name, text))


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(SETTABLE),
    st.one_of(st.text(max_size=40), st.binary(max_size=10), st.integers(), st.floats(), st.none()),
)
def test_whatever_is_assigned_is_taken_or_refused_by_name(name, value):
    failures = []
    run_all(assign(name, value), failures=failures)
    assert all(type(one) in (TypeError, ValueError) for one in failures)
    assert all("request." in str(one) or "request:" in str(one) for one in failures)


def test_huge_values_are_refused_and_shown_short():
    for name in SETTABLE:
        with pytest.raises((TypeError, ValueError)) as caught:
            run(assign(name, "/" + "x" * 2_000_000))
        assert len(str(caught.value)) < 400


# --- in response rules ---


@pytest.mark.parametrize("name", [one for one in SETTABLE if one != "persistence_key"])
def test_after_the_node_has_answered_nothing_of_the_request_is_set(name):
    values = {"client_address": "192.0.2.9", "pool": "api", "persistence": "php", "method": "PUT",
              "persistence_node": "10.0.0.1", "host": "h"}  # fmt: skip

    def change(request, _):
        setattr(request, name, values.get(name, "/x"))

    with pytest.raises(AttributeError, match=r"cannot be set in a response rule|cannot be changed"):
        run(change, trial("response"))


def test_nor_its_fields():
    for change in (
        lambda r, _: r.headers.add("X", "y"),
        lambda r, _: r.cookies.__setitem__("x", "y"),
        lambda r, _: r.query.__setitem__("x", "y"),
    ):
        with pytest.raises(AttributeError, match="cannot be changed any more"):
            run(change, trial("response"))


def test_but_its_log_and_an_answer_are():
    def change(request, _):
        assert request.path == "/shop/cart"
        request.log["x"] = 1
        request.respond(503, b"later")

    found = run(change, trial("response"))
    assert (found["status"], found["log"]) == (503, b'"x":1')


# --- objects that outlive their rule ---


def kept_from(function):
    kept = []
    run(lambda request: kept.append(function(request)))
    return kept[0]


USES = {
    "request": (lambda r: r, [lambda r: r.path, lambda r: r.headers, lambda r: r.log,
                              lambda r: r.respond(200), lambda r: r.close(), lambda r: r.data,
                              lambda r: setattr(r, "pool", "api"), lambda r: r.client_address]),
    "headers": (lambda r: r.headers, [lambda h: h["Host"], lambda h: h.add("A", "b"),
                                      lambda h: h.items(), lambda h: "a" in h, len, list]),
    "cookies": (lambda r: r.cookies, [lambda c: c.get("a"), lambda c: c.__setitem__("a", "b")]),
    "query": (lambda r: r.query, [lambda q: q.get("a"), lambda q: q.add("a", "b")]),
    "log": (lambda r: r.log, [lambda g: g.__setitem__("a", 1), lambda g: g.items()]),
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_whoever_keeps_one_is_told(name):
    keep, uses = USES[name]
    kept = kept_from(keep)
    for use in uses:
        with pytest.raises(rule.RuleEnded):
            use(kept)
    kept_from(lambda request: request.headers.items())
    for use in uses:
        with pytest.raises(rule.RuleEnded):
            use(kept)
    assert "has ended" in repr(kept)


def test_what_is_kept_is_never_the_next_request():
    kept = []
    for _ in range(5):
        run(lambda r: kept.extend((r, r.headers, r.cookies, r.query, r.log)))
    assert len({id(one) for one in kept}) == len(kept)


def test_what_nobody_keeps_is_used_again():
    made = trial()
    identities = set()
    made.set_rules([lambda r: identities.add((id(r), id(r.headers), id(r.cookies)))])
    for _ in range(20):
        made.run_plain()
    assert len(identities) == 1


def test_iterators_are_of_their_own():
    kept = kept_from(lambda r: (iter(r.headers), iter(r.log), r.headers.items()))
    assert next(kept[0]) == "Host"
    assert list(kept[1]) == []
    assert len(kept[2]) == 7


def test_nothing_of_it_can_be_copied():
    def attempt(request):
        request.log["x"] = 1
        for one in (request, request.headers, request.cookies, request.query, request.log):
            for way in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be copied"):
                    way(one)

    run(attempt)


def test_nothing_of_it_can_be_made_or_derived():
    for kind in (rule.Request, rule.Connection, rule.Response):
        made = kind.__new__(kind)
        assert "has ended" in repr(made)
        for name in ("client_address", "headers", "status", "close", "body"):
            if hasattr(kind, name):
                with pytest.raises(rule.RuleEnded):
                    getattr(made, name)()
    for kind in (rule.Request, rule.Response, rule.Headers, rule.Cookies, rule.SetCookie, rule.Log):
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Derived", (kind,), {})


def test_another_thread_may_look_while_the_rule_runs_and_not_later():
    seen_there, late = [], threading.Event()
    errors = []

    def look(request):
        seen_there.append(request.path)
        late.wait(10)
        try:
            request.path  # noqa: B018
        except rule.RuleEnded as error:
            errors.append(error)

    threads = []

    def start(request):
        threads.append(threading.Thread(target=look, args=(request,)))
        threads[0].start()
        while not seen_there:
            pass

    run(start)
    late.set()
    threads[0].join(10)
    assert (seen_there, len(errors)) == (["/shop/cart"], 1)
