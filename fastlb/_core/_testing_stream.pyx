"""def functions over stream; for tests only."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastlb._core cimport system
from fastlb._core._testing_rig cimport End, Rig
from fastlb._core.connection cimport Pipe
from fastlb._core.edit cimport iovec
from fastlb._core.stream cimport (
    STREAM_AGAIN, STREAM_END, STREAM_FAILED, pipe_borrow, pipe_return, stream_mute, stream_recv,
    stream_send, stream_shutdown, stream_splice_in, stream_splice_out, stream_unmute,
)

RESULTS = {STREAM_AGAIN: "again", STREAM_END: "end", STREAM_FAILED: "failed"}
EVENTS = {
    "in": system.EPOLLIN, "pri": system.EPOLLPRI, "out": system.EPOLLOUT,
    "rdhup": system.EPOLLRDHUP, "hup": system.EPOLLHUP, "err": system.EPOLLERR,
}
cdef enum:
    VECTORS_MAX = 16


def recv(End end, uint32_t room):
    """The bytes received, or a result's name."""
    cdef char* into = <char*> malloc(room)
    cdef int64_t got = stream_recv(&end.stream, into, room)
    try:
        return into[:got] if got > 0 else RESULTS[got]
    finally:
        free(into)


def mute(Rig rig, End end):
    stream_mute(rig.w, &end.stream)


def unmute(Rig rig, End end):
    stream_unmute(rig.w, &end.stream)


def send(End end, *pieces):
    """The count of bytes sent, or a result's name."""
    cdef iovec[VECTORS_MAX] iov
    cdef bytes piece
    cdef uint32_t i
    if len(pieces) > VECTORS_MAX:
        raise ValueError("too many pieces")
    for i in range(<uint32_t> len(pieces)):
        piece = pieces[i]
        iov[i].iov_base = <char*> piece
        iov[i].iov_len = len(piece)
    cdef int64_t sent = stream_send(&end.stream, iov, <uint32_t> len(pieces))
    return sent if sent >= 0 else RESULTS[sent]


def shutdown(End end):
    stream_shutdown(&end.stream)


cdef class PipeOf:
    """A pipe of the rig's worker."""
    cdef Rig rig
    cdef Pipe* pipe

    def __init__(self, Rig rig):
        self.rig = rig
        self.pipe = pipe_borrow(rig.w)
        if self.pipe == NULL:
            raise OSError(system.errno, "no pipe")

    @property
    def bytes(self):
        return self.pipe.bytes

    @property
    def fds(self):
        return self.pipe.in_fd, self.pipe.out_fd

    def fill(self, End end, uint64_t count):
        cdef int64_t got = stream_splice_in(&end.stream, self.pipe, count)
        return got if got > 0 else RESULTS[got]

    def empty(self, End end):
        cdef int64_t sent = stream_splice_out(&end.stream, self.pipe)
        return sent if sent >= 0 else RESULTS[sent]

    def give_back(self):
        pipe_return(self.rig.w, self.pipe)
        self.pipe = NULL
