# What a process asks of the kernel for itself and for all that it starts; nothing of fastlb.

import os

cdef extern from "<sys/prctl.h>" nogil:
    enum: PR_SET_NO_NEW_PRIVS
    int prctl(int option, unsigned long two, unsigned long three, unsigned long four,
              unsigned long five) noexcept

from fastlb._core cimport system


def no_new_privileges():
    """From now on nothing that is executed, here or in processes started from here, can gain
    rights by it (PR_SET_NO_NEW_PRIVS). Raises OSError."""
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(system.errno, os.strerror(system.errno))
