"""Decisions against a model: whatever happens to nodes and clients, a session leaves its node
only when that cannot serve it, and a draining node gets no session while another can take it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fastlb._core._testing_decide import Made
from fastlb._core.shm import Segment
from tests.core.plans import Class, Setting, changed, get, nodes, state

NODES = range(4)
CLIENTS = range(6)
UNKNOWN = -1  # nobody could serve the session: the model leaves open what is known of it

CHAINS = {
    "ip": [Class("ip")],
    "header": [Class("header", type="universal", key=[("header", "X-Session")])],
    "cookie": [Class("cookie", type="transparent")],
    "cookie, then ip": [Class("cookie", type="transparent", fallback="ip"), Class("ip")],
    "header, then cookie": [
        Class("header", type="universal", key=[("header", "X-Session")], fallback="cookie"),
        Class("cookie", type="transparent"),
    ],
}


class Sessions(RuleBasedStateMachine):
    """A few clients of one pool."""

    def __init__(self) -> None:
        super().__init__()
        self.segment = Segment.create()
        self.states = dict.fromkeys(NODES, "up")
        self.refusing: set[int] = set()
        self.home: dict[int, int] = {}
        self.cookie: dict[int, str] = {}

    def teardown(self) -> None:
        self.segment.close()

    @initialize(
        chain=st.sampled_from(sorted(CHAINS)), delete=st.booleans(),
        mode=st.sampled_from(["new-node", "redirect", "close"]),
        algorithm=st.sampled_from(["round-robin", "least-connections", "random-of-two"]),
    )  # fmt: skip
    def begin(self, chain: str, delete: bool, mode: str, algorithm: str) -> None:
        flags = ("hide_cookie", "delete_on_failure") if delete else ("hide_cookie",)
        classes = [changed(one, failure_mode=mode, flags=flags) for one in CHAINS[chain]]
        self.mode, self.delete = mode, delete
        self.setting = Setting(nodes=nodes(len(NODES)), classes=classes, algorithm=algorithm)
        self.world = self.setting.world(self.segment)
        self.cookie_index = next(
            (i for i, one in enumerate(classes) if one.type == "transparent"), None
        )
        self.only_cookie = chain == "cookie"

    # --- what happens ---

    @rule(node=st.sampled_from(NODES), to=st.sampled_from(["up", "draining", "down", "disabled"]))
    def node_changes(self, node: int, to: str) -> None:
        state(self.world, node, to)
        self.states[node] = to

    @rule(node=st.sampled_from(NODES))
    def node_refuses(self, node: int) -> None:
        self.refusing ^= {node}

    @rule(client=st.sampled_from(CLIENTS))
    def cookie_is_lost(self, client: int) -> None:
        if self.cookie.pop(client, None) and self.only_cookie:
            self.home.pop(client, None)

    @rule(client=st.sampled_from(CLIENTS))
    def request(self, client: int) -> None:
        made = self.world.decide(f"192.0.2.{client + 1}", self.head(client))
        for _ in NODES:
            if made.action == "forward" and made.node in self.refusing:
                made.again()
        home = self.home.get(client)
        if home is None:
            self.is_new(client, made)
        elif home == UNKNOWN:
            self.take(client, made)
        elif self.states[home] in ("up", "draining") and home not in self.refusing:
            assert (made.action, made.node, made.established) == ("forward", home, True)
            assert made.outcome == ("draining" if self.states[home] == "draining" else "hit")
            assert made.writes == []
            assert made.expires == []
        elif self.mode == "new-node":
            self.is_new(client, made)
        else:
            self.has_failed(client, made)

    # --- what must follow ---

    def head(self, client: int) -> bytes:
        fields = [f"X-Session: key-{client}"]
        if client in self.cookie:
            fields.append(f"Cookie: {self.cookie[client]}")
        return get(*fields)

    def able(self, *states: str) -> set[int]:
        return {n for n in NODES if self.states[n] in states and n not in self.refusing}

    def is_new(self, client: int, made: Made) -> None:
        candidates = self.able("up") or self.able("draining")
        if candidates:
            assert made.action == "forward"
            assert made.node in candidates
            if self.cookie_index is not None:
                assert made.writes == [self.cookie_index]
        self.take(client, made)

    def has_failed(self, client: int, made: Made) -> None:
        assert made.action == self.mode
        carried = self.cookie_index is not None and client in self.cookie
        assert made.expires == ([self.cookie_index] if carried and self.delete else [])
        if self.delete:
            self.cookie.pop(client, None)
            del self.home[client]

    def take(self, client: int, made: Made) -> None:
        """What the client and the model know after an answer."""
        if made.action != "forward" or made.node in self.refusing:
            self.home[client] = UNKNOWN
            return
        self.home[client] = made.node
        for index in made.writes:
            name = self.setting.classes[index].name
            value = self.setting.cookie(self.setting.nodes[made.node].address, name)
            self.cookie[client] = f"{self.setting.classes[index].cookie_name}={value}"


Sessions.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSessions = Sessions.TestCase
