"""The situations, each told once for every method. `slot` is what the story has to itself."""

from __future__ import annotations

from typing import Any

from tests.harness import until
from tests.harness.settings import Config

from .methods import Kind, Method
from .stage import FALLBACK, NODES, Situation, Slot, stage
from .visitor import Answer, Visitor


def stays(user: Visitor, node: str, count: int = 3, **how: Any) -> None:
    """The session is known: the same node, and no cookie is written."""
    for _ in range(count):
        answer = user.visit(**how)
        assert (answer.status, answer.node, answer.found) == (
            200, node, user.slot.method.again
        ), answer  # fmt: skip
        assert answer.ours == [], answer


def gets_cookie(answer: Answer, slot: Slot) -> None:
    """The answer to a request without a session that fastlb knows."""
    new = [one for one in answer.ours if not one.expired]
    assert len(answer.ours) == len(new) == (slot.method.kind is Kind.COOKIE), answer


# --- quiet ones ---------------------------------------------------------------------------


def first_request(slot: Slot) -> None:
    """The algorithm's choice, or the hash's; a cookie class writes its cookie."""
    nodes = []
    for _ in range(3):
        user = slot.visitor()
        answer = user.begin()
        assert answer.outcome in slot.method.first, answer
        gets_cookie(answer, slot)
        nodes.append(answer.node)
        assert sum(node.users[user.name] for node in slot.nodes.values()) == 1
    if slot.method.kind is not Kind.HASH:
        assert set(nodes) == set(NODES)


def repeat(slot: Slot) -> None:
    for user, home in [slot.settled() for _ in range(4)]:
        stays(user, home, 5)


def other_worker(slot: Slot) -> None:
    user = slot.visitor()
    with slot.connections(user.source) as (one, other):
        home = user.visit(connection=one).node
        assert home
        stays(user, home, connection=other)
        stays(user, home, connection=one)


def many_users(slot: Slot) -> None:
    """A CDN's connection: each request is decided by its own user."""
    users = [slot.visitor(shared=True) for _ in range(14)]
    with slot.connection() as cdn:
        homes = [user.visit(connection=cdn).node for user in users]
        assert len(set(homes)) > 1
        for _ in range(3):
            for user, home in zip(users, homes, strict=True):
                assert home
                stays(user, home, 1, connection=cdn)


def pipelined(slot: Slot) -> None:
    users = [slot.visitor(shared=True) for _ in range(14)]
    newcomer = slot.visitor(shared=True)
    with slot.connection() as cdn:
        cdn.send(b"".join(user.request() for user in users))
        homes = {user.name: user.take(cdn.response()).node for user in users}
        assert len(set(homes.values())) > 1
        row = [*users, newcomer, *users, *reversed(users)]
        cdn.send(b"".join(user.request() for user in row))
        for user in row:
            answer = user.take(cdn.response())
            if user is newcomer:
                assert answer.outcome in slot.method.first
            else:
                assert (answer.node, answer.found) == (homes[user.name], slot.method.again)


# --- nodes that leave ---------------------------------------------------------------------


def drained(slot: Slot) -> None:
    a, b, c = slot.nodes.values()
    crowd = slot.crowd()
    hashed = slot.method.kind is Kind.HASH
    slot.nodes_are(a, {"address": b, "draining": True}, c)
    for _ in range(3):
        for home, user in crowd.items():
            answer = user.visit()
            assert answer.ours == []
            if home != "b":
                assert (answer.node, answer.found) == (home, slot.method.again)
            elif hashed:
                assert (answer.node != "b", answer.outcome) == (True, "hashed")
            else:
                assert (answer.node, answer.outcome) == ("b", "draining")
    assert "b" not in {slot.settled()[1] for _ in range(9)}
    slot.nodes_are(a, b, c)
    for home, user in crowd.items():
        stays(user, home)


