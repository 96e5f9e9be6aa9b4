"""Cookies as clients really send them: altered, foreign, quoted, repeated, spread over fields."""

import itertools

import pytest

from tests.harness import ANY_PORT, HttpNode, proxy, sticky


@pytest.fixture(scope="module")
def shop():
    """Three nodes, one proxy; and a second class on a second virtual server."""
    with HttpNode("a") as a, HttpNode("b") as b, HttpNode("c") as c:
        config = sticky(a, b, c, classes={"other": {"type": "transparent"}})
        config["virtual_servers"]["second"] = {
            "listen": [ANY_PORT], "protocol": "http", "pool": "again",
        }  # fmt: skip
        config["pools"]["again"] = {"nodes": [a, b, c], "persistence": "other"}
        with proxy(config) as p:
            yield p


numbers = itertools.count()


def session(p, server="shop"):
    """A new user's cookie and node."""
    user = p.user(f"user {next(numbers)}", server=server)
    user.get()
    ((name, value),) = user.cookies.items()
    return name, value, user.nodes[0]


def stays(p, node, *cookie_fields):
    """Six requests with these Cookie fields all reach `node`, and none gets a cookie."""
    for _ in range(6):
        answer = p.get("/", *[("Cookie", value) for value in cookie_fields])
        if answer.node != node or answer.all("Set-Cookie"):
            return False
    return True


def test_the_cookie_as_it_was_set_is_accepted(shop):
    name, value, node = session(shop)
    assert stays(shop, node, f"{name}={value}")


def test_quotes_around_the_value_are_accepted(shop):
    name, value, node = session(shop)
    assert stays(shop, node, f'{name}="{value}"')


def test_white_space_around_the_pair_is_accepted(shop):
    name, value, node = session(shop)
    assert stays(shop, node, f"a=1;   {name}={value}  ;b=2")
    assert stays(shop, node, f"a=1;{name}={value};b=2")
    assert stays(shop, node, f"{name} = {value}")


def test_rfc_2109_attributes_are_skipped(shop):
    name, value, node = session(shop)
    assert stays(shop, node, f'$Version="1"; {name}={value}; $Path="/"')


def test_several_cookie_fields_are_all_searched(shop):
    name, value, node = session(shop)
    assert stays(shop, node, "a=1", f"b=2; {name}={value}", "c=3")


def test_of_duplicates_the_first_valid_one_wins(shop):
    name, value, node = session(shop)
    assert stays(shop, node, f"{name}=zz; {name}={value}")
    assert stays(shop, node, f"{name}=; {name}=x; {name}={value}")
    others = (session(shop) for _ in range(10))
    second = next(each for each in others if each[2] != node)
    assert stays(shop, node, f"{name}={value}; {name}={second[1]}")


def test_the_name_is_case_sensitive(shop):
    name, value, _ = session(shop)
    answer = shop.get("/", ("Cookie", f"{name.lower()}={value}"))
    assert len(answer.all("Set-Cookie")) == 1
    assert ["Cookie", f"{name.lower()}={value}"] in answer.json()["fields"]


def test_a_name_that_only_ends_like_ours_is_not_ours(shop):
    name, value, _ = session(shop)
    answer = shop.get("/", ("Cookie", f"x{name}={value}; y={name}={value}"))
    assert len(answer.all("Set-Cookie")) == 1
    assert ["Cookie", f"x{name}={value}; y={name}={value}"] in answer.json()["fields"]


def renewed(p, cookie, outcome):
    """The cookie counts as absent: a new one is set, the node never sees it, the log says why."""
    number = next(numbers)
    target = f"/renewed-{number}"
    browser = f"browser {number}"  # one's own: no other first request is in parallel
    answer = p.get(target, ("Cookie", cookie), ("User-Agent", browser))
    assert answer.status == 200
    assert len(answer.all("Set-Cookie")) == 1
    assert all(key != "Cookie" for key, _ in answer.json()["fields"])
    assert p.log_of(target)["outcome"] == outcome


def test_no_altered_cookie_is_accepted(shop):
    name, value, _ = session(shop)
    for at in range(len(value)):
        other = "A" if value[at] != "A" else "B"
        renewed(shop, f"{name}={value[:at]}{other}{value[at + 1 :]}", "tampered")


@pytest.mark.parametrize("change", ["cut", "longer", "empty", "short", "huge", "odd"])
def test_no_misshapen_cookie_is_accepted(shop, change):
    name, value, _ = session(shop)
    values = {
        "cut": value[:-1],
        "longer": value + "A",
        "empty": "",
        "short": "x",
        "huge": "A" * 6000,
        "odd": "%00\xff=[]{}",
    }
    renewed(shop, f"{name}={values[change]}", "tampered")


def test_a_cookie_of_another_class_is_not_accepted(shop):
    name, _, _ = session(shop)
    other_name, value, _ = session(shop, "second")
    assert other_name != name
    renewed(shop, f"{name}={value}", "other-class")


def test_a_cookie_of_another_installation_is_not_accepted(shop):
    name, _, _ = session(shop)
    with HttpNode("x") as x, proxy(sticky(x)) as foreign:
        foreign_name, value, _ = session(foreign)
    assert foreign_name == name, "the name depends on more than the class's name"
    renewed(shop, f"{name}={value}", "tampered")
