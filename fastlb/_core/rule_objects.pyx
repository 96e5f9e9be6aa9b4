# cython: boundscheck=True
"""The arguments of rules. What a rule does not touch is not made: attributes are read from the
call's facts when they are asked for, views are made once and kept for the next request.

An object lives for one call. `end` lets go of the call's memory at once, whoever still has the
object; only what nobody else has is used for the next call.
"""

import cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memset

from fastlb._core.authority cimport authority_host
from fastlb._core.head cimport METHOD_CONNECT, METHOD_HEAD
from fastlb._core.limits cimport METHOD_BYTES_MAX, RULE_KEY_BYTES_MAX
from fastlb._core.plan cimport (
    PROTOCOL_HTTP, PROTOCOL_HTTPS, PROTOCOL_TLS, Plan, Text, plan_class, plan_pool, plan_text,
)
from fastlb._core.rule_call cimport (
    RULE_ANSWERS, RULE_CLOSES, RULE_CONNECTION, RULE_REQUEST, RULE_RESPONSE,
    RULE_SETS_CLIENT, RULE_SETS_KEY, RULE_SETS_NODE, RULE_SETS_PERSISTENCE, RULE_SETS_POOL,
)
from fastlb._core.rule_message cimport Line, TargetParts, target_split
from fastlb._core.rule_reply cimport redirect_fields, reply_body_of, reply_fields_of
from fastlb._core.rule_text cimport (
    address_str, check_name, check_target, field_value, node_str, parse_ip,
    parse_node, percent_decode, percent_encode, shown, text_in, text_of, text_out, wrong_type,
    wrong_value,
)
from fastlb._core.rule_views cimport set_host
from fastlb._core.slice cimport Slice, slice_of

from fastlb.errors import did_you_mean
from fastlb.rule_types import RuleEnded, RuleError

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* one)

cdef const char* PATH_STAYS = "/!$&'()*+,;=:@"
cdef dict TLS_VERSIONS = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2",
                          0x0304: "TLSv1.3"}


cdef str _name(const Plan* plan, Text text):
    return text_out(plan_text(plan, text), text.bytes)


cdef bint _is_text(const Plan* plan, Text text, bytes name) noexcept:
    return text.bytes == <uint32_t> PyBytes_GET_SIZE(name) and memcmp(
        plan_text(plan, text), PyBytes_AS_STRING(name), text.bytes) == 0


cdef int32_t _pool_index(const Plan* plan, object name, str what) except -1:
    cdef bytes wanted
    cdef uint32_t i
    if not isinstance(name, str):
        raise wrong_type(what, "str, the name of a pool", name)
    wanted = text_in(name, what)
    for i in range(plan.pool_count):
        if _is_text(plan, plan_pool(plan, i).name, wanted):
            return <int32_t> i
    known = [_name(plan, plan_pool(plan, i).name) for i in range(plan.pool_count)]
    raise wrong_value(what, f"no pool {shown(name)}; there is {', '.join(known)}"
                            f"{did_you_mean(str.__str__(name), known)}")


cdef int32_t _class_index(const Plan* plan, object name, str what) except -2:
    cdef bytes wanted
    cdef uint32_t i
    if name is None:
        return -1
    if not isinstance(name, str):
        raise wrong_type(what, "str, the name of a persistence class, or None", name)
    wanted = text_in(name, what)
    for i in range(plan.class_count):
        if _is_text(plan, plan_class(plan, i).name, wanted):
            return <int32_t> i
    known = [_name(plan, plan_class(plan, i).name) for i in range(plan.class_count)]
    raise wrong_value(what, f"no persistence class {shown(name)}; there is "
                            f"{', '.join(known) or 'none'}"
                            f"{did_you_mean(str.__str__(name), known)}")


cdef object call_data(RuleCall* call):
    cdef object data
    if call.data == NULL:
        # A request's begins as a copy of what its connection's rules kept.
        data = dict(<dict> <object> call.inherited) if call.inherited != NULL else {}
        Py_INCREF(data)
        call.data = <void*> data
    return <object> call.data


