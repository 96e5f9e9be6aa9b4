# What a rule sees of a message as mappings: header fields, query, and its own log fields. Each is
# a view: it keeps nothing but the Message (or, for the log, what was said so far).

from fastlb._core.rule_call cimport RuleCall
from fastlb._core.rule_message cimport Message
from fastlb._core.slice cimport Slice

# A mapping of names to values, in order, with several values for one name.
cdef class View:
    cdef Message message

    cdef object first(self, object name)       # the first value; None: there is none
    cdef list every(self, object name)
    cdef list pairs(self)                      # of all names and values
    cdef object folded(self, object name)      # what is equal for names that are the same

cdef class Headers(View):
    cdef str where(self, object name)
    cdef bytes checked_name(self, object name, str what)
    cdef bint is_host(self, bytes name)
    cdef int remove_from(self, Py_ssize_t start, Slice name) except -1

cdef class Query(View):
    cdef str where(self, object name)
    cdef list pieces(self)
    cdef int rewrite(self, list pieces) except -1

cdef class Log:
    cdef RuleCall* call
    cdef dict members                          # name: (value, JSON member)
    cdef bint changed
    cdef bint shared                           # an undo has the dict, too

    cdef int demand(self) except -1
    cdef int open(self) except -1
    cdef bytes joined(self)

cdef Message view_nobody()                     # the message of a view that no rule got
# The value of Host, and the authority of an absolute target.
cdef int set_host(Message message, bytes value, str what) except -1
