/* The floor: what the kernel alone asks for a proxied exchange.
 *
 * It moves each message with the four data system calls that no proxy can avoid
 * (recv and send on either side), on descriptors that are registered once, with pooled
 * connections to the nodes. It reads nothing of what it moves: one recv is taken for
 * a whole message, which holds for this directory's generator and nodes only, and a
 * large response ends where its announced size does. The node follows from the
 * client's address. What a proxy costs above this program is its own work.
 *
 *   floor -l PORT -p 9001,9002 [-w WORKERS] [-c] [-b BODY_BYTES]
 *
 *   -c  close the client's connection after each response
 *   -b  the response's body; from 64 KiB on it is spliced through a pipe */
#define _GNU_SOURCE
#include "net.h"
#include <fcntl.h>
#include <sys/wait.h>

enum { FDS_MAX = 1 << 17, NODES_MAX = 64, EVENTS_MAX = 256, BUFFER = 16384, FIRST = 2048 };
enum { SPLICE_FROM = 65536, PIPE_BYTES = 1 << 20, PIPES_MAX = 64 };

/* One descriptor. Sides are found by their number and never freed. */
struct side {
    int peer;                      /* the other side of a running exchange, or -1 */
    int next_idle;                 /* pooled connections of one node, a stack */
    int node;                      /* index of the node; of a client the one it is bound to */
    int pipe;                      /* index into `pipes` while a body is spliced, or -1 */
    bool is_client;
    uint32_t generation;           /* against events of a closed descriptor in the same turn */
    uint32_t in_pipe;              /* bytes that left the node's socket only */
    size_t left;                   /* bytes of the response still to be read from the node */
};

static struct side sides[FDS_MAX];
static int pipes[PIPES_MAX][2], pipes_free[PIPES_MAX], pipes_free_count;
static int idle[NODES_MAX];
static uint16_t ports[NODES_MAX];
static int nodes_count, poller, listener;
static bool close_clients;
static size_t body_bytes;
static char buffer[BUFFER];

static void side_register(int fd, bool is_client, int node)
{
    struct side *side = &sides[fd];
    struct epoll_event event = {.events = EDGES};
    side->peer = side->next_idle = side->pipe = -1;
    side->is_client = is_client;
    side->node = node;
    side->left = side->in_pipe = 0;
    event.data.u64 = (uint64_t)side->generation << 32 | (uint32_t)fd;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void side_close(int fd)
{
    sides[fd].generation++;
    close(fd);
}

/* Both ends of a broken exchange; a pipe with bytes in it is not used again. */
static void exchange_abort(int fd)
{
    struct side *side = &sides[fd];
    if (side->peer >= 0)
        side_close(side->peer);
    side_close(fd);
}

static int upstream_take(int node)
{
    int fd = idle[node];
    if (fd >= 0) {
        idle[node] = sides[fd].next_idle;
        return fd;
    }
    struct sockaddr_in where = loopback(INADDR_LOOPBACK, ports[node]);
    int one = 1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)
        || connect(fd, (struct sockaddr *)&where, sizeof where)
        || fcntl(fd, F_SETFL, O_NONBLOCK))
        die("node %u", ports[node]);
    side_register(fd, false, node);
    return fd;
}

static void exchange_end(int upstream)
{
    struct side *side = &sides[upstream];
    int client = side->peer;
    if (side->pipe >= 0)
        pipes_free[pipes_free_count++] = side->pipe;
    side->pipe = side->peer = sides[client].peer = -1;
    side->next_idle = idle[side->node];
    idle[side->node] = upstream;
    if (close_clients)
        side_close(client);
}

static void client_readable(int client)
{
    ssize_t got = recv(client, buffer, sizeof buffer, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            exchange_abort(client);
        return;
    }
    int upstream = upstream_take(sides[client].node);
    sides[client].peer = upstream;
    sides[upstream].peer = client;
    if (send(upstream, buffer, (size_t)got, MSG_NOSIGNAL) != got)
        die("node %u did not take a request", ports[sides[upstream].node]);
}