def node_down(slot: Slot) -> tuple[Visitor, str, Visitor, str]:
    """A user whose node has just gone, its node, and another user with another node."""
    user, home = slot.settled()
    other, elsewhere = slot.settled_on(lambda node: node != home)
    slot.nodes[home].stop()
    return user, home, other, elsewhere


def back_at(user: Visitor, home: str) -> None:
    """The node serves again: perhaps not at once, if it is held for down for a moment."""
    until(lambda: user.visit().node == home, f"the session is back at {home}")
    stays(user, home)


def new_node(slot: Slot) -> None:
    user, home, other, elsewhere = node_down(slot)
    answer = user.visit()
    assert (answer.status, answer.outcome) == (200, "connect-failed"), answer
    assert answer.node != home
    gets_cookie(answer, slot)
    moved = answer.node
    assert moved
    if slot.method.remembers:
        stays(user, moved)
    else:
        assert all(user.visit().node in set(NODES) - {home} for _ in range(3))
    stays(other, elsewhere)
    slot.nodes[home].start()
    if slot.method.remembers:
        stays(user, moved)
    else:
        back_at(user, home)
    stays(other, elsewhere)


def failed(user: Visitor, delete: bool) -> Answer:
    """The failure mode's answer: 302 or 503; whether it ends the session's cookie."""
    answer = user.visit()
    mode = user.slot.class_keys()["failure_mode"]
    assert (answer.status, answer.outcome) == (302 if mode == "redirect" else 503, "connect-failed")
    assert answer.node is None
    if mode == "redirect":
        assert answer.message.get("Location") == b"/sorry"
        assert b"no-store" in (answer.message.get("Cache-Control") or b"")
    else:
        assert (answer.message.get("Connection") or b"").lower() == b"close"
    gone = delete and user.slot.method.kind is Kind.COOKIE
    assert [one.expired for one in answer.ours] == [True] * gone, answer
    return answer


def deleted(slot: Slot) -> None:
    user, home, other, elsewhere = node_down(slot)
    failed(user, True)
    if not slot.method.remembers:  # there is nothing to forget
        failed(user, True)
        slot.nodes[home].start()
        back_at(user, home)
        return
    answer = user.visit()
    assert (answer.status, answer.outcome) == (200, "new"), answer
    gets_cookie(answer, slot)
    new = answer.node
    assert new
    assert new != home
    stays(user, new)
    slot.nodes[home].start()
    stays(user, new)
    stays(other, elsewhere)


def kept(slot: Slot) -> None:
    user, home, other, elsewhere = node_down(slot)
    failed(user, False)
    failed(user, False)
    stays(other, elsewhere)
    if slot.method.kind is not Kind.HASH:  # it has a node for every newcomer, too
        assert home not in {slot.settled()[1] for _ in range(6)}
    if slot.class_keys()["failure_mode"] == "redirect":
        follow = user.visit("/sorry", plain=True)
        assert follow.status in (200, 503), f"redirected in a loop: {follow}"
    slot.nodes[home].start()
    back_at(user, home)
    stays(other, elsewhere)


def removed(slot: Slot) -> None:
    """A reload without the node, and one with it."""
    a, b, c = slot.nodes.values()
    crowd = slot.crowd()
    user = crowd.pop("b")
    kept_jar = dict(user.jar)
    slot.nodes_are(a, c)
    answer = user.visit()
    if slot.method.kind is Kind.HASH:
        assert answer.outcome == "hashed"
    else:
        wanted = "unknown-node" if slot.method.listed_only else "node-removed"
        assert (answer.status, answer.outcome) == (200, wanted), answer
    gets_cookie(answer, slot)
    moved = answer.node
    assert moved
    if slot.method.kind is Kind.NAMED:
        assert {user.visit().node for _ in range(3)} <= {"a", "c"}
    else:
        stays(user, moved)
    slot.nodes_are(a, b, c)
    if slot.method.remembers:
        stays(user, moved)
        user.jar = kept_jar
        stays(user, "b" if slot.method.kind is Kind.COOKIE else moved)
    else:
        stays(user, "b")
    for home, other in crowd.items():
        stays(other, home)


