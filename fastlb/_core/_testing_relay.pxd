# One direction of a connection, for the tests of relay and tunnel.

from fastlb._core._testing_rig cimport Rig
from fastlb._core.connection cimport Flow


cdef class Way:
    cdef Rig rig
    cdef Flow flow
