/* The generator for passed-on streams: TLS connections without cryptography, or bulk.
 *
 *   stream_load -l PORT -c SLOTS -n COUNT [-k CLIENTS] -h id|full|ticket|13
 *   stream_load -l PORT -c SLOTS -n COUNT -b BYTES
 *
 *   -h  COUNT new connections, each with a TLS handshake, one request, one answer and an
 *       end. `id`: each of CLIENTS clients brings the session id that it was last
 *       granted, `ticket`: its ticket; `full`: none ever has a session; `13`: TLS 1.3.
 *       Each client has its own source address, 127.1.0.1 upwards
 *   -b  COUNT answers of so many bytes over SLOTS connections that stay open
 *
 * After a warm-up (each client's first session) it prints "ready" and waits for a line on
 * standard input; then it does COUNT of them, waits until nothing is in flight, prints one
 * line of JSON; and so on until the input ends. `reused` are the handshakes that a
 * node resumed: it was the one that had granted the session. */
#define _GNU_SOURCE
#include "tls_bytes.h"

enum { EVENTS_MAX = 256, IN_MAX = 8192, SINK = 1 << 20 };
enum state { CLOSED, CONNECTING, HELLO, FINISH, ANSWER, ENDING, BULK };
enum cause { CONNECT, EARLY_END, FORMAT, TIMEOUT, CAUSES };
static const char *const CAUSE_NAMES[] = {"connect", "early end", "format", "timeout"};
static const uint64_t STALL_NS = 10u * 1000000000u;

struct client {
    bool has_id, has_ticket;
    uint8_t id[SESSION_ID], ticket[TICKET];
};

struct slot {
    int fd;
    enum state state;
    uint32_t client;
    uint64_t since_ns;
    uint8_t sent_id[SESSION_ID];
    bool sent, greeted, resumed;   /* an id; by the node's hello; its session */
    uint32_t tickets13;            /* records that a TLS 1.3 node sends before the answer */
    uint32_t in_length;
    size_t bulk_left;
    uint8_t in[IN_MAX];
};

static struct slot *slots;
static struct client *clients;
static uint32_t slots_count = 32, clients_count, next_client;
static uint64_t bulk_bytes;
static enum handshake kind = BY_ID;
static uint16_t port;
static int poller;
static uint64_t started, target, completed, reused, bytes, errors[CAUSES];
static uint32_t in_flight;

static void slot_start(struct slot *slot);

static void slot_end(struct slot *slot)
{
    close(slot->fd);
    slot->fd = -1;
    slot->state = CLOSED;
    in_flight--;
    if (started < target)
        slot_start(slot);
}

static void slot_fail(struct slot *slot, enum cause cause)
{
    errors[cause]++;
    slot_end(slot);
}

static void bulk_ask(struct slot *slot)
{
    char line[32];
    int length = sprintf(line, "%lu\n", (unsigned long)bulk_bytes);
    slot->state = BULK;
    slot->bulk_left = bulk_bytes;
    if (send(slot->fd, line, (size_t)length, MSG_NOSIGNAL) != length)
        slot_fail(slot, EARLY_END);
}