def removed_and_kept(slot: Slot) -> None:
    """With a failure mode and a map that is kept, or a rule that insists, the session waits for
    its node."""
    a, b, c = slot.nodes.values()
    crowd = slot.crowd()
    user = crowd.pop("b")
    kept_jar = dict(user.jar)
    slot.nodes_are(c, a)
    answer = user.visit()
    if slot.method.kind is not Kind.HASH and not slot.method.listed_only:
        assert (answer.status, answer.outcome, answer.ours) == (503, "node-removed", [])
    else:
        assert (answer.status, answer.node != "b") == (200, True), answer
        gets_cookie(answer, slot)
    for home, other in crowd.items():
        stays(other, home)
    slot.nodes_are(a, b, c)
    user.jar = kept_jar
    stays(user, "b")


# --- caches -------------------------------------------------------------------------------


def begin_early(slot: Slot) -> None:
    """Time must pass before the story: its session begins with the proxy."""
    user, _ = slot.settled()
    slot.early = user, dict(user.jar)


def expired(slot: Slot) -> None:
    user, jar = slot.early
    if slot.method.kind is Kind.CACHE:
        until(lambda: slot.status()["oldest_seconds"] >= 2, "the map is old enough")
        answer = user.visit()
    elif slot.method.dated:
        user, answer = until(lambda: too_old(slot, jar), "the cookie is too old")
    else:
        ages_in_the_browser(slot)
        return
    assert (answer.status, answer.outcome) == (200, "expired"), answer
    gets_cookie(answer, slot)
    assert answer.node
    answer = user.visit()
    assert answer.found == slot.method.again


def too_old(slot: Slot, jar: dict[str, str]) -> tuple[Visitor, Answer] | None:
    """A client that kept the first cookie and its answer, once that is expired."""
    user = slot.visitor(jar)
    answer = user.visit()
    return (user, answer) if answer.outcome == "expired" else None


def ages_in_the_browser(slot: Slot) -> None:
    user = slot.visitor()
    (cookie,) = user.begin().ours
    assert "Max-Age=1" in cookie.attributes


def cache_full(slot: Slot) -> None:
    users = [slot.settled() for _ in range(17)]
    status = slot.status()
    assert (status["entries"], status["entries_max"], status["evictions"]) == (16, 16, 1)
    for user, home in users[:0:-1]:
        stays(user, home, 1)
    victim, _ = users[0]
    answer = victim.visit()
    assert (answer.status, answer.outcome) == (200, "new"), answer
    assert answer.node
    stays(victim, answer.node)
    assert slot.status()["evictions"] == 2


# --- values that are not the client's own --------------------------------------------------


def altered(slot: Slot) -> None:
    user, home = slot.settled()
    if slot.method.kind is Kind.COOKIE:
        altered_cookie(slot, user)
    elif slot.method.kind is Kind.NAMED:
        altered_name(slot, user)
    else:
        altered_key(slot, user)
    stays(user, home)


def altered_key(slot: Slot, user: Visitor) -> None:
    """Another id is another session, which nobody knows."""
    stranger = slot.visitor(user.jar)
    stranger.key, stranger.base = user.key, user.base
    stranger.carrier.alter(stranger)
    answer = stranger.visit()
    assert (answer.status, answer.outcome) == (
        200, "hashed" if slot.method.kind is Kind.HASH else "new",
    ), answer  # fmt: skip
    assert answer.node
    stays(stranger, answer.node)


def alterations(value: str) -> list[str]:
    each = [
        f"{value[:at]}{'A' if byte != 'A' else 'B'}{value[at + 1 :]}"
        for at, byte in enumerate(value)
    ]
    return [*each, "", value[:-1], value[1:], value + "A", value * 2, "%00", "A" * 5000]


