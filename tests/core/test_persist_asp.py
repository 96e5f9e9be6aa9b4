"""Session ids of ASP and ASP.NET: out of requests, out of responses, and what they decide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core._testing_decide import World
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, get, nodes, state
from tests.core.test_persist_j2ee import answer

CLIENT = "192.0.2.1"
OLD = "lit3py55t21z5v55vlm25s55"
A, B = "ASPSESSIONIDAAAAAAAA", "ASPSESSIONIDQQGGQQHC"
NET = "ASP.NET_SessionId"


@pytest.fixture(scope="module")
def world():
    classes = [Class("shop", type="asp"), Class("renamed", type="asp", session_cookie="SID")]
    with Segment.create() as segment:
        yield Setting(classes=classes).world(segment)


def keys(world: World, *pairs: str) -> list[bytes]:
    """The keys of cookies, each found alone."""
    found = [world.find(0, CLIENT, get(f"Cookie: {pair}"))["keys"] for pair in pairs]
    assert [len(one) for one in found] == [1] * len(pairs)
    return [one[0] for one in found]


@pytest.mark.parametrize(("fields", "target", "wanted", "twice"), [
    ([], "/", [], False),
    ([f"Cookie: {A}=x"], "/", [f"{A}=x"], False),
    ([f'Cookie: {A}="x"'], "/", [f"{A}=x"], False),
    ([f"Cookie: a=b; {A}=x; c=d"], "/", [f"{A}=x"], False),
    ([f"Cookie: {A}=x; {B}=y"], "/", [f"{A}=x", f"{B}=y"], False),
    ([f"Cookie: {B}=y", f"Cookie: {A}=x"], "/", [f"{B}=y", f"{A}=x"], False),
    ([f"Cookie: {NET}=n; {A}=x"], "/", [f"{A}=x", f"{NET}=n"], False),
    ([f"Cookie: {NET}=n"], f"/(S({OLD}))/", [f"{NET}=n", f"{NET}={OLD}"], False),
    ([f"Cookie: {NET}=n"], "/(S(n))/", [f"{NET}=n"], False),
    ([f"Cookie: {A}=x"], "/(S(x))/", [f"{A}=x", f"{NET}=x"], False),
    ([f"Cookie: {A}=x; {A}=y"], "/", [f"{A}=x"], True),
    ([f"Cookie: {A}=; {A}=y"], "/", [f"{A}=y"], True),
    ([f"Cookie: {NET}=x; {NET}=y"], "/", [f"{NET}=x"], True),
    ([f"Cookie: {NET}=; {NET}=y"], "/", [f"{NET}=y"], True),
    ([f"Cookie: {NET}="], "/(S(x))/", [f"{NET}=x"], False),
    ([f"Cookie: {NET}={'x' * 256}"], "/", [f"{NET}={'x' * 256}"], False),
    ([f"Cookie: {NET}={'x' * 257}"], "/", [], False),
    ([f"Cookie: {A}={'x' * 257}; {B}=y"], "/", [f"{B}=y"], False),
    ([f"Cookie: {A}=; {NET}=; {A}; {NET}"], "/", [], False),
    ([f"Cookie: {NET.lower()}=x; ASP.NET_SESSIONID=x; x{NET}=x; {NET}x=x"], "/", [], False),
    (["Cookie: ASPSESSIONID=x; ASPSESSIONIDAAAAAAA=x; ASPSESSIONIDAAAAAAAAA=x"], "/", [], False),
    (["Cookie: ASPSESSIONIDaaaaaaaa=x; ASPSESSIONIDAAAAAAA1=x; aspsessionidAAAAAAAA=x"], "/", [],
     False),
    ([f"Cookie: {A}=\xe4\xff"], "/", [f"{A}=\xe4\xff"], False),
    ([], "/(S(n))/default.aspx", [f"{NET}=n"], False),
    ([], "/app/(A(1)s(n)F(2))/default.aspx?a=/(S(m))/", [f"{NET}=n"], False),
    ([], f"/({OLD})/default.aspx", [f"{NET}={OLD}"], False),
    ([], "http://www.example.com/(S(n))/", [f"{NET}=n"], False),
    ([], "/default.aspx?a=/(S(n))/", [], False),
    ([], "/%28S(n))/", [], False),
])  # fmt: skip
def test_what_is_found(world: World, fields: list[str], target: str, wanted, twice: bool) -> None:
    found = world.find(0, CLIENT, get(*fields, target=target))
    assert found["keys"] == keys(world, *wanted)
    assert found["kind"] == ("key" if wanted else "nothing")
    assert (found["outcome"] == "no-key") is (not wanted)
    assert found["duplicates"] is twice


def test_no_head(world: World) -> None:
    found = world.find(0, CLIENT, None)
    assert (found["kind"], found["outcome"]) == ("nothing", "no-key")


def test_the_name_of_the_class(world: World) -> None:
    found = world.find(1, CLIENT, get(f"Cookie: SID=n; {NET}=m"))["keys"]
    assert found == keys(world, f"{NET}=n")


def test_names_are_part_of_classic_keys(world: World) -> None:
    values = [f"{A}=x", f"{B}=x", f"{NET}=x", f"{NET}={A}x", f"{NET}={A}=x"]
    assert len(set(keys(world, *values))) == len(values)


def classic(count: int, value: str = "x") -> list[str]:
    return [f"ASPSESSIONID{chr(65 + n) * 8}={value}" for n in range(count)]


def test_many_leave_room_for_asp_net(world: World) -> None:
    many = "; ".join(classic(26))
    found = world.find(0, CLIENT, get(f"Cookie: {many}; {NET}=n", target="/(S(m))/"))["keys"]
    assert found == keys(world, *classic(6), f"{NET}=n", f"{NET}=m")


def test_empty_ones_take_no_room(world: World) -> None:
    first = "; ".join(f"ASPSESSIONID{'Z' * 7}{chr(65 + n)}=" for n in range(9))
    found = world.find(0, CLIENT, get(f"Cookie: {first}; {'; '.join(classic(6))}"))["keys"]
    assert found == keys(world, *classic(6))


@pytest.mark.parametrize(("fields", "wanted", "ended"), [
    ([], [], False),
    ([f"Set-Cookie: {A}=x; path=/"], [f"{A}=x"], False),
    ([f"Set-Cookie: {A}=x; path=/", f"Set-Cookie: {NET}=n; path=/; HttpOnly"],
     [f"{A}=x", f"{NET}=n"], False),
    ([f"Set-Cookie: {NET}=; expires=Tue, 12-Oct-1999 04:00:00 GMT; path=/"], [], True),
    ([f"Set-Cookie: {NET}=n; Max-Age=0"], [], True),
    ([f"Set-Cookie: {A}=; Max-Age=0"], [], False),  # of which application is not known
    ([f"Set-Cookie: {NET}="], [], True),
    ([f"Set-Cookie: {NET}=; Max-Age=0", f"Set-Cookie: {NET}=m"], [f"{NET}=m"], True),
    ([f"Set-Cookie: {NET}={'x' * 257}"], [], False),
    (["Set-Cookie: ASPSESSIONIDaaaaaaaa=x; path=/", "Set-Cookie: a=; Max-Age=0"], [], False),
    ([f"Set-Cookie: {NET}", "Set-Cookie:", f"Set-Cookie: x={NET}=y"], [], False),
    (["Location: /app/(S(n))/default.aspx"], [f"{NET}=n"], False),
    (["Location: https://www.example.com:8443/(F(2)S(n))/"], [f"{NET}=n"], False),
    (["Location: (S(n))/default.aspx"], [f"{NET}=n"], False),
    ([f"Location: /({OLD})/"], [f"{NET}={OLD}"], False),
    (["Location: /login.aspx?ReturnUrl=/(S(n))/"], [], False),
    (["Location: /login.aspx#/(S(n))/"], [], False),
    (["Location: //(S(n))/"], [], False),
    (["Content-Location: /(S(n))/"], [], False),
])  # fmt: skip
def test_what_is_learned(world: World, fields: list[str], wanted, ended: bool) -> None:
    learned = world.learn(0, answer(*fields, status="302 Found"))
    assert learned == (keys(world, *wanted), ended)


pieces = st.lists(st.sampled_from(
    [A, B, NET, "=", ";", "; ", ",", '"', "(", ")", "S(", "/", "x", OLD, "\xe4", "%28", "#", "?"]
), max_size=14).map("".join)  # fmt: skip


@given(pieces)
def test_garbage(world: World, text: str) -> None:
    target = "/" + text.replace('"', "").replace(" ", "").replace("\xe4", "").replace("#", "")
    found = world.find(0, CLIENT, get(f"Cookie: {text}", target=target))
    assert len(found["keys"]) == len(set(found["keys"])) <= 8
    learned, _ = world.learn(0, answer(f"Set-Cookie: {text}", f"Location: {text}"))
    assert len(learned) <= 2


# ---- decisions ----


@pytest.fixture
def shop(make):
    return make(Class("shop", type="asp"), nodes=nodes(3))


def at(world: World, pair: str) -> int:
    """The node of the session of this cookie, looking only."""
    return world.decide(CLIENT, get(f"Cookie: {pair}"), peek=True).node


def test_the_first_known_one_wins(shop: World) -> None:
    node_a, node_b = (shop.decide(CLIENT, get(f"Cookie: {pair}")).node
                      for pair in (f"{A}=x", f"{B}=y"))  # fmt: skip
    assert node_a != node_b
    assert shop.decide(CLIENT, get(f"Cookie: {A}=x; {B}=y")).node == node_a
    assert shop.decide(CLIENT, get(f"Cookie: {B}=y; {A}=x")).node == node_b


def test_unknown_ones_before_it_learn_its_node_and_those_behind_it_keep_theirs(shop: World) -> None:
    home, other = (shop.decide(CLIENT, get(f"Cookie: {pair}")).node
                   for pair in (f"{A}=x", f"{NET}=n"))  # fmt: skip
    made = shop.decide(CLIENT, get(f"Cookie: {B}=new; {A}=x; {NET}=n"))
    assert (made.outcome, made.node, len(shop.maps(0))) == ("hit", home, 3)
    assert at(shop, f"{B}=new") == home
    assert at(shop, f"{NET}=n") == other != home


def test_all_are_bound_when_none_is_known(shop: World) -> None:
    made = shop.decide(CLIENT, get(f"Cookie: {A}=x; {B}=y; {NET}=n", target="/(S(m))/"))
    assert (made.outcome, len(set(shop.maps(0).values())), len(shop.maps(0))) == ("new", 1, 4)
    for pair in (f"{A}=x", f"{B}=y", f"{NET}=n", f"{NET}=m"):
        assert shop.decide(CLIENT, get(f"Cookie: {pair}")).node == made.node


def test_cookie_and_path_are_one_session(shop: World) -> None:
    made = shop.decide(CLIENT, get(f"Cookie: {NET}=n"))
    for target in ("/(S(n))/", "/app/(A(1)S(n))/x?y"):
        again = shop.decide(CLIENT, get(target=target))
        assert (again.outcome, again.node) == ("hit", made.node)
    assert len(shop.maps(0)) == 1


def test_a_redirect_teaches_the_id(shop: World) -> None:
    first = shop.decide(CLIENT, get())
    first.learn(answer("Location: /(S(n))/default.aspx", status="302 Found"))
    shop.decide(CLIENT, get())
    made = shop.decide(CLIENT, get(target="/(S(n))/default.aspx"))
    assert (first.outcome, made.outcome, made.node) == ("no-key", "hit", first.node)


def test_a_failed_node_moves_all_that_were_on_it(shop: World) -> None:
    both = get(f"Cookie: {A}=x; {B}=y")
    first = shop.decide(CLIENT, both)
    state(shop, first.node, "down")
    moved = shop.decide(CLIENT, both)
    assert (moved.outcome, moved.node != first.node) == ("node-down", True)
    assert shop.decide(CLIENT, both).node == moved.node
    state(shop, first.node, "up")
    assert at(shop, f"{A}=x") == moved.node


def test_the_end_of_the_only_session(shop: World) -> None:
    shop.decide(CLIENT, get(f"Cookie: {NET}=n")).learn(answer(f"Set-Cookie: {NET}=; Max-Age=0"))
    assert shop.maps(0) == {}


def test_the_end_at_another_path_is_not_that_of_this_session(shop: World) -> None:
    shop.decide(CLIENT, get(f"Cookie: {NET}=n"))
    made = shop.decide(CLIENT, get(f"Cookie: {NET}=n"))
    made.learn(answer(f"Set-Cookie: {NET}=; Max-Age=0; Path=/legacy"), b"/shop")
    assert len(shop.maps(0)) == 1
    made.learn(answer(f"Set-Cookie: {NET}=; Max-Age=0; Path=/"), b"/shop")
    assert shop.maps(0) == {}


@pytest.mark.parametrize("cookie", [f"{NET}=n", f"{A}=n", f"{B}=n"])
def test_a_classic_cookie_that_is_deleted_may_be_another_application_s(shop, cookie: str) -> None:
    shop.decide(CLIENT, get(f"Cookie: {cookie}"))
    made = shop.decide(CLIENT, get(f"Cookie: {cookie}"))
    made.learn(answer(f"Set-Cookie: {A}=; Max-Age=0; Path=/"), b"/shop")
    assert len(shop.maps(0)) == 1


@pytest.mark.parametrize("order", [f"{A}=x; {NET}=n", f"{B}=gone; {NET}=n; {A}=x"])
def test_the_end_of_one_session_is_not_that_of_another_application_s(shop: World, order) -> None:
    shop.decide(CLIENT, get(f"Cookie: {A}=x; {NET}=n"))
    shop.decide(CLIENT, get(f"Cookie: {order}")).learn(answer(f"Set-Cookie: {NET}=; Max-Age=0"))
    assert shop.decide(CLIENT, get(f"Cookie: {A}=x")).outcome == "hit"
