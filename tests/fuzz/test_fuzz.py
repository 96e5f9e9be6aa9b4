"""What fuzzing has found is replayed: inputs that went new ways, all that ever broke something."""

import pytest

from tests.fuzz.engine import HERE, stored
from tests.fuzz.targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    inputs = seeds()[name] + stored(HERE / "corpus" / name) + stored(HERE / "crashes" / name)
    assert len(inputs) > len(seeds()[name]), "there is no corpus: ci/fuzz makes one"
    for data in inputs:
        TARGETS[name](data)


def test_no_file_without_a_target() -> None:
    files = {path.stem for place in ("corpus", "crashes") for path in (HERE / place).glob("*")}
    assert files <= set(TARGETS)


def test_seeds_reach_what_they_are_for() -> None:
    """A seed that its parser refuses at once would begin nothing."""
    from fastlb._core import _testing_body, _testing_head, _testing_tls

    begun = seeds()
    assert isinstance(_testing_head.parse_request(begun["request_head"][0][1:]), dict)
    assert isinstance(_testing_head.parse_response(begun["response_head"][0][1:]), dict)
    assert _testing_body.read("chunked", [begun["chunked"][0][1:]])[2] == "done"
    assert all(
        isinstance(_testing_tls.client_hello(one[1:]), dict) for one in begun["client_hello"]
    )
    assert _testing_tls.server_flight([begun["server_flight"][0][1:]])["hello"]
    assert all(isinstance(_testing_tls.proxy_read(one), dict) for one in begun["proxy_header"])
