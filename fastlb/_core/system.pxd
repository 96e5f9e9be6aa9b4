# System calls and constants of Linux that the core uses; nothing else.

from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t, uint16_t
from posix.types cimport off_t, pid_t

cdef extern from "system.h" nogil:
    # errors
    int errno
    enum: EAGAIN, EINTR, EINPROGRESS, EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EADDRNOTAVAIL
    enum: EPROTO, ENETDOWN, ENETUNREACH, EHOSTUNREACH
    enum: ECONNRESET, EPIPE, ECONNREFUSED, ETIMEDOUT, EINVAL, ENOSYS, EPERM, ENOSPC
    const char* strerror(int err) noexcept

    # epoll
    enum: EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE
    enum: EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        void* ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags) noexcept
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event) noexcept
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout_ms) noexcept

    # sockets
    ctypedef uint32_t socklen_t
    enum: AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_SEQPACKET
    enum: SOL_SOCKET, SO_ERROR, SO_LINGER, IPPROTO_TCP, TCP_NODELAY, TCP_QUICKACK
    enum: MSG_NOSIGNAL, MSG_DONTWAIT, MSG_MORE, MSG_TRUNC, MSG_PEEK, MSG_CMSG_CLOEXEC
    enum: SHUT_RD, SHUT_WR, SHUT_RDWR
    enum: SOCKADDR_STORAGE_BYTES
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_storage:
        uint16_t ss_family
    struct linger:
        int l_onoff
        int l_linger
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    int socket(int family, int kind, int protocol) noexcept
    int accept4(int fd, sockaddr* address, socklen_t* length, int flags) noexcept
    int connect(int fd, const sockaddr* address, socklen_t length) noexcept
    int getsockopt(int fd, int level, int name, void* value, socklen_t* length) noexcept
    int setsockopt(int fd, int level, int name, const void* value, socklen_t length) noexcept
    int getsockname(int fd, sockaddr* address, socklen_t* length) noexcept
    int unacknowledged(int fd) noexcept
    ssize_t recv(int fd, void* buf, size_t count, int flags) noexcept
    ssize_t send(int fd, const void* buf, size_t count, int flags) noexcept
    ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept
    ssize_t recvmsg(int fd, msghdr* message, int flags) noexcept
    int shutdown(int fd, int how) noexcept
    # The descriptors of a received SCM_RIGHTS message; returns how many were written to `fds`.
    int message_descriptors(msghdr* message, int* fds, int fds_max) noexcept
    # One whole message with up to 253 descriptors, without waiting; whether it went.
    bint send_descriptors(int fd, const void* data, size_t count, const int* fds,
                          int fd_count) noexcept
    bint peer_is_trusted(int fd) noexcept  # a Unix socket's other side is root or our own user

    # descriptors and memory
    ssize_t read(int fd, void* buf, size_t count) noexcept
    ssize_t write(int fd, const void* buf, size_t count) noexcept
    ssize_t writev(int fd, const iovec* iov, int count) noexcept
    int close(int fd) noexcept
    enum: O_NONBLOCK, O_CLOEXEC, O_WRONLY, O_APPEND, F_SETPIPE_SZ, F_GETPIPE_SZ
    uint64_t descriptors_limit() noexcept  # of this process, now
    int pipe2(int* fds, int flags) noexcept
    int fcntl(int fd, int command, int value) noexcept
    enum: SPLICE_F_MOVE, SPLICE_F_NONBLOCK
    ssize_t splice(int fd_in, void* off_in, int fd_out, void* off_out, size_t count,
                   unsigned int flags) noexcept
    enum: PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS
    void* mmap(
        void* address, size_t count, int protection, int flags, int fd, off_t offset
    ) noexcept
    void* MAP_FAILED
    int munmap(void* address, size_t count) noexcept

    # time
    uint64_t clock_us() noexcept           # CLOCK_MONOTONIC, microseconds
    uint64_t coarse_ms() noexcept          # CLOCK_MONOTONIC_COARSE: a few nanoseconds a call
    uint64_t wall_us() noexcept            # CLOCK_REALTIME, microseconds since 1970
    uint64_t boot_ms() noexcept            # CLOCK_BOOTTIME, milliseconds
    # signals
    int signal_descriptor() noexcept       # signalfd for SIGTERM and SIGQUIT, which get blocked
    int signal_read(int fd) noexcept       # the next signal's number, 0 when there is none
    pid_t getpid() noexcept