def our_cookie(user: Visitor) -> tuple[str, str]:
    """Name and value of the cookie that fastlb gave."""
    ((name, value),) = [pair for pair in user.jar.items() if pair[0] in user.slot.own_names]
    return name, value


def with_cookie(user: Visitor, name: str, value: str) -> Visitor:
    """Somebody else with the same cookies but one."""
    return user.slot.visitor({**user.jar, name: value})


def is_absent(stranger: Visitor, *outcomes: str) -> None:
    """What was sent counts as no cookie: a new session begins."""
    answer = stranger.visit()
    assert answer.status == 200
    assert answer.outcome in outcomes, answer
    gets_cookie(answer, stranger.slot)
    assert answer.node
    stays(stranger, answer.node, 1)


def altered_cookie(slot: Slot, user: Visitor) -> None:
    name, value = our_cookie(user)
    refused = 0
    for text in alterations(value):
        stranger = with_cookie(user, name, text)
        if slot.method.authentic:
            is_absent(stranger, "tampered")
            continue
        # In plain text it is obeyed where it names a node of the pool, and only there.
        answer = stranger.visit()
        assert answer.outcome in ("tampered", "unknown-node", "hit", "moved"), answer
        assert bool(answer.ours) == (answer.outcome != "hit"), answer
        refused += answer.outcome in ("tampered", "unknown-node")
    assert slot.method.authentic or refused > len(value) // 4
    is_absent(with_cookie(user, name, "garbage"), "tampered")


def altered_name(slot: Slot, user: Visitor) -> None:
    """What the application names is obeyed for nodes of the pool only."""
    ((name, value),) = user.jar.items()
    for text in ("10.255.255.1:80", "", "garbage", value + "0", f"{value}.", "A" * 5000):
        answer = with_cookie(user, name, text).visit()
        assert (answer.status, answer.node in NODES) == (200, True), answer
        assert answer.outcome not in ("hit", "moved") or text == value + "0", answer
    other = next(node for node in slot.nodes.values() if node.address != value)
    stays(with_cookie(user, name, other.address), other.name)


def another_class(slot: Slot, config: Config) -> None:
    """A second class of the same method, on a virtual server and a pool of its own."""
    config["persistence"][f"{slot.name}_x"] = slot.class_keys()
    slot.add(config, "_x", cls=f"{slot.name}_x")


def other_class(slot: Slot) -> None:
    foreigner = slot.visitor()
    there = foreigner.visit(server="_x")
    assert there.node
    if slot.method.kind is Kind.CACHE:
        answer = foreigner.visit()  # the same id: but maps are a class's own
        assert answer.outcome == "new"
    else:
        is_absent(slot.visitor(foreigner.jar), "new")  # a cookie of another name
        user, _ = slot.settled()
        name, _ = our_cookie(user)
        ((_, value),) = [pair for pair in foreigner.jar.items() if pair[0] == there.ours[0].name]
        stranger = with_cookie(user, name, value)
        if slot.method.authentic:
            is_absent(stranger, "other-class")
        else:  # an address in plain text has no class
            stays(stranger, there.node)
    stays(foreigner, there.node, server="_x")


def other_installation(slot: Slot) -> None:
    """The same configuration and nodes, another secret."""
    folder = slot.stage.folder / "foreign"
    folder.mkdir()
    with stage(slot.method, [slot.situation], folder, slot.nodes) as foreign:
        (there,) = foreign.slots.values()
        for _ in range(3):
            foreigner, node = there.settled()
            foreigner.slot = slot
            if slot.method.kind is Kind.HASH or not slot.method.authentic:
                stays(foreigner, node)
                continue
            if slot.method.kind is Kind.COOKIE:
                user, _ = slot.settled()
                assert our_cookie(user)[0] in foreigner.jar, "the name tells the installation"
                is_absent(foreigner, "tampered")
            else:
                answer = foreigner.visit()
                assert (answer.status, answer.outcome) == (200, "new")


