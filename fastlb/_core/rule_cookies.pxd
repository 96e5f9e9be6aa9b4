# Cookies as rules see them: those of a request, and those that a response sets. Views, too: what
# they change is a field of the message.

from fastlb._core.rule_message cimport Message
from fastlb._core.rule_views cimport View

cdef class Cookies(View):
    cdef bint replace(self, str name, bytes made) except -1

cdef class SetCookies(View):
    cdef list places(self, str name)           # lines of the message; None: of every name

cdef class SetCookie:
    cdef Message message
    cdef str known                             # its name
    cdef Py_ssize_t nth                        # among those of its name
    cdef Py_ssize_t place(self) except -1
    cdef tuple text(self)
    cdef dict attributes(self)
