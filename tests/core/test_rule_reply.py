"""Answers that rules give."""

import pytest

from .rule_words import run


def reply(*args, **more):
    found = run(lambda request: request.respond(*args, **more))
    assert found["action"] == "answers"
    return found["status"], found["fields"], found["body"]


def test_a_body_has_a_type_and_is_not_stored():
    text = b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
    assert reply(403, b"no") == (403, text, b"no")
    assert reply(403, "nö") == (403, text, "nö".encode())
    assert reply(204) == (204, b"Cache-Control: no-store\r\n", b"")


def test_the_rule_may_say_otherwise():
    fields = {"content-type": "text/html", "CACHE-CONTROL": "max-age=5", "Retry-After": "60"}
    assert reply(503, b"<p>", headers=fields)[1] == (
        b"content-type: text/html\r\nCACHE-CONTROL: max-age=5\r\nRetry-After: 60\r\n"
    )
    assert reply(200, b"{}", content_type="application/json")[1].startswith(
        b"Content-Type: application/json\r\n"
    )
    pairs = (pair for pair in [("A", "1"), ("A", "2")])
    assert reply(200, headers=pairs)[1] == b"A: 1\r\nA: 2\r\nCache-Control: no-store\r\n"


@pytest.mark.parametrize("status", [99, 100, 101, 199, 600, -1, 1 << 80])
def test_a_status_is_of_an_answer(status):
    with pytest.raises(ValueError, match=r"respond\(status\): expected 200 to 599"):
        reply(status)


@pytest.mark.parametrize("status", ["200", 200.0, None, True])
def test_a_status_is_a_number(status):
    with pytest.raises(TypeError, match=r"respond\(status\): expected int"):
        reply(status)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection", "Date"])
def test_some_fields_are_fastlbs(name):
    with pytest.raises(ValueError, match="fastlb writes this field itself"):
        reply(200, headers={name: "1"})


@pytest.mark.parametrize(
    "headers", [{"A": "x\r\nB: y"}, {"A\r\nB": "y"}, {"": "x"}, [("A", "\0")], {"A": "x" * 40000},
                [("A", "b")] * 200, {"A": "\ud800"}],
)  # fmt: skip
def test_illegal_fields_are_refused(headers):
    with pytest.raises(ValueError, match=r"respond\(headers\)"):
        reply(200, headers=headers)


@pytest.mark.parametrize("headers", ["A: b", 5, [("a",)], ["ab"], {"A": 5}, {5: "x"}, [None]])
def test_fields_are_pairs_of_str(headers):
    with pytest.raises(TypeError):
        reply(200, headers=headers)


def test_an_iterable_that_breaks_off_breaks_the_answer_off():
    def pairs():
        yield "A", "1"
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        reply(200, headers=pairs())


def test_bodies_that_are_none():
    for body in (None, 5, ["x"]):
        with pytest.raises(TypeError, match=r"respond\(body\): expected bytes or str"):
            reply(200, body)
    with pytest.raises(ValueError, match="a 304 has none"):
        reply(304, b"x")
    with pytest.raises(ValueError, match="16777216 is the most"):
        reply(200, bytes(16777217))


def redirect(*args):
    found = run(lambda request: request.redirect(*args))
    return found["status"], found["fields"].split(b"\r\n")[0]


def test_redirects_are_encoded():
    assert redirect("/login?to=/a%20b") == (302, b"Location: /login?to=/a%20b")
    assert redirect("https://example.com/ü x", 308) == (
        308, b"Location: https://example.com/%C3%BC%20x",
    )  # fmt: skip
    assert redirect('/"<>')[1] == b"Location: /%22%3C%3E"


@pytest.mark.parametrize(("url", "status"), [("/a\r\nb", 302), ("", 302), ("/", 200), ("/", 304)])
def test_what_is_no_redirect(url, status):
    with pytest.raises(ValueError, match="redirect"):
        redirect(url, status)


def test_the_last_answer_counts():
    def twice(request):
        request.respond(200, b"first")
        request.redirect("/")

    def never(request):
        request.respond(200, b"first")
        request.close()

    assert (run(twice)["status"], run(twice)["body"]) == (302, b"")
    assert run(never) == {"action": "closes", "decided_by": 0}
