# cython: boundscheck=True
"""Makes a RuleCall of given facts, runs rules over it as a worker does, and shows its effects."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastlb._core.arena cimport Span, arena_clear, arena_free, arena_slice
from fastlb._core.bounds cimport bounds_of_heads
from fastlb._core.head cimport (
    HeadLimits, head_error_name, head_reset, request_head_parse, response_head_parse,
)
from fastlb._core.message cimport Head
from fastlb._core.plan cimport (
    Plan, Text, plan_check, plan_class, plan_pool, plan_text, plan_virtual_server,
)
from fastlb._core.rule_call cimport (
    RULE_ANSWERS, RULE_BODY_READY, RULE_CLOSES, RULE_CONNECTION, RULE_FAILS,
    RULE_REQUEST, RULE_RESPONSE, RULE_SETS_CLIENT, RULE_SETS_HEAD, RULE_SETS_KEY, RULE_SETS_LOG,
    RULE_SETS_NODE, RULE_SETS_PERSISTENCE, RULE_SETS_POOL,
)
from fastlb._core.rule_objects cimport Request
from fastlb._core.rule_response cimport Response
from fastlb._core.rule_run cimport RuleRun, rule_run_of, rule_run_plain
from fastlb._core.rule_text cimport address_str, node_str, parse_ip, parse_node, text_out
from fastlb._core.slice cimport Slice, slice_of
from fastlb._core.system cimport clock_us, wall_us

KINDS = {"connection": RULE_CONNECTION, "request": RULE_REQUEST, "response": RULE_RESPONSE}
ACTIONS = {RULE_ANSWERS: "answers", RULE_CLOSES: "closes", RULE_FAILS: "fails"}

cdef enum:
    NO_SLOT = 0xFFFFFFFF             # nobody counts it


cdef class Trial:
    """One call; `plan` is a PlanBuilder's, its first virtual server is the one."""

    def __cinit__(self, str kind not None, bytes plan not None):
        memset(&self.call, 0, sizeof(RuleCall))
        self.steps = NULL
        self.owned = [plan]
        self.functions = []
        self.call.facts.plan = <const Plan*> PyBytes_AS_STRING(plan)
        if plan_check(self.call.facts.plan, <uint64_t> PyBytes_GET_SIZE(plan)) != 0:
            raise ValueError("not a plan")
        self.call.kind = KINDS[kind]
        self.call.facts.server = plan_virtual_server(self.call.facts.plan, 0)
        self.call.facts.pool = <int> self.call.facts.server.pool
        self.call.facts.persistence = plan_pool(
            self.call.facts.plan, self.call.facts.server.pool).persistence
        self.call.facts.started_us = wall_us()

    def __dealloc__(self):
        Py_XDECREF(<PyObject*> self.call.data)
        arena_free(&self.call.arena)
        free(self.steps)
        free(<void*> self.call.facts.request_head)
        free(<void*> self.call.facts.response_head)

    # --- facts ----------------------------------------------------------------------------

    cdef Slice keep(self, bytes data) except *:
        self.owned.append(data)
        return slice_of(PyBytes_AS_STRING(data), <uint32_t> PyBytes_GET_SIZE(data))

    def set_addresses(self, client, uint32_t client_port, peer, local, uint32_t local_port):
        """Texts of IP addresses; None: a Unix socket."""
        if client is not None:
            parse_ip(client, "client", &self.call.facts.client)
            self.call.facts.client.port = <unsigned short> client_port
        if peer is not None:
            parse_ip(peer, "peer", &self.call.facts.peer)
        if local is not None:
            parse_ip(local, "local", &self.call.facts.local)
            self.call.facts.local.port = <unsigned short> local_port

    def set_tls(self, uint32_t version, bytes sni, bytes alpn, bytes subject, bytes certificate,
                bint ends_here):
        """`version`: 0x0304 is TLS 1.3; `alpn`: names, each with its length before it."""
        self.call.facts.tls_version = <unsigned short> version
        self.call.facts.sni = self.keep(sni)
        self.call.facts.alpn = self.keep(alpn)
        self.call.facts.subject = self.keep(subject)
        self.call.facts.certificate = self.keep(certificate)
        self.call.facts.tls_ends_here = ends_here

    def set_request(self, bytes head, bytes body=None):
        """A whole head; ValueError if a client would be refused for it. `body` is at hand."""
        cdef HeadLimits limits = bounds_of_heads(self.call.facts.plan)
        cdef Head* parsed = <Head*> malloc(sizeof(Head))
        cdef int result
        if parsed == NULL:
            raise MemoryError()
        free(<void*> self.call.facts.request_head)
        self.call.facts.request_head = parsed
        self.call.facts.request = self.keep(head)
        head_reset(parsed)
        result = request_head_parse(parsed, self.call.facts.request.at,
                                    self.call.facts.request.bytes, &limits)
        _demand_whole(result, head, "request")
        self.call.facts.method = parsed.method
        self.call.facts.request_body = parsed.framing
        self.call.facts.request_length = parsed.content_length
        if body is not None:
            self.owned.append(body)
            self.call.body = PyBytes_AS_STRING(body)
            self.call.body_bytes = <uint64_t> PyBytes_GET_SIZE(body)
            self.call.body_state = RULE_BODY_READY

    def forget_parsed(self):
        """As after rule_call_own: heads are there, their parsed forms are not."""
        free(<void*> self.call.facts.request_head)
        free(<void*> self.call.facts.response_head)
        self.call.facts.request_head = self.call.facts.response_head = NULL

    def set_response(self, bytes head, node, uint32_t connect_us, uint32_t response_us):
        """After set_request, whose method says how it is read."""
        cdef HeadLimits limits = bounds_of_heads(self.call.facts.plan)
        cdef Head* parsed = <Head*> malloc(sizeof(Head))
        if parsed == NULL:
            raise MemoryError()
        free(<void*> self.call.facts.response_head)
        self.call.facts.response_head = parsed
        self.call.facts.response = self.keep(head)
        head_reset(parsed)
        _demand_whole(
            response_head_parse(parsed, self.call.facts.response.at,
                                self.call.facts.response.bytes, &limits, self.call.facts.method),
            head, "response")
        parse_node(node, "node", &self.call.facts.node)
        self.call.facts.connect_us = connect_us
        self.call.facts.response_us = response_us

    def set_earlier(self, *, data=None, int pool=-1, int persistence=-2, bytes key=None, node=None):
        """What rules before these asked for; -1, -2 and None: they did not."""
        if data is not None:
            Py_XDECREF(<PyObject*> self.call.data)
            Py_INCREF(data)
            self.call.data = <void*> data
        if pool >= 0:
            self.call.facts.pool = pool
            self.call.facts.persistence = plan_pool(self.call.facts.plan,
                                                    <uint32_t> pool).persistence
            self.call.facts.sets |= RULE_SETS_POOL
        if persistence >= -1:
            self.call.facts.persistence = persistence
            self.call.facts.sets |= RULE_SETS_PERSISTENCE
        if key is not None:
            self.call.facts.key = self.keep(key)
            self.call.facts.sets |= RULE_SETS_KEY
        if node is not None:
            parse_node(node, "node", &self.call.facts.named)
            self.call.facts.sets |= RULE_SETS_NODE

    @property
    def data(self):
        """`data` of connection or request; None: nobody asked for it."""
        return <object> self.call.data if self.call.data != NULL else None

    # --- running --------------------------------------------------------------------------

    def set_rules(self, functions, is_async=False):
        """The rules to be run, in order."""
        cdef uint32_t i
        free(self.steps)
        self.functions = list(functions)
        self.steps = <RuleStep*> calloc(len(self.functions) + 1, sizeof(RuleStep))
        if self.steps == NULL:
            raise MemoryError()
        for i in range(<uint32_t> len(self.functions)):
            self.steps[i].function = <void*> self.functions[i]
            self.steps[i].rule = i
            self.steps[i].slot = NO_SLOT
            self.steps[i].is_async = is_async
        self.call.steps = self.steps
        self.call.count = <uint32_t> len(self.functions)

    cdef int clear(self) except -1:
        memset(&self.call.effects, 0, sizeof(self.call.effects))
        arena_clear(&self.call.arena)
        return 0

    def run_plain(self):
        """All rules, as a worker runs them: what they raise is reported, and counted as theirs."""
        self.clear()
        rule_run_plain(&self.call)

    def open(self, failures=None):
        """A RuleRun, to go through step by step; what fails is put into `failures`."""
        cdef RuleRun run
        self.clear()
        run = rule_run_of(&self.call, NULL)
        run.keeper = self
        run.failures = failures
        return run

    def show_request(self):
        """A Request of these facts that can be read as long as somebody has it."""
        cdef Request request = Request.__new__(Request)
        request.begin(&self.call)
        request.message.writable = False
        request.keeper = request.message.keeper = self
        return request

    def show_response(self):
        """Likewise a Response."""
        cdef Response response = Response.__new__(Response)
        response.begin(&self.call)
        response.message.writable = False
        response.keeper = response.message.keeper = self
        return response

    def time(self, uint32_t rounds):
        """Nanoseconds of one run, of `rounds`."""
        cdef uint64_t before = clock_us()
        for _ in range(rounds):
            self.clear()
            rule_run_plain(&self.call)
        return (clock_us() - before) * 1000 / rounds

    # --- effects --------------------------------------------------------------------------

    cdef bytes text(self, Span span):
        cdef Slice text = arena_slice(&self.call.arena, span)
        return text.at[:text.bytes] if text.bytes else b""

    def effects(self):
        """What the rules asked for; what is not in it they did not."""
        cdef uint32_t sets = self.call.effects.sets
        cdef const Plan* plan = self.call.facts.plan
        cdef dict found = {}
        cdef Text name
        if self.call.effects.action:
            found["action"] = ACTIONS[self.call.effects.action]
            found["decided_by"] = self.call.effects.decided_by
        if self.call.effects.action == RULE_ANSWERS:
            found["status"] = self.call.effects.status
            found["fields"] = self.text(self.call.effects.reply_fields)
            found["body"] = self.text(self.call.effects.reply_body)
        if sets & RULE_SETS_POOL:
            name = plan_pool(plan, <uint32_t> self.call.effects.pool).name
            found["pool"] = text_out(plan_text(plan, name), name.bytes)
        if sets & RULE_SETS_PERSISTENCE:
            found["persistence"] = None
            if self.call.effects.persistence >= 0:
                name = plan_class(plan, <uint32_t> self.call.effects.persistence).name
                found["persistence"] = text_out(plan_text(plan, name), name.bytes)
        if sets & RULE_SETS_KEY:
            found["key"] = self.text(self.call.effects.key)
        if sets & RULE_SETS_NODE:
            found["node"] = node_str(&self.call.effects.named)
        if sets & RULE_SETS_CLIENT:
            found["client"] = address_str(&self.call.effects.client)
        if sets & RULE_SETS_HEAD:
            found["head"] = self.text(self.call.effects.head)
        if sets & RULE_SETS_LOG:
            found["log"] = self.text(self.call.effects.log)
        return found


cdef int _demand_whole(int result, bytes head, str noun) except -1:
    if result < 0:
        name = (<bytes> head_error_name(result)).decode("ascii")
        raise ValueError(f"fastlb would refuse this {noun}: {name}")
    if result != PyBytes_GET_SIZE(head):
        raise ValueError(f"this is not the whole head of one {noun}")
    return 0
