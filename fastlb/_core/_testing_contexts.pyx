"""def functions over the hooks that make TLS contexts; for tests only."""

from libc.stdint cimport uint32_t, uintptr_t
from libc.stdlib cimport free, malloc

from fastlb._core.hooks cimport (
    hooks_peer_subject, hooks_tls_build, hooks_tls_count, hooks_tls_release,
)


cdef class Contexts:
    """What a snapshot has of a plan's material."""

    cdef void** pointers
    cdef uint32_t count

    def __init__(self, bytes material, uint32_t count):
        cdef const char* at = material
        cdef uint32_t length = <uint32_t> len(material)
        self.count = count
        with nogil:
            self.pointers = hooks_tls_build(at, length, count)

    @property
    def addresses(self):
        """None when there are none."""
        if self.pointers == NULL:
            return None
        return [<uintptr_t> self.pointers[i] for i in range(self.count)]

    def release(self):
        with nogil:
            hooks_tls_release(self.pointers)
        self.pointers = NULL


def in_use():
    return hooks_tls_count()


def peer_subject(uintptr_t ssl, uint32_t room=512):
    cdef char* out = <char*> malloc(room + 1)
    cdef uint32_t written
    try:
        with nogil:
            written = hooks_peer_subject(<void*> ssl, out, room)
        return out[:written]
    finally:
        free(out)
