/* What the programs of this directory share: clock, errors, sockets.
 * Loopback only; every failure in set-up ends the program with one line. */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Registered once for the life of a descriptor; edges tell the rest. */
#define EDGES (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

__attribute__((noreturn, format(printf, 1, 2)))
static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s%s\n", errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static inline void *must_calloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        die("out of memory");
    return memory;
}

/* The session id of a client: letters that every application server could have made. */
enum { CLIENT_ID = 25 };           /* with the 0 behind it */

static inline void client_id(char *out, uint32_t client)
{
    uint64_t mixed = (client + 1) * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < CLIENT_ID - 1; i++) {
        out[i] = (char)('a' + (mixed >> 60));
        mixed = (mixed << 4 | mixed >> 60) + (i == 15) * 0xd6e8feb86659fd93u;
    }
    out[CLIENT_ID - 1] = 0;
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The program ends with the runner that started it, and may open enough descriptors. */
static inline void process_prepare(void)
{
    struct rlimit files;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    errno = 0;
}

static inline struct sockaddr_in loopback(uint32_t address, uint16_t port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port)};
    where.sin_addr.s_addr = htonl(address);
    return where;
}

/* Accepted sockets inherit TCP_NODELAY from the listener: no call per connection. */
static inline int tcp_listen(uint16_t port)
{
    struct sockaddr_in where = loopback(INADDR_LOOPBACK, port);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)
        || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one)
        || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)
        || bind(fd, (struct sockaddr *)&where, sizeof where) || listen(fd, 16384))
        die("port %u", port);
    return fd;
}

static inline void epoll_add(int poller, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

/* "9001,9002" to ports; returns how many. */
static inline int parse_ports(const char *text, uint16_t *ports, int ports_max)
{
    int count = 0;
    for (char *end = (char *)text; *end && count < ports_max; text = end + (*end == ',')) {
        unsigned long port = strtoul(text, &end, 10);
        if (end == text || port == 0 || port > 65535)
            die("not a list of ports: %s", text);
        ports[count++] = (uint16_t)port;
    }
    return count;
}

#endif