static void slot_connect(struct slot *slot)
{
    struct sockaddr_in to = loopback(INADDR_LOOPBACK, port);
    struct sockaddr_in from = loopback(0x7f010001u + slot->client, 0);
    int one = 1;
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (slot->fd < 0)
        die("socket");
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(slot->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(slot->fd, (struct sockaddr *)&from, sizeof from))
        die("source address of client %u", slot->client);
    slot->state = CONNECTING;
    slot->in_length = 0;
    slot->resumed = slot->greeted = slot->sent = false;
    slot->tickets13 = 2;
    if (connect(slot->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("port %u", port);
    epoll_add(poller, slot->fd, EDGES, slot);
}

static void slot_start(struct slot *slot)
{
    in_flight++;
    started++;
    slot->since_ns = now_ns();
    if (bulk_bytes && slot->state == BULK) {
        bulk_ask(slot);
        return;
    }
    if (!bulk_bytes) {
        slot->client = next_client;
        next_client = (next_client + 1) % clients_count;
    }
    slot_connect(slot);
}

static bool send_whole(struct slot *slot, const struct out *out)
{
    return send(slot->fd, out->data, out->length, MSG_NOSIGNAL) == (ssize_t)out->length;
}

static void hello_send(struct slot *slot)
{
    uint8_t data[FLIGHT_MAX];
    struct out out = {data, 0}, id = {slot->sent_id, 0};
    struct client *client = &clients[slot->client];
    const uint8_t *ticket = kind == BY_TICKET && client->has_ticket ? client->ticket : NULL;
    slot->sent = kind == TLS13 || ticket || (kind == BY_ID && client->has_id);
    if (slot->sent && kind == BY_ID)
        put_bytes(&id, client->id, SESSION_ID);
    else
        put_noise(&id, SESSION_ID);
    client_hello(&out, kind, slot->sent ? slot->sent_id : NULL, ticket);
    slot->state = HELLO;
    if (!send_whole(slot, &out))
        slot_fail(slot, EARLY_END);
}

/* The client's last flight; where it need not wait for the node's, the request with it. */
static bool finish_send(struct slot *slot)
{
    uint8_t data[FLIGHT_MAX];
    struct out out = {data, 0};
    bool waits = kind != TLS13 && !slot->resumed;
    if (waits)
        plain_message(&out, 16, 66);
    change_cipher(&out);
    record_noise(&out, kind == TLS13 ? DATA : HANDSHAKE, kind == TLS13 ? 53 : 40);
    if (!waits)
        record_noise(&out, DATA, REQUEST_DATA);
    slot->state = waits ? FINISH : ANSWER;
    return send_whole(slot, &out);
}

static bool server_hello_take(struct slot *slot, const uint8_t *record)
{
    struct client *client = &clients[slot->client];
    slot->greeted = true;
    bool has = record[SESSION_ID_AT - 1] == SESSION_ID;
    bool echo = has && slot->sent && !memcmp(record + SESSION_ID_AT, slot->sent_id, SESSION_ID);
    slot->resumed = kind != TLS13 && echo;
    reused += slot->resumed;
    if (kind == BY_ID && has) {
        client->has_id = true;
        memcpy(client->id, record + SESSION_ID_AT, SESSION_ID);
    }
    return kind == BY_TICKET || has;
}

static bool done_take(struct slot *slot)
{
    uint8_t data[64];
    struct out out = {data, 0};
    completed++;
    record_noise(&out, ALERT, 26);
    slot->state = ENDING;
    send_whole(slot, &out);
    slot_end(slot);
    return false;
}

/* False: the slot is over. */
static bool record_take(struct slot *slot, const uint8_t *record, size_t length)
{
    uint8_t data[FLIGHT_MAX];
    struct out out = {data, 0};
    bool fine = true;
    if (!slot->greeted)
        fine = length > 50 && record[5] == SERVER_HELLO && server_hello_take(slot, record);
    else if (slot->state == HELLO && record[0] == (kind == TLS13 ? DATA : HANDSHAKE)) {
        if (kind == TLS13 || slot->resumed || record[5] == 14)
            fine = finish_send(slot);
    } else if (slot->state == FINISH && record[0] == HANDSHAKE) {
        if (length == TICKET + 15) {
            memcpy(clients[slot->client].ticket, record + 15, TICKET);
            clients[slot->client].has_ticket = true;
        } else {
            record_noise(&out, DATA, REQUEST_DATA);
            slot->state = ANSWER;
            fine = send_whole(slot, &out);
        }
    } else if (slot->state == ANSWER && record[0] == DATA) {
        if (kind != TLS13 || !slot->tickets13--)
            return done_take(slot);
    } else {
        fine = record[0] == CCS;
    }
    if (!fine)
        slot_fail(slot, FORMAT);
    return fine;
}

static void tls_receive(struct slot *slot)
{
    size_t whole, at = 0;
    ssize_t got = recv(slot->fd, slot->in + slot->in_length, IN_MAX - slot->in_length, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        return slot_fail(slot, EARLY_END);
    bytes += (uint64_t)got;
    slot->in_length += (uint32_t)got;
    while ((whole = record_whole(slot->in + at, slot->in_length - at))) {
        if (!record_take(slot, slot->in + at, whole))
            return;
        at += whole;
    }
    slot->in_length -= (uint32_t)at;
    memmove(slot->in, slot->in + at, slot->in_length);
}

/* The kernel drops the bytes (MSG_TRUNC): nothing is copied here. */
static void bulk_receive(struct slot *slot)
{
    while (slot->bulk_left) {
        ssize_t got = recv(slot->fd, NULL, SINK, MSG_TRUNC);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0 || (size_t)got > slot->bulk_left)
            return slot_fail(slot, EARLY_END);
        bytes += (uint64_t)got;
        slot->bulk_left -= (size_t)got;
    }
    completed++;
    in_flight--;
    if (started < target)
        slot_start(slot);
}

static void handle(const struct epoll_event *event)
{
    struct slot *slot = event->data.ptr;
    bool ended = event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (slot->state == CLOSED)
        return;
    if (slot->state == CONNECTING) {
        if (ended)
            return slot_fail(slot, CONNECT);
        if (bulk_bytes)
            bulk_ask(slot);
        else
            hello_send(slot);
    } else if (slot->state == BULK) {
        if (event->events & EPOLLIN || ended)
            bulk_receive(slot);
    } else if (event->events & EPOLLIN || ended) {
        tls_receive(slot);
    }
}

static void stalled_fail(void)
{
    uint64_t now = now_ns();
    for (struct slot *slot = slots; slot < slots + slots_count; slot++)
        if (slot->fd >= 0 && in_flight && (slot->state != BULK || slot->bulk_left)
            && now - slot->since_ns > STALL_NS) {
            target = started;
            slot_fail(slot, TIMEOUT);
        }
}

static double run(uint64_t count)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t begin = now_ns();
    started = completed = reused = bytes = 0;
    target = count;
    for (uint32_t i = 0; i < slots_count && started < target; i++)
        slot_start(&slots[i]);
    while (in_flight) {
        int found = epoll_wait(poller, events, EVENTS_MAX, 1000);
        for (int i = 0; i < found; i++)
            handle(&events[i]);
        if (!found)
            stalled_fail();
    }
    return (double)(now_ns() - begin) / 1e9;
}

static void result_print(double seconds)
{
    printf("{\"count\": %lu, \"seconds\": %.6f, \"bytes\": %lu, \"reused\": %lu, \"errors\": {",
           (unsigned long)completed, seconds, (unsigned long)bytes, (unsigned long)reused);
    for (int cause = 0, printed = 0; cause < CAUSES; cause++)
        if (errors[cause])
            printf("%s\"%s\": %lu", printed++ ? ", " : "", CAUSE_NAMES[cause], (unsigned long)errors[cause]);
    puts("}}");
    fflush(stdout);
}

static enum handshake kind_named(const char *name)
{
    static const char *const names[] = {"id", "full", "ticket", "13"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i]))
            return (enum handshake)i;
    die("no such handshake: %s", name);
}

int main(int argc, char **argv)
{
    uint64_t count = 1;
    for (int option; (option = getopt(argc, argv, "l:c:n:k:h:b:")) != -1;) {
        switch (option) {
        case 'l': parse_ports(optarg, &port, 1); break;
        case 'c': slots_count = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'n': count = strtoul(optarg, NULL, 10); break;
        case 'k': clients_count = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'h': kind = kind_named(optarg); break;
        case 'b': bulk_bytes = strtoul(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    process_prepare();
    noise_state ^= (uint64_t)getpid() << 32 ^ now_ns();
    clients_count = clients_count ? clients_count : slots_count;
    slots = must_calloc(slots_count, sizeof *slots);
    clients = must_calloc(clients_count, sizeof *clients);
    for (uint32_t i = 0; i < slots_count; i++)
        slots[i].fd = -1, slots[i].client = i;
    poller = epoll_create1(EPOLL_CLOEXEC);
    run(bulk_bytes ? slots_count : 2ul * clients_count);       /* each client has its session */
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin))
        result_print(run(count));
    return 0;
}