# --- from one thing to another ------------------------------------------------------------


def with_fallback(slot: Slot, config: Config) -> None:
    """By address; where that is the method, by a cookie: the client has changed its address."""
    second = {"type": "ip", "size": 64}
    if slot.method.keys["type"] == "ip":
        second = {"type": "transparent"}
    config["persistence"][slot.name + FALLBACK] = second


def fallback_found(slot: Slot) -> None:
    """A client that lost what the method goes by, on requests that start no session.

    Every other one has another address by then: its requests until then have taught the fallback.
    """
    for number, (user, home) in enumerate([slot.settled() for _ in range(4)]):
        if number % 2:
            user.move()
        stays(user, home, 1 if slot.method.keys["type"] != "ip" else 0)
        user.carrier.lose(user)
        answer = user.visit(quiet=True)
        by = "cookie" if slot.method.keys["type"] == "ip" else "cache"
        assert (answer.node, answer.found) == (home, ("hit", by)), answer
        assert answer.decision["class"] == slot.name + FALLBACK
        assert answer.ours == []
        for _ in range(3):
            answer = user.visit(quiet=True)
            assert (answer.node, answer.ours) == (home, []), answer


def second_pool(slot: Slot, config: Config) -> None:
    """The same machines on other ports, in another order."""
    beside = {f"{name}2": slot.stage.node(f"{name}2", one.host) for name, one in slot.nodes.items()}
    slot.everybody |= beside
    slot.add(config, "_second", cls=slot.name, nodes=list(reversed(beside.values())))


def two_pools(slot: Slot) -> None:
    for _ in range(4):
        user, home = slot.settled()
        for _ in range(2):
            for server in ("_second", "", ""):
                answer = user.visit(server=server)
                assert (answer.status, answer.node) == (200, home + "2" * bool(server)), answer


# --- the table's columns ------------------------------------------------------------------


def fails(mode: str, delete: bool) -> Any:
    def keys(method: Method) -> dict[str, Any]:
        more: dict[str, Any] = {"failure_mode": mode, "delete_on_failure": delete}
        if mode == "redirect":
            more["redirect_url"] = "/sorry"
        if method.kind is Kind.COOKIE:
            more["reserve"] = "0s"  # who lost a session is no parallel first request
        return more

    return keys


def ages(method: Method) -> dict[str, Any]:
    return {"expiry": "1s"} if method.kind is Kind.CACHE else {"timeout": "1s"}


CDN = {"trusted_proxies": ["127.0.0.0/8"]}

SITUATIONS = [
    Situation("first request", first_request),
    Situation("repeat", repeat),
    Situation("other worker", other_worker),
    Situation("keep-alive, many users", many_users, server=CDN),
    Situation("pipelined", pipelined, server=CDN),
    Situation("node drained", drained),
    Situation("node down, new-node, delete", new_node, fails("new-node", True)),
    Situation("node down, new-node, keep", new_node, fails("new-node", False)),
    Situation("node down, redirect, delete", deleted, fails("redirect", True)),
    Situation("node down, redirect, keep", kept, fails("redirect", False)),
    Situation("node down, close, delete", deleted, fails("close", True)),
    Situation("node down, close, keep", kept, fails("close", False)),
    Situation("node removed", removed),
    Situation("node removed, close, keep", removed_and_kept, fails("close", False)),
    Situation("cache full", cache_full, lambda _method: {"size": 16}),
    Situation("cookie tampered", altered),
    Situation("cookie of another class", other_class, more=another_class),
    Situation("cookie of another installation", other_installation),
    Situation(
        "fallback found", fallback_found, more=with_fallback,
        keys=lambda _method: {"fallback": FALLBACK},
    ),
    Situation("two pools with one class", two_pools, more=second_pool),
    Situation("map expired", expired, ages, early=begin_early),
]  # fmt: skip
