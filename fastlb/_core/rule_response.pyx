# cython: boundscheck=True
"""The response that response rules see: a node's head as it would be sent, and how it came."""

from http import HTTPStatus

import cython

from cpython.object cimport PyObject

from fastlb._core.rule_message cimport Message
from fastlb._core.rule_objects cimport view_shared
from fastlb._core.rule_text cimport field_value, node_str, shown, text_out, wrong_type, wrong_value
from fastlb._core.system cimport wall_us

from fastlb.rule_types import RuleEnded, Timings

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* one)


@cython.final
cdef class Response:
    """A node's response, as rules see it; see `fastlb.rules`."""

    def __reduce__(self):
        raise TypeError("Response cannot be copied: it ends with its rule")

    def __repr__(self):
        if self.call == NULL:
            return "<Response of a rule that has ended>"
        return f"<Response {self.status} from {self.node}>"

    cdef int demand(self) except -1:
        if self.call == NULL:
            raise RuleEnded("this Response was used after its rule had ended; take what is needed "
                            "later out of it while the rule runs")
        return 0

    cdef int begin(self, RuleCall* call) except -1:
        self.call = call
        if self.message is None:
            self.message = Message.__new__(Message)
        return self.message.attach(call, True, True)

    cdef int end(self) except -1:
        cdef Py_ssize_t views = (self.headers_view is not None) + (self.cookies_view is not None)
        self.call = NULL
        self.message.detach()
        # A SetCookie has the message, too.
        if view_shared(<PyObject*> self.headers_view) or (
                view_shared(<PyObject*> self.cookies_view)) or (
                Py_REFCNT(<PyObject*> self.message) > 1 + views):
            self.message = None
            self.headers_view = None
            self.cookies_view = None
        return 0

    @property
    def status(self):
        self.demand()
        self.message.parse()
        return self.message.status if self.message.status else self.message.head.status

    @status.setter
    def status(self, value):
        cdef int now, wanted
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type("response.status", "int", value)
        if not 200 <= value <= 599:
            raise wrong_value("response.status", f"expected 200 to 599, found {shown(value)}")
        wanted = value
        self.demand()
        self.message.parse()
        now = self.message.head.status
        if wanted != now and (_bodiless(now) or _bodiless(wanted)):
            raise wrong_value("response.status", f"cannot be changed from {now} to {wanted}: "
                                                 "one of them has no body")
        self.message.status = wanted
        if self.message.reason is None:
            # The node's words are about another number.
            self.message.reason = _reason(wanted) if wanted != now else None
        self.message.built = None

    @property
    def reason(self):
        self.demand()
        self.message.parse()
        if self.message.reason is not None:
            return self.message.reason.decode("utf-8", "surrogateescape")
        return text_out(self.message.received.at + self.message.head.reason,
                        self.message.head.reason_bytes)

    @reason.setter
    def reason(self, value):
        cdef bytes text = field_value(value, "response.reason")
        self.demand()
        self.message.reason = text
        self.message.built = None

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
            self.cookies_view = SetCookies.__new__(SetCookies)
            self.cookies_view.message = self.message
        return self.cookies_view

    @property
    def node(self):
        self.demand()
        return node_str(&self.call.facts.node)

    @property
    def timings(self):
        cdef double seconds
        self.demand()
        seconds = (<double> wall_us() - <double> self.call.facts.started_us) / 1e6
        return Timings(self.call.facts.connect_us / 1e6, self.call.facts.response_us / 1e6,
                       max(seconds, 0.0))


cdef bint _bodiless(int status) noexcept:
    return status < 200 or status == 204 or status == 304


cdef bytes _reason(int status):
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""
