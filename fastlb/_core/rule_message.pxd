# The head of a message as rules see and change it: received bytes, and edits beside them. Knows
# lines, not what any of them means; a whole new head is made of it at a rule's end.
#
# While nothing is edited, every read goes straight to the parsed head. The first edit makes a list
# of lines: a number is a received one, by its index, a tuple one that a rule made. What the
# message refers to is never changed in place, or copied before (`shared`), so that an undo is
# putting the old references back.

from libc.stdint cimport uint8_t, uint32_t

from fastlb._core.message cimport Head, HeadLimits
from fastlb._core.rule_call cimport RuleCall
from fastlb._core.slice cimport Slice

ctypedef struct Line:
    Slice name
    Slice value                      # without white space at either end
    uint8_t id                       # FieldId

ctypedef struct TargetParts:
    Slice before                     # "http://authority" of the absolute form, or CONNECT's whole
    Slice path
    Slice query                      # without its "?"
    bint has_query

cdef void target_split(Slice target, TargetParts* parts) noexcept

cdef class Edits:                    # a point to go back to
    cdef list lines
    cdef bytes method, target, reason, built
    cdef int status

cdef class Message:
    cdef RuleCall* call              # NULL: ended
    cdef object keeper               # owns the call, where no worker does
    cdef bint is_response
    cdef bint writable
    cdef str noun                    # "request", "response": for messages
    cdef Slice received
    cdef const Head* head            # NULL: not parsed yet
    cdef Head* own                   # memory for that
    cdef list lines                  # None: as received
    cdef bint shared                 # an Edits has this list, too
    cdef bytes method                # None: as received; so are the next two
    cdef bytes target
    cdef bytes reason
    cdef int status                  # 0: as received
    cdef bytes built                 # the head with all edits; None: not made yet

    cdef int attach(self, RuleCall* call, bint is_response, bint writable) except -1
    cdef void detach(self) noexcept
    cdef int parse(self) except -1
    cdef int parse_into(self, Slice text, const HeadLimits* limits) noexcept
    # Raises RuleEnded when it has ended; `write`: also when it may not be changed here.
    cdef int demand(self, bint write) except -1
    cdef bint edited(self) noexcept
    cdef Edits save(self)
    cdef int restore(self, Edits edits) except -1

    cdef Py_ssize_t count(self) except -1
    cdef int line(self, Py_ssize_t i, Line* out) except -1
    # The next line of this name (case does not count) from `start` on; -1: none.
    cdef Py_ssize_t find(self, Py_ssize_t start, Slice name) except -2
    # Whether all lines of this name, of which there are some, are of rules.
    cdef bint makes(self, Slice name) except -1
    # Editing; names and values are checked by the caller.
    cdef int open(self) except -1
    cdef int put(self, Py_ssize_t i, bytes name, bytes value) except -1
    cdef int append(self, bytes name, bytes value) except -1
    cdef int remove(self, Py_ssize_t i) except -1

    cdef Slice method_text(self) except *
    cdef Slice target_text(self) except *
    cdef int set_target(self, TargetParts* parts) except -1
    cdef bytes first_line(self)
    cdef list kept(self)
    cdef bytes join(self)
    cdef void bounds(self, HeadLimits* limits) noexcept
    # The head with all edits, parsed again under the plan's limits: a ValueError if it is none.
    cdef bytes build(self)
