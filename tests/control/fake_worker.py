"""A worker in a few lines, for tests of the control process alone.

Speaks the channel's side of a worker and answers every connection with who it is and what it
was told. FAKE_WORKER tells it to misbehave:
  crash      end at once        mute       acknowledge nothing
  deaf       ignore STOP        late       acknowledge after half a second
  refuse     refuse the second plan          refuse-one  only the first worker does
"""

import array
import json
import os
import select
import socket
import struct
import sys
import time

HEADER, ENTRY = struct.Struct("=IIQ"), struct.Struct("=II")
PLAN, STOP, LOG, SOCKETS, DROP, PING = 1, 2, 3, 4, 5, 6
ACK, REFUSED, RELEASED, PONG = 101, 102, 103, 106
HOW = os.environ.get("FAKE_WORKER", "")


class FakeWorker:
    def __init__(self, index, segment_fd, channel_fd, log_fd, syslog, adoption_fd):
        self.index, self.segment_fd = index, segment_fd
        self.channel = socket.socket(fileno=channel_fd)
        self.log_fd, self.syslog = log_fd, syslog
        self.listeners = {}  # (id, number) -> socket
        self.generation, self.plan_bytes = 0, 0
        self.poll = select.poll()
        self.poll.register(channel_fd, select.POLLIN)

    def run(self):
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.channel.fileno():
                    if not self.hear():
                        return 0
                else:
                    self.serve(fd)

    def hear(self):
        """Takes one message; False: it is time to end."""
        data, ancillary, _, _ = self.channel.recvmsg(4096, socket.CMSG_SPACE(4 * 253))
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        if not data:  # the control process died: go on with what there is
            self.poll.unregister(self.channel.fileno())
            return True
        kind, items, generation = HEADER.unpack_from(data)
        if kind == STOP:
            return HOW == "deaf"
        if kind == LOG:
            self.log_fd, self.syslog = fds[0], items
        entries = list(ENTRY.iter_unpack(data[HEADER.size :]))
        if kind == PING:
            self.channel.send(HEADER.pack(PONG, 0, generation))
        if kind == SOCKETS:
            self.add(entries, list(fds))
        if kind == DROP:
            for entry in entries:
                one = self.listeners.pop(entry)
                self.poll.unregister(one.fileno())
                one.close()
        if kind == PLAN:
            self.take(generation, entries, list(fds))
        return True

    def add(self, entries, fds):
        for entry, fd in zip(entries, fds, strict=True):
            assert entry not in self.listeners
            self.listeners[entry] = socket.socket(fileno=fd)
            self.poll.register(fd, select.POLLIN)

    def take(self, generation, entries, fds):
        plan, *new = fds
        refuses = HOW == "refuse" or (HOW == "refuse-one" and self.index == 0)
        if refuses and generation == 2:
            for one in new:
                os.close(one)
            self.channel.send(HEADER.pack(REFUSED, 0, generation))
            return
        self.plan_bytes = os.fstat(plan).st_size
        os.close(plan)
        self.add(entries, new)
        self.generation = generation
        if HOW == "late":
            time.sleep(0.5)
        if HOW != "mute":
            self.channel.send(HEADER.pack(ACK, 0, generation))
            self.channel.send(HEADER.pack(RELEASED, 0, generation))

    def serve(self, fd):
        (listener,) = [one for one in self.listeners.values() if one.fileno() == fd]
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        with connection:
            nodelay = connection.family != socket.AF_UNIX and connection.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY
            )
            told = {
                "pid": os.getpid(),
                "index": self.index,
                "generation": self.generation,
                "plan_bytes": self.plan_bytes,
                "listeners": sorted({number for number, _ in self.listeners}),
                "sockets": sorted(self.listeners),
                "nodelay": bool(nodelay),
                "uid": os.getuid(),
                "log": None if self.log_fd < 0 else os.readlink(f"/proc/self/fd/{self.log_fd}"),
                "syslog": self.syslog,
                "descriptors": len(os.listdir("/proc/self/fd")),
            }
            connection.sendall(json.dumps(told).encode())
        if self.log_fd >= 0:
            os.write(self.log_fd, b"a line\n")


if __name__ == "__main__":
    if HOW == "crash":
        sys.exit(3)
    sys.exit(FakeWorker(*map(int, sys.argv[1:])).run())
