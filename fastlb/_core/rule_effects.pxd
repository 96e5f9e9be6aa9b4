# What rules asked for, on its way back: into a call's effects at its end; and the state to which a
# rule that failed is undone.

from fastlb._core.rule_call cimport RuleCall, RuleEffects
from fastlb._core.rule_message cimport Edits
from fastlb._core.rule_objects cimport Connection, Request
from fastlb._core.rule_response cimport Response

cdef class Saved:
    cdef RuleEffects wants
    cdef bytes key, reply_fields, reply_body
    cdef dict members                # of the log; None: it was not asked for
    cdef bint log_changed
    cdef Edits request, response

# `request` and `response` are None where the kind of rule has none.
cdef Saved effects_save(Connection subject, Request request, Response response)
cdef int effects_restore(Saved saved, Connection subject, Request request,
                         Response response) except -1
# Makes the new heads, so that what is wrong with them is the failure of the rule that just ran.
cdef int effects_check(Request request, Response response) except -1
cdef int effects_write(RuleCall* call, Connection subject, Request request,
                       Response response) except -1