cdef bint view_shared(PyObject* view) noexcept:
    # None is everybody's.
    return view != <PyObject*> None and Py_REFCNT(view) > 1


cdef class Connection:
    """One client's connection, as rules see it; see `fastlb.rules`."""

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be copied: it ends with its rule")

    def __repr__(self):
        if self.call == NULL:
            return f"<{type(self).__name__} of a rule that has ended>"
        return f"<{type(self).__name__} from {self.client_address} to {self.virtual_server}>"

    cdef int demand(self) except -1:
        if self.call == NULL:
            raise RuleEnded(f"this {type(self).__name__} was used after its rule had ended; take "
                            "what is needed later out of it while the rule runs")
        return 0

    cdef int demand_choice(self, str what) except -1:
        self.demand()
        if self.call.kind == RULE_RESPONSE:
            raise AttributeError(f"{self.what(what)}: cannot be set in a response rule: the node "
                                 "has been chosen and has answered")
        return 0

    cdef str what(self, str attribute):
        if self.call != NULL and self.call.kind == RULE_CONNECTION:
            return "connection." + attribute
        return "request." + attribute

    cdef int begin(self, RuleCall* call) except -1:
        self.call = call
        memset(&self.wants, 0, sizeof(RuleEffects))
        return 0

    cdef int end(self) except -1:
        cdef Log log = self.log_view
        self.call = NULL
        self.keeper = None
        self.key = self.reply_fields = self.reply_body = None
        if log is not None:
            log.call = NULL
            self.log_view = None
        return 0

    # --- whose, where ---------------------------------------------------------------------

    @property
    def client_address(self):
        self.demand()
        if self.wants.sets & RULE_SETS_CLIENT:
            return address_str(&self.wants.client)
        return address_str(&self.call.facts.client)

    @client_address.setter
    def client_address(self, value):
        cdef RuleEffects parsed
        memset(&parsed, 0, sizeof(parsed))
        parse_ip(value, self.what("client_address"), &parsed.client)
        self.demand_choice("client_address")
        self.wants.client = parsed.client
        self.wants.sets |= RULE_SETS_CLIENT

    @property
    def client_port(self):
        self.demand()
        if self.wants.sets & RULE_SETS_CLIENT:
            return self.wants.client.port
        return self.call.facts.client.port

    @property
    def peer_address(self):
        self.demand()
        return address_str(&self.call.facts.peer)

    @property
    def local_address(self):
        self.demand()
        return address_str(&self.call.facts.local)

    @property
    def local_port(self):
        self.demand()
        return self.call.facts.local.port

    @property
    def virtual_server(self):
        self.demand()
        return _name(self.call.facts.plan, self.call.facts.server.name)

    @property
    def protocol(self):
        cdef uint32_t protocol
        self.demand()
        protocol = self.call.facts.server.protocol
        if protocol == PROTOCOL_HTTP:
            return "http"
        if protocol == PROTOCOL_HTTPS:
            return "https"
        return "tls" if protocol == PROTOCOL_TLS else "tcp"

    # --- TLS ------------------------------------------------------------------------------

    @property
    def sni(self):
        self.demand()
        return text_of(self.call.facts.sni) if self.call.facts.sni.bytes else None

    @property
    def alpn(self):
        cdef Slice left
        cdef list names = []
        cdef uint32_t count
        self.demand()
        left = self.call.facts.alpn
        while left.bytes:
            count = <unsigned char> left.at[0]
            if count + 1 > left.bytes:
                break
            names.append(text_out(left.at + 1, count))
            left = slice_of(left.at + 1 + count, left.bytes - 1 - count)
        return tuple(names)

    @property
    def tls_version(self):
        cdef uint16_t version
        self.demand()
        version = self.call.facts.tls_version
        if version == 0:
            return None
        return TLS_VERSIONS.get(version, f"0x{version:04x}")

    @property
    def client_subject(self):
        self.demand()
        return text_of(self.call.facts.subject) if self.call.facts.subject.bytes else None

    @property
    def client_certificate(self):
        cdef Slice der
        self.demand()
        der = self.call.facts.certificate
        return der.at[:der.bytes] if der.bytes else None

    # --- which node -----------------------------------------------------------------------

    @property
    def pool(self):
        self.demand()
        return _name(self.call.facts.plan, plan_pool(self.call.facts.plan, self.pool_index()).name)

    cdef uint32_t pool_index(self) noexcept:
        if self.wants.sets & RULE_SETS_POOL:
            return <uint32_t> self.wants.pool
        return <uint32_t> self.call.facts.pool

    @pool.setter
    def pool(self, value):
        cdef int32_t index
        self.demand_choice("pool")
        index = _pool_index(self.call.facts.plan, value, self.what("pool"))
        self.wants.pool = index
        self.wants.sets |= RULE_SETS_POOL

    @property
    def persistence(self):
        cdef int32_t index
        self.demand()
        if self.wants.sets & RULE_SETS_PERSISTENCE:
            index = self.wants.persistence
        elif self.wants.sets & RULE_SETS_POOL and not (
                self.call.facts.sets & RULE_SETS_PERSISTENCE):
            index = plan_pool(self.call.facts.plan, self.pool_index()).persistence
        else:
            index = self.call.facts.persistence
        if index < 0:
            return None
        return _name(self.call.facts.plan, plan_class(self.call.facts.plan, <uint32_t> index).name)

    @persistence.setter
    def persistence(self, value):
        cdef int32_t index
        self.demand_choice("persistence")
        index = _class_index(self.call.facts.plan, value, self.what("persistence"))
        self.wants.persistence = index
        self.wants.sets |= RULE_SETS_PERSISTENCE

    @property
    def persistence_key(self):
        self.demand()
        if self.wants.sets & RULE_SETS_KEY:
            return text_out(PyBytes_AS_STRING(self.key), len(self.key)) if self.key else None
        return text_of(self.call.facts.key) if self.call.facts.key.bytes else None

    @persistence_key.setter
    def persistence_key(self, value):
        cdef bytes key
        if value is None:
            key = b""
        elif isinstance(value, bytes):
            key = bytes(value)
        elif isinstance(value, str):
            key = text_in(value, "persistence_key")
        else:
            raise wrong_type(self.what("persistence_key"), "str, bytes or None", value)
        if len(key) > RULE_KEY_BYTES_MAX:
            raise wrong_value(self.what("persistence_key"),
                              f"{len(key)} bytes are too many; {<int> RULE_KEY_BYTES_MAX} is "
                              "the most")
        self.demand()
        self.key = key
        self.wants.sets |= RULE_SETS_KEY

    @property
    def persistence_node(self):
        self.demand()
        if self.wants.sets & RULE_SETS_NODE:
            return node_str(&self.wants.named)
        if self.call.facts.sets & RULE_SETS_NODE:
            return node_str(&self.call.facts.named)
        return None

    @persistence_node.setter
    def persistence_node(self, value):
        cdef RuleEffects parsed
        memset(&parsed, 0, sizeof(parsed))
        if value is not None:
            if not isinstance(value, str):
                raise wrong_type(self.what("persistence_node"),
                                 'str like "10.0.0.1:8080", or None', value)
            parse_node(value, self.what("persistence_node"), &parsed.named)
        self.demand_choice("persistence_node")
        self.wants.named = parsed.named
        self.wants.sets |= RULE_SETS_NODE

    # --- what else ------------------------------------------------------------------------

    @property
    def log(self):
        cdef Log log
        self.demand()
        if self.log_view is None:
            log = Log.__new__(Log)
            log.call = self.call
            log.members = {}
            self.log_view = log
        return self.log_view

    @property
    def data(self):
        self.demand()
        return call_data(self.call)

    def close(self):
        self.demand()
        self.wants.action = RULE_CLOSES
        self.reply_fields = self.reply_body = None


