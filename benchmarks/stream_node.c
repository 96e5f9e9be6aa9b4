/* Nodes for passed-on streams: one epoll loop that serves several ports, each port one node.
 *
 * The first byte tells what the client wants. A TLS record: a handshake without
 * cryptography (tls_bytes.h), then one answer to each record of data; a session that this
 * node granted is resumed, any other one is not. Decimal digits and a line feed: so
 * many bytes, as often as it is asked.
 *
 *   stream_node -p 9001,9002 */
#define _GNU_SOURCE
#include "tls_bytes.h"

enum { NODES_MAX = 64, EVENTS_MAX = 256, IN_MAX = 4096, SOURCE = 1 << 20 };

struct node {
    int listener;
    uint16_t port;
};

struct conn {
    int fd;
    struct node *node;
    bool tls, full, gives_ticket, tls13, established;
    uint32_t in_length;
    size_t bulk_left;              /* bytes of `source` still to send */
    uint8_t in[IN_MAX];
};

static struct node nodes[NODES_MAX];
static int nodes_count, poller;
static uint8_t source[SOURCE];

static bool send_whole(struct conn *conn, const struct out *out)
{
    return send(conn->fd, out->data, out->length, MSG_NOSIGNAL) == (ssize_t)out->length;
}

static void node_flight(struct conn *conn, struct out *out, const uint8_t *id)
{
    server_hello(out, id, conn->tls13, conn->gives_ticket && conn->full);
    if (conn->tls13) {
        change_cipher(out);
        record_noise(out, DATA, CERTIFICATES + 400);
    } else if (conn->full) {
        plain_message(out, 11, CERTIFICATES);
        plain_message(out, 12, 296);
        plain_message(out, 14, 0);
    } else {
        change_cipher(out);
        record_noise(out, HANDSHAKE, 40);
    }
}

static bool hello_answer(struct conn *conn, const uint8_t *hello, size_t length)
{
    uint8_t flight[FLIGHT_MAX], fresh[SESSION_ID];
    struct out out = {flight, 0};
    uint16_t port = conn->node->port;
    size_t size, ticket_size = 0;
    if (length < 100 || hello[0] != HANDSHAKE || hello[5] != CLIENT_HELLO)
        return false;
    const uint8_t *id = hello[SESSION_ID_AT - 1] == SESSION_ID ? hello + SESSION_ID_AT : NULL;
    const uint8_t *ticket = extension_find(hello, length, EXT_TICKET, true, &ticket_size);
    bool own_ticket = ticket && ticket_size == TICKET && session_of(ticket, port);
    conn->tls13 = extension_find(hello, length, EXT_VERSIONS, true, &size);
    conn->gives_ticket = ticket && !conn->tls13;
    conn->full = !own_ticket && !(id && !ticket && session_of(id, port));
    if (conn->full && !conn->tls13) {
        session_make(fresh, SESSION_ID, port);
        id = conn->gives_ticket ? NULL : fresh;
    }
    node_flight(conn, &out, id);
    return send_whole(conn, &out);
}

/* The client's Finished has come. */
static bool handshake_end(struct conn *conn)
{
    uint8_t flight[FLIGHT_MAX], ticket[TICKET];
    struct out out = {flight, 0};
    conn->established = true;
    if (conn->tls13) {
        record_noise(&out, DATA, 250);
        record_noise(&out, DATA, 250);
        return send_whole(conn, &out);
    }
    if (!conn->full)
        return true;
    if (conn->gives_ticket) {
        session_make(ticket, TICKET, conn->node->port);
        ticket_message(&out, ticket);
    }
    change_cipher(&out);
    record_noise(&out, HANDSHAKE, 40);
    return send_whole(conn, &out);
}

static bool record_take(struct conn *conn, const uint8_t *record, size_t length)
{
    uint8_t answer[FLIGHT_MAX];
    struct out out = {answer, 0};
    if (!conn->tls) {
        conn->tls = true;
        return hello_answer(conn, record, length);
    }
    if (record[0] == ALERT)
        return false;
    if (!conn->established) {
        bool last = conn->tls13 ? record[0] == DATA : record[0] == HANDSHAKE && length == 45;
        return last ? handshake_end(conn) : true;
    }
    record_noise(&out, DATA, RESPONSE_DATA);
    return record[0] == DATA && send_whole(conn, &out);
}

static bool bulk_send(struct conn *conn)
{
    while (conn->bulk_left) {
        size_t part = conn->bulk_left < SOURCE ? conn->bulk_left : SOURCE;
        ssize_t sent = send(conn->fd, source, part, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        conn->bulk_left -= (size_t)sent;
    }
    return true;
}

static bool bulk_take(struct conn *conn)
{
    char *end = memchr(conn->in, '\n', conn->in_length);
    if (!end)
        return true;
    *end = 0;
    conn->bulk_left = strtoull((char *)conn->in, NULL, 10);
    conn->in_length = 0;
    return bulk_send(conn);
}

static bool conn_receive(struct conn *conn)
{
    size_t whole, at = 0;
    ssize_t got = recv(conn->fd, conn->in + conn->in_length, IN_MAX - 1 - conn->in_length, 0);
    if (got < 0)
        return errno == EAGAIN;
    conn->in_length += (uint32_t)got;
    if (got == 0 || conn->in_length == IN_MAX - 1)
        return false;
    if (conn->in[0] >= '0' && conn->in[0] <= '9')
        return bulk_take(conn);
    while ((whole = record_whole(conn->in + at, conn->in_length - at))) {
        if (!record_take(conn, conn->in + at, whole))
            return false;
        at += whole;
    }
    conn->in_length -= (uint32_t)at;
    memmove(conn->in, conn->in + at, conn->in_length);
    return true;
}

static void node_accept(struct node *node)
{
    int fd;
    while ((fd = accept4(node->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *conn = malloc(sizeof *conn);
        if (!conn)
            die("out of memory");
        memset(conn, 0, offsetof(struct conn, in));
        conn->fd = fd;
        conn->node = node;
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
    if (conn->bulk_left && event->events & EPOLLOUT)
        alive = bulk_send(conn);
    if (alive && event->events & EPOLLIN)
        alive = conn_receive(conn);
    if (!alive || event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        close(conn->fd);
        free(conn);
    }
}

int main(int argc, char **argv)
{
    uint16_t ports[NODES_MAX];
    for (int option; (option = getopt(argc, argv, "p:")) != -1;) {
        if (option != 'p')
            return 2;
        nodes_count = parse_ports(optarg, ports, NODES_MAX);
    }
    process_prepare();
    poller = epoll_create1(EPOLL_CLOEXEC);
    memset(source, 'x', sizeof source);
    for (int i = 0; i < nodes_count; i++) {
        nodes[i].port = ports[i];
        nodes[i].listener = tcp_listen(ports[i]);
        epoll_add(poller, nodes[i].listener, EPOLLIN | EPOLLET, &nodes[i]);
    }
    puts("ready");
    fflush(stdout);
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++)
            handle(&events[i]);
    }
}
