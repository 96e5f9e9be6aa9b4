/* The floor of a passage: what the kernel alone asks for relaying a connection.
 *
 * It connects to the node that follows from a client's address, and moves bytes both ways
 * with one recv and one send each, descriptors registered once; the end of one side ends the
 * other, with whatever a full receiver had not taken: enough for this directory's clients, who
 * end when they have all. It reads nothing of what it moves. What a proxy costs above it is its
 * own work.
 *
 *   mover -l PORT -p 9001,9002 [-s]
 *
 *   -s  what the nodes send goes through a pipe of 1 MiB (splice) */
#define _GNU_SOURCE
#include "net.h"
#include <fcntl.h>

enum { FDS_MAX = 1 << 17, NODES_MAX = 64, EVENTS_MAX = 256, BUFFER = 65536 };
enum { PIPE_BYTES = 1 << 20, PIPES_MAX = 4096 };

/* One descriptor. Sides are found by their number and never freed. */
struct side {
    int peer;                      /* the other side; of a client without a node yet -1 */
    int node;                      /* of a client: which one */
    int pipe;                      /* index into `pipes` while bytes are in it, or -1 */
    uint32_t generation;           /* against events of a closed descriptor in the same turn */
    uint32_t in_pipe;
    uint32_t carried, carry_at;    /* bytes from `peer` that this side has not taken yet */
    char *carry;
    bool is_node;
};

static struct side sides[FDS_MAX];
static int pipes[PIPES_MAX][2], pipes_free[PIPES_MAX], pipes_free_count, pipes_made;
static uint16_t ports[NODES_MAX];
static int nodes_count, poller, listener;
static bool splicing;
static char buffer[BUFFER];

static void side_register(int fd, int peer, bool is_node)
{
    struct side *side = &sides[fd];
    struct epoll_event event = {.events = EDGES};
    *side = (struct side){.peer = peer, .pipe = -1, .generation = side->generation,
                          .is_node = is_node};
    event.data.u64 = (uint64_t)side->generation << 32 | (uint32_t)fd;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void side_close(int fd)
{
    struct side *side = &sides[fd];
    side->generation++;
    free(side->carry);
    side->carry = NULL;
    if (side->pipe >= 0 && !side->in_pipe)
        pipes_free[pipes_free_count++] = side->pipe;
    close(fd);
}

static void both_close(int fd)
{
    if (sides[fd].peer >= 0)
        side_close(sides[fd].peer);
    side_close(fd);
}

/* On loopback a connection is made within the call, so it may block. */
static void node_connect(int client)
{
    struct sockaddr_in where = loopback(INADDR_LOOPBACK, ports[sides[client].node]);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || fd >= FDS_MAX || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)
        || connect(fd, (struct sockaddr *)&where, sizeof where)
        || (splicing && fcntl(fd, F_SETFL, O_NONBLOCK)))
        die("node");
    side_register(fd, client, true);
    sides[client].peer = fd;
}

/* Bytes of `from` that its peer could not take are kept with the peer. */
static bool carry_send(int to)
{
    struct side *side = &sides[to];
    while (side->carried) {
        ssize_t sent = send(to, side->carry + side->carry_at, side->carried,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return false;
        side->carry_at += (uint32_t)sent;
        side->carried -= (uint32_t)sent;
    }
    return true;
}

static void carry_keep(int to, size_t sent, size_t length)
{
    struct side *side = &sides[to];
    if (!side->carry && !(side->carry = malloc(BUFFER)))
        die("out of memory");
    memcpy(side->carry, buffer + sent, length - sent);
    side->carry_at = 0;
    side->carried = (uint32_t)(length - sent);
}

static int pipe_take(void)
{
    if (pipes_free_count)
        return pipes_free[--pipes_free_count];
    int index = pipes_made++;
    if (index >= PIPES_MAX || pipe2(pipes[index], O_NONBLOCK | O_CLOEXEC))
        die("pipe");
    fcntl(pipes[index][1], F_SETPIPE_SZ, PIPE_BYTES);
    return index;
}

/* 1: moved all there was; 0: the receiver is full; -1: over. */
static int spliced(int from, int to)
{
    struct side *side = &sides[from];
    if (side->pipe < 0)
        side->pipe = pipe_take();
    for (;;) {
        while (side->in_pipe) {
            ssize_t sent = splice(pipes[side->pipe][0], NULL, to, NULL, side->in_pipe,
                                  SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
            if (sent < 0)
                return errno == EAGAIN ? 0 : -1;
            side->in_pipe -= (uint32_t)sent;
        }
        ssize_t got = splice(from, NULL, pipes[side->pipe][1], NULL, PIPE_BYTES,
                             SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (got <= 0)
            return got < 0 && errno == EAGAIN ? 1 : -1;
        side->in_pipe = (uint32_t)got;
    }
}

/* False: both sides are over. */
static bool move(int from, bool ended)
{
    int to = sides[from].peer;
    if (sides[to].carried && !carry_send(to))
        return errno == EAGAIN;
    for (;;) {
        if (splicing && sides[from].is_node) {
            int moved = spliced(from, to);
            return moved >= 0;
        }
        ssize_t got = recv(from, buffer, BUFFER, MSG_DONTWAIT);
        if (got <= 0)
            return got < 0 && errno == EAGAIN;
        ssize_t sent = send(to, buffer, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < got)
            {
            carry_keep(to, sent < 0 ? 0 : (size_t)sent, (size_t)got);
            return true;
        }
        if (got < BUFFER && !ended)
            return true;
    }
}

static void handle(uint64_t data, uint32_t events)
{
    int fd = (int)(uint32_t)data;
    struct side *side = &sides[fd];
    bool ended = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (side->generation != (uint32_t)(data >> 32))
        return;
    if (side->peer < 0) {
        if (!(events & EPOLLIN))
            return;
        node_connect(fd);
    }
    bool alive = true;
    if (events & EPOLLIN || ended)
        alive = move(fd, ended);
    if (alive && events & EPOLLOUT && (sides[fd].carried || sides[side->peer].in_pipe))
        alive = move(side->peer, false);
    if (!alive)
        both_close(fd);
}

static void clients_accept(void)
{
    int fd;
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    while ((fd = accept4(listener, (struct sockaddr *)&from, &size,
                         SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (fd >= FDS_MAX)
            die("too many connections");
        side_register(fd, -1, false);
        sides[fd].node = (int)(ntohl(from.sin_addr.s_addr) % (uint32_t)nodes_count);
    }
}

int main(int argc, char **argv)
{
    uint16_t port = 0;
    for (int option; (option = getopt(argc, argv, "l:p:s")) != -1;) {
        switch (option) {
        case 'l': parse_ports(optarg, &port, 1); break;
        case 'p': nodes_count = parse_ports(optarg, ports, NODES_MAX); break;
        case 's': splicing = true; break;
        default: return 2;
        }
    }
    process_prepare();
    poller = epoll_create1(EPOLL_CLOEXEC);
    listener = tcp_listen(port);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = UINT64_MAX};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event))
        die("epoll_ctl");
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == UINT64_MAX)
                clients_accept();
            else
                handle(events[i].data.u64, events[i].events);
        }
    }
}
