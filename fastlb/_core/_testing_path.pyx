"""def functions over path_session; for tests only."""

from libc.stdint cimport uint32_t

from fastlb._core.path_session cimport path_asp_id, path_of_reference, path_parameter_next
from fastlb._core.slice cimport Slice, slice_of


cdef inline Slice _slice(bytes text):
    return slice_of(<const char*> text, <uint32_t> len(text))


cdef inline bytes _bytes(Slice s):
    return s.at[:s.bytes]


def of_reference(bytes text):
    return _bytes(path_of_reference(_slice(text)))


def parameters(bytes path, bytes name):
    """The values of all parameters of this name."""
    cdef Slice rest = _slice(path)
    cdef Slice value
    found = []
    while path_parameter_next(&rest, _slice(name), &value):
        found.append(_bytes(value))
    return found


def asp_id(bytes path):
    """The id, or None."""
    cdef Slice id
    return _bytes(id) if path_asp_id(_slice(path), &id) else None