@cython.final
cdef class Request(Connection):
    """One request, as rules see it; see `fastlb.rules`."""

    def __repr__(self):
        cdef Slice method, target
        if self.call == NULL:
            return "<Request of a rule that has ended>"
        method = self.message.method_text()
        target = self.message.target_text()
        return f"<Request {text_of(method)} {text_of(target)[:60]}>"

    cdef int begin(self, RuleCall* call) except -1:
        Connection.begin(self, call)
        if self.message is None:
            self.message = Message.__new__(Message)
        self.message.attach(call, False, call.kind == RULE_REQUEST)
        return 0

    cdef int end(self) except -1:
        cdef Py_ssize_t views = (self.headers_view is not None) + (
            self.cookies_view is not None) + (self.query_view is not None)
        self.run = None
        self.message.detach()
        # A view that somebody has keeps the message: all are left to him.
        if view_shared(<PyObject*> self.headers_view) or (
                view_shared(<PyObject*> self.cookies_view)) or (
                view_shared(<PyObject*> self.query_view)) or (
                Py_REFCNT(<PyObject*> self.message) > 1 + views):
            self.message = None
            self.headers_view = None
            self.cookies_view = None
            self.query_view = None
        return Connection.end(self)

    cdef int demand_message(self, str what) except -1:
        self.demand()
        if self.call.kind != RULE_REQUEST:
            raise AttributeError(f"{self.what(what)}: cannot be set in a response rule: the "
                                 "request has been sent")
        return 0

    # --- the request line -----------------------------------------------------------------

    @property
    def method(self):
        self.demand()
        return text_of(self.message.method_text())

    @method.setter
    def method(self, value):
        cdef bytes name = text_in(value, "request.method")
        cdef Slice now
        check_name(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), "request.method")
        if len(name) > METHOD_BYTES_MAX:
            raise wrong_value("request.method", f"{len(name)} bytes are too many; "
                                                f"{<int> METHOD_BYTES_MAX} is the most")
        self.demand_message("method")
        now = self.message.method_text()
        if now.at[:now.bytes] == name:
            return
        if name in (b"HEAD", b"CONNECT") or self.message.head.method in (
                METHOD_HEAD, METHOD_CONNECT):
            raise wrong_value("request.method",
                              f"a request cannot be changed from {text_of(now)} to "
                              f"{text_out(PyBytes_AS_STRING(name), len(name))}: HEAD and CONNECT "
                              "are answered otherwise")
        self.message.method = name
        self.message.built = None

    @property
    def target(self):
        self.demand()
        return text_of(self.message.target_text())

    @target.setter
    def target(self, value):
        cdef bytes text = text_in(value, "request.target")
        check_target(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), "request.target")
        if not text:
            raise wrong_value("request.target", "expected a path and maybe a query, not ''")
        self.demand_message("target")
        self.message.parse()
        self.message.target = text
        self.message.built = None

    cdef TargetParts parts(self) except *:
        cdef TargetParts parts
        self.demand()
        target_split(self.message.target_text(), &parts)
        return parts

    cdef int set_path(self, bytes path, str what) except -1:
        cdef TargetParts parts
        self.demand_message(what)
        if self.message.head == NULL:
            self.message.parse()
        if self.message.head.method == METHOD_CONNECT:
            raise wrong_value("request." + what, "the target of CONNECT has none")
        if not path.startswith(b"/"):
            raise wrong_value("request." + what,
                              'expected a path that begins with "/", found '
                              f"{shown(text_out(PyBytes_AS_STRING(path), len(path)))}")
        target_split(self.message.target_text(), &parts)
        parts.path = slice_of(PyBytes_AS_STRING(path), <uint32_t> PyBytes_GET_SIZE(path))
        return self.message.set_target(&parts)

    @property
    def path(self):
        cdef TargetParts parts = self.parts()
        cdef bytes decoded
        if parts.path.bytes == 0:
            return "" if self.message.head.method == METHOD_CONNECT else "/"
        if memchr(parts.path.at, c'%', parts.path.bytes) == NULL:
            return text_of(parts.path)
        decoded = percent_decode(parts.path.at, parts.path.bytes, False)
        return text_out(PyBytes_AS_STRING(decoded), PyBytes_GET_SIZE(decoded))

    @path.setter
    def path(self, value):
        cdef bytes text = text_in(value, "request.path")
        self.set_path(percent_encode(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), PATH_STAYS),
                      "path")

    @property
    def raw_path(self):
        return text_of(self.parts().path)

    @raw_path.setter
    def raw_path(self, value):
        cdef bytes text = text_in(value, "request.raw_path")
        check_target(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), "request.raw_path")
        if b"?" in text:
            raise wrong_value("request.raw_path", f"'?' would begin the query ({shown(value)}); "
                                                  "set raw_query, or percent-encode it")
        self.set_path(text, "raw_path")

    @property
    def raw_query(self):
        return text_of(self.parts().query)

    @raw_query.setter
    def raw_query(self, value):
        cdef bytes text = text_in(value, "request.raw_query")
        cdef TargetParts parts
        check_target(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), "request.raw_query")
        self.demand_message("raw_query")
        parts = self.parts()
        if self.message.head.method == METHOD_CONNECT:
            raise wrong_value("request.raw_query", "the target of CONNECT has none")
        parts.has_query = len(text) > 0
        parts.query = slice_of(PyBytes_AS_STRING(text), <uint32_t> PyBytes_GET_SIZE(text))
        self.message.set_target(&parts)

    @property
    def query(self):
        self.demand()
        if self.query_view is None:
            self.query_view = Query.__new__(Query)
            self.query_view.message = self.message
        return self.query_view

    @property
    def http_version(self):
        self.demand()
        self.message.parse()
        return "HTTP/1.1" if self.message.head.version_minor else "HTTP/1.0"

    # --- fields ---------------------------------------------------------------------------

    @property
    def host(self):
        cdef TargetParts parts = self.parts()
        cdef Line line
        cdef Py_ssize_t i
        cdef Slice found = parts.before
        if self.message.head.method != METHOD_CONNECT:
            # Of an absolute target, what follows "//"; it goes before Host (RFC 9112 3.2.2).
            while found.bytes and found.at[0] != c'/':
                found = slice_of(found.at + 1, found.bytes - 1)
            found = slice_of(found.at + 2, found.bytes - 2) if found.bytes > 2 else (
                slice_of(found.at, 0))
        if found.bytes == 0:
            i = self.message.find(0, slice_of("host", 4))
            if i < 0:
                return None
            self.message.line(i, &line)
            found = line.value
        return text_of(authority_host(found)).lower() or None

    @host.setter
    def host(self, value):
        cdef bytes text = field_value(value, "request.host")
        self.demand_message("host")
        set_host(self.message, text, "request.host")

    @property
    def headers(self):
        self.demand()
        if self.headers_view is None:
            self.headers_view = Headers.__new__(Headers)
            self.headers_view.message = self.message
        return self.headers_view

    @property
    def cookies(self):
        self.demand()
        if self.cookies_view is None:
            self.cookies_view = Cookies.__new__(Cookies)
            self.cookies_view.message = self.message
        return self.cookies_view

    # --- answers --------------------------------------------------------------------------

    def respond(self, status, body=b"", headers=None, content_type=None):
        cdef int code = 0
        cdef bytes content = reply_body_of(body)
        cdef bytes fields = reply_fields_of(status, headers, content_type, content, &code)
        self.demand()
        self.wants.action = RULE_ANSWERS
        self.wants.status = <uint16_t> code
        self.reply_fields = fields
        self.reply_body = content

    def redirect(self, url, status=302):
        cdef int code = 0
        cdef bytes fields = redirect_fields(status, url, &code)
        self.demand()
        self.wants.action = RULE_ANSWERS
        self.wants.status = <uint16_t> code
        self.reply_fields = fields
        self.reply_body = b""

    def body(self, limit="1MiB"):
        self.demand()
        if self.run is None:
            raise RuleError("request.body: nobody can wait for a body here")
        return self.run.want_body(limit)
