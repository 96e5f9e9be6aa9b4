# Connection, Request and Response, the arguments of rules: attached to a RuleCall, recycled when
# it has ended. They are views of its facts, with what rules ask for beside it.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from fastlb._core.rule_call cimport RuleCall, RuleEffects
from fastlb._core.rule_cookies cimport Cookies
from fastlb._core.rule_message cimport Message, TargetParts
from fastlb._core.rule_views cimport Headers, Log, Query

cdef class Connection:
    cdef RuleCall* call              # NULL: ended
    cdef object keeper               # owns the call, where no worker does
    cdef RuleEffects wants           # scalars only; its texts are these:
    cdef bytes key                   # None: as in the facts
    cdef bytes reply_fields
    cdef bytes reply_body
    cdef Log log_view

    cdef str what(self, str attribute)         # its name in messages
    cdef int demand(self) except -1
    # Also that the node has not been chosen yet.
    cdef int demand_choice(self, str what) except -1
    cdef int begin(self, RuleCall* call) except -1
    cdef int end(self) except -1     # lets go of the call
    cdef uint32_t pool_index(self) noexcept

cdef class Request(Connection):
    cdef object run                  # RuleRun, while attached
    cdef Message message
    cdef Headers headers_view
    cdef Cookies cookies_view
    cdef Query query_view

    cdef int demand_message(self, str what) except -1
    cdef TargetParts parts(self) except *
    cdef int set_path(self, bytes path, str what) except -1

# `data` of a call, made where there is none.
cdef object call_data(RuleCall* call)
# Whether somebody besides the attribute that it stands in has a view.
cdef bint view_shared(PyObject* view) noexcept
