/* Fast nodes: one epoll loop that serves several ports, each port one node.
 *
 * Every request gets the same response: a head of about 250 bytes and a body of a
 * fixed size. One with "X-Set-Cookie: NAME" gets that cookie with it: the client's id, or
 * for X-Zeus-Backend the node's own address. The node notes which client (field "X-Client: number") sent how many
 * requests to which node; on SIGTERM that table is written to a file, so that the
 * runner judges stickiness by what the nodes saw, not by what a proxy says.
 *
 *   node -p 9001,9002 -s BODY_BYTES -o TABLE
 *
 * It knows only what the benchmark sends: requests without a body, heads under 4 KiB. */
#define _GNU_SOURCE
#include "net.h"

enum { NODES_MAX = 64, CLIENTS_MAX = 1 << 20, HEAD_MAX = 4096, EVENTS_MAX = 256 };

struct node {
    int listener;
    uint16_t port;
    uint64_t requests, connections;
    uint32_t *counts;              /* requests by client number; pages appear when touched */
};

struct conn {
    int fd;
    struct node *node;
    uint32_t in_length;            /* bytes of an incomplete head in `in` */
    size_t out_left;               /* bytes of the response still to send */
    char in[HEAD_MAX];
};

static struct node nodes[NODES_MAX];
static int nodes_count, poller;
static char *response;
static size_t response_length, head_length;
static volatile sig_atomic_t stopping;

static void on_stop(int signal_number)
{
    stopping = signal_number;
}

static void response_make(size_t body)
{
    response = must_calloc(1, body + 512);
    int head = sprintf(response,
        "HTTP/1.1 200 OK\r\n"
        "Date: Mon, 01 Jun 2026 12:00:00 GMT\r\n"
        "Server: bench-node\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        "Content-Length: %zu\r\n"
        "Vary: Accept-Encoding\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "X-Frame-Options: SAMEORIGIN\r\n"
        "X-Runtime: 0.004217\r\n\r\n", body);
    memset(response + head, 'x', body);
    head_length = (size_t)head;
    response_length = head_length + body;
}

/* The client's number. Proxies may change the case of names, so the search starts after
 * the first letters. */
static uint32_t client_count(struct node *node, const char *head, size_t length)
{
    const char *found = memmem(head, length, "lient: ", 7);
    node->requests++;
    if (!found)
        return 0;
    unsigned long client = strtoul(found + 7, NULL, 10);
    if (client < CLIENTS_MAX)
        node->counts[client]++;
    return (uint32_t)client;
}

/* The head with a cookie more; the socket was empty, so it takes all of it. */
static bool cookie_send(struct conn *conn, const char *name, uint32_t client)
{
    char head[1024], value[CLIENT_ID];
    int name_length = (int)strcspn(name, "\r");
    client_id(value, client);
    if (!strncmp(name, "X-Zeus-Backend", (size_t)name_length))
        snprintf(value, sizeof value, "127.0.0.1:%u", conn->node->port);
    int length = snprintf(head, sizeof head, "%.*sSet-Cookie: %.*s=%s; Path=/\r\n\r\n",
                          (int)head_length - 2, response, name_length, name, value);
    return length < (int)sizeof head
        && send(conn->fd, head, (size_t)length, MSG_NOSIGNAL | MSG_MORE) == length;
}

static void conn_close(struct conn *conn)
{
    close(conn->fd);
    free(conn);
}

/* Sends what is left; false: the connection is gone. */
static bool conn_send(struct conn *conn)
{
    while (conn->out_left) {
        const char *from = response + response_length - conn->out_left;
        ssize_t sent = send(conn->fd, from, conn->out_left, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        conn->out_left -= (size_t)sent;
    }
    return true;
}

/* One recv per event; a full buffer without a head's end is a broken peer. */
static bool conn_receive(struct conn *conn)
{
    ssize_t got = recv(conn->fd, conn->in + conn->in_length, HEAD_MAX - conn->in_length, 0);
    if (got < 0)
        return errno == EAGAIN;
    conn->in_length += (uint32_t)got;
    if (got == 0 || conn->in_length == HEAD_MAX)
        return false;
    if (conn->in_length < 4 || memcmp(conn->in + conn->in_length - 4, "\r\n\r\n", 4))
        return true;
    uint32_t client = client_count(conn->node, conn->in, conn->in_length);
    const char *name = memmem(conn->in, conn->in_length, "et-Cookie: ", 11);
    conn->out_left = response_length;
    if (name) {
        conn->out_left -= head_length;
        if (!cookie_send(conn, name + 11, client))
            return false;
    }
    conn->in_length = 0;
    return conn_send(conn);
}

static void node_accept(struct node *node)
{
    int fd;
    while ((fd = accept4(node->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *conn = malloc(sizeof *conn);
        if (!conn)
            die("out of memory");
        conn->fd = fd;
        conn->node = node;
        conn->in_length = 0;
        conn->out_left = 0;
        node->connections++;
        epoll_add(poller, fd, EDGES, conn);
    }
}

static void handle(const struct epoll_event *event)
{
    struct node *node = event->data.ptr;      /* of a listener; of all others a conn */
    if (node >= nodes && node < nodes + NODES_MAX) {
        node_accept(node);
        return;
    }
    struct conn *conn = event->data.ptr;
    bool alive = true;
    if (conn->out_left && event->events & EPOLLOUT)
        alive = conn_send(conn);
    if (alive && event->events & EPOLLIN && !conn->out_left)
        alive = conn_receive(conn);
    if (!alive || event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn_close(conn);
}

static void table_write(const char *path)
{
    FILE *table = fopen(path, "w");
    if (!table)
        die("%s", path);
    for (struct node *node = nodes; node < nodes + nodes_count; node++) {
        fprintf(table, "node %u %lu %lu\n", node->port, (unsigned long)node->requests,
                (unsigned long)node->connections);
        for (uint32_t client = 0; client < CLIENTS_MAX; client++)
            if (node->counts[client])
                fprintf(table, "client %u %u %u\n", node->port, client, node->counts[client]);
    }
    if (fclose(table))
        die("%s", path);
}

int main(int argc, char **argv)
{
    uint16_t ports[NODES_MAX];
    size_t body = 1024;
    const char *table = NULL;
    for (int option; (option = getopt(argc, argv, "p:s:o:")) != -1;) {
        if (option == 'p')
            nodes_count = parse_ports(optarg, ports, NODES_MAX);
        else if (option == 's')
            body = strtoul(optarg, NULL, 10);
        else if (option == 'o')
            table = optarg;
        else
            return 2;
    }
    process_prepare();
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGTERM, &action, NULL);
    response_make(body);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < nodes_count; i++) {
        nodes[i].port = ports[i];
        nodes[i].counts = must_calloc(CLIENTS_MAX, sizeof *nodes[i].counts);
        nodes[i].listener = tcp_listen(ports[i]);
        epoll_add(poller, nodes[i].listener, EPOLLIN | EPOLLET, &nodes[i]);
    }
    puts("ready");
    fflush(stdout);
    struct epoll_event events[EVENTS_MAX];
    while (!stopping) {
        int count = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++)
            handle(&events[i]);
    }
    if (table)
        table_write(table);
    return 0;
}
