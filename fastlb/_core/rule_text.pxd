# Texts between rules and heads: Python's str on one side, bytes on the other, and the checks
# of what rules set. All of it needs the GIL.
#
# Text is UTF-8. Bytes that are not UTF-8 stand in a str as lone surrogates (PEP 383), and become
# the same bytes again: nothing is lost, and nothing can fail to be read.

from libc.stdint cimport uint32_t

from fastlb._core.address cimport Address
from fastlb._core.slice cimport Slice

cdef str text_out(const char* at, Py_ssize_t count)
cdef str text_of(Slice text)
cdef str exact(object value, str what)                            # of a subclass: a plain str
# `what` names the attribute for the error: TypeError if it is no str, ValueError if it has
# surrogates that stand for no byte.
cdef bytes text_in(object value, str what)
# The same without a copy, where that is possible; returns what owns the bytes of `out`.
cdef object text_slice(object value, str what, Slice* out)

cdef object wrong_type(str what, str expected, object found)      # a TypeError, to be raised
cdef object wrong_value(str what, str reason)                     # a ValueError
cdef str shown(object value)                                      # short, for messages

# Each raises a ValueError that names `what` and the byte.
cdef int check_name(const char* at, Py_ssize_t count, str what) except -1
cdef int check_value(const char* at, Py_ssize_t count, str what) except -1
cdef int check_target(const char* at, Py_ssize_t count, str what) except -1
cdef int check_cookie_value(const char* at, Py_ssize_t count, str what) except -1

# Without white space at either end, checked.
cdef bytes field_value(object value, str what)

cdef str address_str(const Address* a)                            # None when it is unset
cdef int parse_ip(object value, str what, Address* out) except -1
cdef int parse_node(object value, str what, Address* out) except -1   # port 0: any
cdef object node_str(const Address* a)                            # Node; None when it is unset

cdef bytes percent_decode(const char* at, Py_ssize_t count, bint plus)
# All bytes but unreserved ones and those of `also` as %XX.
cdef bytes percent_encode(const char* at, Py_ssize_t count, const char* also)
cdef bytes json_member(str name, object value, str what)
