"""def functions over node, balance, the persistence methods and decide; for tests only."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastlb._core._testing_plan cimport PlanImage
from fastlb._core.address cimport (
    ADDRESS_TEXT_BYTES_MAX, Address, address_from_text, address_text,
)
from fastlb._core.balance cimport BalanceInput, balance_pick, balance_waits
from fastlb._core.decide cimport decide, decide_again, decide_answered, decide_forget, decide_learn
from fastlb._core.decision cimport (
    ACTION_CLOSE, ACTION_FORWARD, ACTION_NO_NODE, ACTION_REDIRECT, ACTION_WAIT, NODE_UNLISTED,
    DecideInput, decision_node,
)
from fastlb._core.head cimport (
    Head, HeadLimits, METHOD_GET, head_reset, request_head_parse, response_head_parse,
)
from fastlb._core.methods cimport method_find, method_learn
from fastlb._core.node cimport NodeTable, node_feed_response, node_load
from fastlb._core.outcome cimport found_in_name, outcome_name
from fastlb._core.persist cimport (
    FIND_HASH, FIND_KEY, FIND_NODE, FIND_NOTHING, Finding, LearnInput, Learned, PersistInput,
    persist_find_t, persist_learn_t,
)
from fastlb._core.plan cimport (
    CLASS_HAS_CACHE, KEY_SESSION, PlanClass, plan_class, plan_pool,
)
from fastlb._core.session_cache cimport (
    SessionMap, session_cache_next, session_cache_store,
)
from fastlb._core.session_layout cimport session_cache_open
from fastlb._core.session_shard cimport SessionCache
from fastlb._core.shm cimport Segment
from fastlb._core.siphash cimport Hash128, SipKey
from fastlb._core.slice cimport slice_of
from fastlb._core.tls_hello cimport (
    TlsClientHello, TlsServerFlight, tls_client_hello, tls_server_flight,
    tls_server_flight_begin, tls_session_id_hash,
)

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size) noexcept

ACTIONS = {
    ACTION_FORWARD: "forward", ACTION_REDIRECT: "redirect", ACTION_CLOSE: "close",
    ACTION_NO_NODE: "no-node", ACTION_WAIT: "wait",
}
KINDS = {FIND_NOTHING: "nothing", FIND_KEY: "key", FIND_NODE: "node", FIND_HASH: "hash"}


cdef Address _parsed(str ip, int port=0) except *:
    cdef Address a
    memset(&a, 0, sizeof(a))
    text = ip.encode()
    if not address_from_text(&a, text, <uint32_t>len(text)):
        raise ValueError(ip)
    a.port = port
    return a


cdef str _text(const Address* a):
    cdef char out[ADDRESS_TEXT_BYTES_MAX]
    return out[:address_text(a, out)].decode()


cdef Head* _head(const char* data, uint32_t count) except NULL:
    cdef Head* head = <Head*>malloc(sizeof(Head))
    cdef HeadLimits limits
    limits.request_line_bytes = 65536
    limits.field_bytes = 0
    limits.empty_lines = 4
    limits.head_bytes = 65536
    limits.field_count = 200
    head_reset(head)
    if data[:5] == b"HTTP/":
        parsed = response_head_parse(head, data, count, &limits, METHOD_GET)
    else:
        parsed = request_head_parse(head, data, count, &limits)
    if parsed != <int>count:
        free(head)
        raise ValueError("not a head")
    return head


cdef list _keys(const Hash128* keys, uint32_t count):
    cdef uint32_t i
    return [(<char*>&keys[i])[:16] for i in range(count)]


cdef class Hello:
    """A ClientHello, in the bytes that it came in."""

    def __init__(self, bytes data):
        self.data = data
        memset(&self.hello, 0, sizeof(TlsClientHello))
        if tls_client_hello(&self.hello, data, <uint32_t>len(data), self.joined) <= 0:
            raise ValueError("not a ClientHello")


cdef class World:
    """A plan, its node table and its session caches; clocks stand still until a test moves them."""

    def __init__(self, PlanImage image, Segment segment):
        cdef const PlanClass* cls
        cdef uint32_t i
        self.image = image
        self.segment = segment
        self.table = <NodeTable*>aligned_alloc(64, (sizeof(NodeTable) + 63) // 64 * 64)
        memset(self.table, 0, sizeof(NodeTable))
        self.caches = <SessionCache*>calloc(image.plan.class_count + 1, sizeof(SessionCache))
        self.reservations = <SessionCache*>calloc(image.plan.class_count + 1,
                                                  sizeof(SessionCache))
        self.random = 88172645463325252
        self.now_ms = 1000000
        self.now_ticks = 10000
        self.wall_s = 1800000000
        for i in range(image.plan.class_count):
            cls = plan_class(image.plan, i)
            if cls.flags & CLASS_HAS_CACHE and session_cache_open(
                    &self.caches[i], segment.at(cls.cache_offset), cls.cache_bytes) < 0:
                raise ValueError("no session cache")
            if cls.reserve_ticks and session_cache_open(
                    &self.reservations[i], segment.at(cls.reservations_offset),
                    cls.reservations_bytes) < 0:
                raise ValueError("no reservations")

    def __dealloc__(self):
        free(self.table)
        free(self.caches)
        free(self.reservations)

    # ---- nodes ----

    @property
    def table_address(self):
        return <size_t>self.table

    def set_load(self, uint32_t slot, uint32_t worker, uint32_t count):
        self.table.slots[slot].active[worker] = count

    def set_open(self, uint32_t slot, uint32_t worker, uint32_t count):
        """Open connections of a worker to the node of this slot."""
        self.table.slots[slot].open[worker] = count

    def set_waiting(self, uint32_t slot, uint32_t worker, uint32_t since, bint pool=False):
        """Since when (ms, 0: nobody) a request of a worker waits for the node, or for the pool."""
        if pool:
            self.table.pools[slot].waiting[worker] = since
        else:
            self.table.slots[slot].waiting[worker] = since

    def load(self, uint32_t slot, uint32_t workers):
        return node_load(&self.table.slots[slot], workers)

    def feed(self, uint32_t slot, uint64_t us):
        """One measured response time; the average after it."""
        node_feed_response(&self.table.slots[slot], us, self.now_ms)
        return self.table.slots[slot].response_us

    def eject(self, uint32_t slot, uint64_t ms=1000, uint32_t times=1):
        """As `health` does it: out for so long, so many times in a row."""
        self.table.slots[slot].ejected_until_ms = self.now_ms + ms
        self.table.slots[slot].ejections = times

    def turns(self, uint32_t slot):
        return self.table.pools[slot].turn

    def waits(self, uint32_t pool=0, object tried=()):
        """Whether it is worth waiting when `pick` finds none."""
        cdef BalanceInput ask
        memset(&ask, 0, sizeof(ask))
        ask.plan = self.image.plan
        ask.pool = plan_pool(self.image.plan, pool)
        ask.table = self.table
        ask.tried_count = <uint32_t>len(tried)
        for i, node in enumerate(tried):
            ask.tried[i] = node
        return bool(balance_waits(&ask))

    def pick(self, uint32_t pool=0, object tried=(), uint64_t key=0, bint in_turn=False):
        """(index of the node or -1, whether it is a draining one taken for want of others)"""
        cdef BalanceInput ask
        cdef bint draining = True
        cdef uint32_t i
        memset(&ask, 0, sizeof(ask))
        ask.plan = self.image.plan
        ask.pool = plan_pool(self.image.plan, pool)
        ask.table = self.table
        ask.key = key
        ask.random = &self.random
        ask.now_ms = self.now_ms
        ask.in_turn = in_turn
        ask.tried_count = <uint32_t>len(tried)
        for i in range(ask.tried_count):
            ask.tried[i] = tried[i]
        node = balance_pick(&ask, &draining)
        return node, bool(draining)

    def picks(self, list keys, uint32_t pool=0):
        """The nodes of many keys."""
        return [self.pick(pool, [], key)[0] for key in keys]

    def placed(self, list requests):
        """The nodes of many requests."""
        return [(<Made>Made(self, "192.0.2.1", data, 0, False)).d.node for data in requests]

    # ---- session maps ----

    def maps(self, uint32_t index, bint reserved=False):
        """{hash of the key: "address:port"} of a class's session cache, or its reservations."""
        cdef SessionCache* cache = &self.reservations[index] if reserved else &self.caches[index]
        cdef uint32_t cursor = 0
        cdef SessionMap found
        rows = {}
        if not cache.shard_count:
            return rows              # the class keeps none
        while session_cache_next(cache, &cursor, &found):
            rows[(<char*>&found.key)[:16]] = _text(&found.address)
        return rows

    def used_at(self, uint32_t index):
        """The last use of each map, in ticks."""
        cdef uint32_t cursor = 0
        cdef SessionMap found
        rows = []
        if not self.caches[index].shard_count:
            return rows
        while session_cache_next(&self.caches[index], &cursor, &found):
            rows.append(found.used_at)
        return rows

    def find(self, uint32_t index, str client="192.0.2.1", object data=None, str local=None,
             bytes sni=b"", bytes key=None, str named=None, int named_port=0, uint32_t server=0,
             bytes hello=None):
        """What the class's method reads out of a request, or out of a ClientHello's records."""
        cdef Hello opening = None if hello is None else Hello(hello)
        cdef PersistInput ask
        cdef Finding found
        cdef Address address = _parsed(client, 4711)
        cdef Address local_address, named_address
        cdef const PlanClass* cls = plan_class(self.image.plan, index)
        cdef persist_find_t find = method_find(cls)
        memset(&ask, 0, sizeof(ask))
        ask.plan = self.image.plan
        ask.client = &address
        ask.virtual_server = server
        ask.sni = slice_of(<const char*>sni, <uint32_t>len(sni))
        if local is not None:
            local_address = _parsed(local, 443)
            ask.local = &local_address
        if key is not None:
            ask.key = slice_of(<const char*>key, <uint32_t>len(key))
        if named is not None:
            named_address = _parsed(named, named_port)
            ask.named = &named_address
        if opening is not None:
            ask.hello = &opening.hello
            ask.sni = opening.hello.sni
        if data is not None:
            ask.buf = <bytes>data
            ask.head = _head(ask.buf, <uint32_t>len(data))
        ask.wall_s = self.wall_s
        memset(&found, 0, sizeof(found))
        find(&ask, cls, &found)
        free(<void*>ask.head)
        keys = _keys(found.keys, found.key_count)
        return {
            "kind": KINDS[found.kind], "outcome": outcome_name(found.outcome).decode(),
            "duplicates": bool(found.duplicates), "cookie_seen": bool(found.cookie_seen),
            "session_seen": bool(found.session_seen), "hash": found.hash,
            "rewrite": bool(found.rewrite), "first_seen_s": found.first_seen_s,
            "last_seen_s": found.last_seen_s, "key": keys[0] if keys else bytes(16),
            "keys": keys, "node": _text(&found.node) if found.kind == FIND_NODE else None,
        }

    def learn(self, uint32_t index, bytes data, bytes path=b""):
        """(the keys that the class's method reads out of a response, whether it ends a session)"""
        cdef LearnInput response
        cdef Learned learned
        cdef const PlanClass* cls = plan_class(self.image.plan, index)
        cdef persist_learn_t learn = method_learn(cls)
        response.plan = self.image.plan
        response.buf = data
        response.head = _head(data, <uint32_t>len(data))
        response.path = slice_of(path, <uint32_t>len(path))
        response.wall_s = self.wall_s
        response.flight = NULL
        learned.ended = False
        learned.key_count = 0
        learned.shown = 0
        learn(&response, cls, &learned)
        free(<void*>response.head)
        return _keys(learned.keys, learned.key_count), bool(learned.ended)

    def put(self, uint32_t index, str client, str ip, int port):
        """Makes a map of a class with keys, as another worker would."""
        cdef Hash128 key
        cdef Address address = _parsed(ip, port)
        cdef const char* bits
        found = self.find(index, client)["key"]
        bits = found
        key = (<const Hash128*>bits)[0]
        session_cache_store(&self.caches[index], &key, &address, self.now_ticks, 0, NULL)

    def decide(self, str client="192.0.2.1", object data=None, uint32_t pool=0, bint peek=False,
               str named=None, int named_port=0, bytes hello=None):
        """A decision; `data`: the request's whole head, None where the protocol has none; `named`:
        what a rule named; `hello`: the ClientHello in its records."""
        return Made(self, client, data, pool, peek, named, named_port, hello)