/* From the node's socket to the client's until either would block. */
static void body_splice(int upstream)
{
    struct side *side = &sides[upstream];
    const unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    for (;;) {
        if (side->in_pipe) {
            ssize_t out = splice(pipes[side->pipe][0], NULL, side->peer, NULL, side->in_pipe, flags);
            if (out < 0 && errno != EAGAIN)
                exchange_abort(upstream);
            if (out <= 0)
                return;
            side->in_pipe -= (uint32_t)out;
        } else if (!side->left) {
            exchange_end(upstream);
            return;
        } else {
            size_t ask = side->left < PIPE_BYTES ? side->left : PIPE_BYTES;
            ssize_t in = splice(upstream, NULL, pipes[side->pipe][1], NULL, ask, flags);
            if (in <= 0)
                return;
            side->in_pipe = (uint32_t)in;
            side->left -= (size_t)in;
        }
    }
}

static void upstream_readable(int upstream)
{
    struct side *side = &sides[upstream];
    bool large = body_bytes >= SPLICE_FROM;
    ssize_t got = recv(upstream, buffer, large ? FIRST : sizeof buffer, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            die("node %u closed", ports[side->node]);
        return;
    }
    if (side->peer < 0 || send(side->peer, buffer, (size_t)got, MSG_NOSIGNAL) != got) {
        exchange_abort(upstream);
        return;
    }
    if (!large) {
        exchange_end(upstream);
        return;
    }
    char *head_end = memmem(buffer, (size_t)got, "\r\n\r\n", 4);
    if (!head_end || !pipes_free_count)
        die("a response that the floor is not made for");
    side->pipe = pipes_free[--pipes_free_count];
    side->left = (size_t)(head_end + 4 - buffer) + body_bytes - (size_t)got;
    body_splice(upstream);
}

/* Level-triggered and one at a time: no accept4 that only learns that there is no more. */
static void client_accept(void)
{
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    int fd = accept4(listener, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (fd >= FDS_MAX)
        die("more than %d descriptors", FDS_MAX);
    side_register(fd, true, (int)((ntohl(from.sin_addr.s_addr) * 2654435761u >> 16) % (unsigned)nodes_count));
}

static void handle(const struct epoll_event *event)
{
    int fd = (int)(event->data.u64 & UINT32_MAX);
    struct side *side = &sides[fd];
    if (fd == listener) {
        client_accept();
        return;
    }
    if (side->generation != event->data.u64 >> 32)
        return;
    if (side->is_client && event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        exchange_abort(fd);
    else if (side->is_client && side->peer >= 0 && sides[side->peer].pipe >= 0)
        body_splice(side->peer);
    else if (side->pipe >= 0)
        body_splice(fd);
    else if (!(event->events & EPOLLIN))
        return;
    else if (side->is_client)
        client_readable(fd);
    else
        upstream_readable(fd);
}

static void worker_run(uint16_t port)
{
    struct epoll_event events[EVENTS_MAX];
    poller = epoll_create1(EPOLL_CLOEXEC);
    listener = tcp_listen(port);
    struct epoll_event accepts = {.events = EPOLLIN, .data.u64 = (uint32_t)listener};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &accepts))
        die("epoll_ctl");
    memset(idle, -1, sizeof idle);
    for (int i = 0; i < PIPES_MAX && body_bytes >= SPLICE_FROM; i++) {
        if (pipe2(pipes[i], O_NONBLOCK | O_CLOEXEC))
            die("pipe2");
        fcntl(pipes[i][1], F_SETPIPE_SZ, PIPE_BYTES);
        pipes_free[pipes_free_count++] = i;
    }
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++)
            handle(&events[i]);
    }
}

int main(int argc, char **argv)
{
    uint16_t port = 0;
    int workers = 1;
    for (int option; (option = getopt(argc, argv, "l:p:w:cb:")) != -1;) {
        if (option == 'l')
            parse_ports(optarg, &port, 1);
        else if (option == 'p')
            nodes_count = parse_ports(optarg, ports, NODES_MAX);
        else if (option == 'w')
            workers = atoi(optarg);
        else if (option == 'c')
            close_clients = true;
        else if (option == 'b')
            body_bytes = strtoul(optarg, NULL, 10);
        else
            return 2;
    }
    if (!port || !nodes_count)
        die("-l and -p are needed");
    for (int i = 1; i < workers; i++)
        if (fork() == 0) {
            process_prepare();
            worker_run(port);
        }
    process_prepare();
    worker_run(port);
}
