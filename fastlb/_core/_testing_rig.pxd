# What the socket-level modules need of a worker, without its loop: for tests only.

from fastlb._core.connection cimport Snapshot, Stream, Worker
from fastlb._core.plan cimport Plan


cdef class Rig:
    cdef Worker* w
    cdef Plan plan
    cdef Snapshot snapshot
    cdef list kept                   # what the kernel's event list points to
    cdef int place(self, Stream* stream) except -1


cdef class End:
    cdef Rig rig
    cdef Stream stream