cdef class Made:
    """A decision with the request that it is about."""

    def __init__(self, World world, str client, object data, uint32_t pool, bint peek,
                 str named=None, int named_port=0, bytes hello=None):
        cdef DecideInput ask
        self.world = world
        self.hello = None if hello is None else Hello(hello)
        self.client = _parsed(client, 4711)
        self.data = data
        if data is not None:
            self.head = _head(data, <uint32_t>len(data))
        self.pool = pool
        self.peek = peek
        self.has_named = named is not None
        if self.has_named:
            self.named = _parsed(named, named_port)
        memset(&self.d, 0xee, sizeof(self.d))
        self._input(&ask)
        decide(&ask, &self.d)

    def __dealloc__(self):
        free(self.head)

    cdef void _input(self, DecideInput* ask):
        memset(ask, 0, sizeof(DecideInput))
        ask.request.plan = self.world.image.plan
        ask.request.client = &self.client
        ask.request.head = self.head
        ask.request.buf = NULL
        if self.data is not None:
            ask.request.buf = self.data
        ask.request.wall_s = self.world.wall_s
        if self.has_named:
            ask.request.named = &self.named
        if self.hello is not None:
            ask.request.hello = &self.hello.hello
            ask.request.sni = self.hello.hello.sni
        ask.request.pool = plan_pool(ask.request.plan, self.pool)
        ask.pool = plan_pool(ask.request.plan, self.pool)
        ask.persistence = ask.pool.persistence
        ask.table = self.world.table
        ask.caches = self.world.caches
        ask.reservations = self.world.reservations
        ask.random = &self.world.random
        ask.now_ms = self.world.now_ms
        ask.now_ticks = self.world.now_ticks
        ask.peek = self.peek

    def learn(self, bytes data, bytes path=b""):
        """The node answered so."""
        cdef DecideInput ask
        cdef LearnInput response
        self._input(&ask)
        response.plan = self.world.image.plan
        response.buf = data
        response.head = _head(data, <uint32_t>len(data))
        response.path = slice_of(path, <uint32_t>len(path))
        response.wall_s = self.world.wall_s
        response.flight = NULL
        decide_learn(&ask, &self.d, &response)
        free(<void*>response.head)

    def handshake(self, bytes data):
        """The node's side of the handshake passed by."""
        cdef DecideInput ask
        cdef LearnInput response
        cdef TlsServerFlight flight
        cdef const SipKey* key = &self.world.image.plan.keys[KEY_SESSION]
        memset(&response, 0, sizeof(response))
        tls_server_flight_begin(&flight)
        tls_server_flight(&flight, key, data, <uint32_t>len(data))
        self._input(&ask)
        response.plan = self.world.image.plan
        response.wall_s = self.world.wall_s
        response.flight = &flight
        response.session_id = tls_session_id_hash(key, self.hello.hello.session_id)
        response.offers_ticket = self.hello.hello.ticket.bytes != 0
        decide_learn(&ask, &self.d, &response)

    def again(self):
        """The node could not be connected to."""
        cdef DecideInput ask
        self._input(&ask)
        decide_again(&ask, &self.d)
        return self

    def answered(self, bint whole=True):
        cdef DecideInput ask
        self._input(&ask)
        decide_answered(&ask, &self.d, whole)

    def forget(self):
        cdef DecideInput ask
        self._input(&ask)
        decide_forget(&ask, &self.d)

    def __getattr__(self, str name):
        return self.fields()[name]

    def cookies(self):
        """{class: what becomes of its cookie} of the cookie classes that were asked."""
        cdef uint32_t i
        return {self.d.cookies[i].index: {
            "seen": bool(self.d.cookies[i].seen),
            "session_seen": bool(self.d.cookies[i].session_seen),
            "write": bool(self.d.cookies[i].write),
            "expire": bool(self.d.cookies[i].expire),
            "first_seen_s": self.d.cookies[i].first_seen_s,
        } for i in range(self.d.cookie_count)}

    def _address(self):
        if self.d.node < 0:
            return None
        return _text(&decision_node(
            self.world.image.plan, plan_pool(self.world.image.plan, self.pool), &self.d).address)

    def fields(self):
        cdef uint32_t i
        cookies = self.cookies()
        return {
            "action": ACTIONS[self.d.action], "outcome": outcome_name(self.d.outcome).decode(),
            "found_in": found_in_name(self.d.found_in).decode(),
            "established": bool(self.d.established), "duplicates": bool(self.d.duplicates),
            "last_draining": bool(self.d.last_draining),
            "has_reservation": bool(self.d.has_reservation),
            "holds_reservation": bool(self.d.holds_reservation),
            "node": "unlisted" if self.d.node == NODE_UNLISTED else self.d.node,
            "address": self._address(),
            "persistence": self.d.persistence, "found_class": self.d.found_class,
            "previous": _text(&self.d.previous) if self.d.has_previous else None,
            "keys": [self.d.keys[i].index for i in range(self.d.key_count)],
            "tried": ["unlisted" if self.d.tried[i] == NODE_UNLISTED else self.d.tried[i]
                      for i in range(self.d.tried_count)],
            "writes": [index for index, one in cookies.items() if one["write"]],
            "expires": [index for index, one in cookies.items() if one["expire"]],
        }
