"""What is written into a call's effects."""

from .rule_words import POOLS, answer, run, trial


def test_nothing_asked_for_is_nothing_written():
    assert run(lambda request: None) == {}
    assert answer(lambda request, response: None) == b""


def test_all_texts_stand_in_one_arena():
    def everything(request):
        request.persistence_key = "k" * 4000
        request.headers["X"] = "h" * 3000
        request.log["x"] = "l" * 2000
        request.respond(200, b"b" * 1_000_000, headers={"F": "f" * 3000})

    made = trial()
    for _ in range(3):
        found = run(everything, made)
        assert found["key"] == b"k" * 4000
        assert found["head"].endswith(b"X: " + b"h" * 3000 + b"\r\n\r\n")
        assert found["log"] == b'"x":"' + b"l" * 2000 + b'"'
        assert found["body"] == b"b" * 1_000_000
        assert found["fields"].startswith(b"F: " + b"f" * 3000)


def test_an_answer_that_was_taken_back_is_not_written():
    def closes(request):
        request.respond(200, b"body")
        request.close()

    assert run(closes) == {"action": "closes", "decided_by": 0}


def test_a_response_rule_gives_a_response():
    def both(request, response):
        response.headers["Server"] = "x"
        request.log["a"] = 1

    found = run(both, trial("response"))
    assert found["head"].startswith(b"HTTP/1.1 200 Fine\r\n")
    assert found["log"] == b'"a":1'


def test_names_become_indices_of_the_plan():
    for name in POOLS:
        assert run(lambda request, name=name: setattr(request, "pool", name)) == {"pool": name}
