/* The load generator: clients with an identity, a browser's head and a cookie jar.
 *
 * A client is a number, sent as "X-Client: number", by which the nodes tell whether it
 * stayed on one of them. It sends a head of about 700 bytes with several cookies,
 * keeps the cookies that responses set, and sends them back. Slots are connections.
 * A kept connection has one client; a new one takes the client that waited longest.
 *
 *   load -l PORT -c SLOTS [-k CLIENTS] [-f FIRST] [-i IN_FLIGHT] [-r RATE] [-s] [-C]
 *        [-u TARGET] [-e FIELD] [-J | -S COOKIE] [-w WARM_UP_S] [-d SECONDS | -n REQUESTS]
 *
 *   -f  the first client's number: two runs on one proxy must not share clients
 *   -r  requests/s by the clock: a request's latency counts from when it was due, so a
 *       stalled proxy is charged for those that had to wait. Without it each response
 *       starts the next request (closed loop)
 *   -s  each client has its own source address, 127.1.0.1 upwards
 *   -C  a new connection for each request
 *   -u  the request's target, -e a field more; "@" in them becomes the client's id
 *   -J  a cookie that clients have from the beginning, with their id as its value
 *   -S  a cookie that clients without any ask the node for (node.c)
 *
 * After the warm-up, nothing in flight, it prints "ready" and waits for a line on
 * standard input; then comes the measured part, again until nothing is in flight, and
 * one line of JSON; and so on for each line until the input ends. So the runner reads
 * the proxy's CPU time around exact counts. */
#define _GNU_SOURCE
#include "net.h"

enum { EVENTS_MAX = 256, SINK = 1 << 18, REQUEST_MAX = 2048, COOKIE_MAX = 384 };
enum { PART_MAX = 256 };           /* of a target or field that an option gives */
enum { SUB_BITS = 7, BUCKETS = (64 - SUB_BITS) << SUB_BITS };  /* 0.8 % wide buckets */
static const uint64_t STALL_NS = 10u * 1000000000u, MAX_NS = 300u * 1000000000ull;

enum state { CLOSED, CONNECTING, IDLE, WAITING, ENDING };
enum cause { CONNECT, RESET, EARLY_EOF, STATUS, FRAMING, TIMEOUT, CAUSES };
static const char *const CAUSE_NAMES[] = {"connect", "reset", "eof", "status", "framing", "timeout"};

struct slot {
    int fd;
    enum state state;
    uint32_t client;
    uint64_t due_ns;               /* when the running request should have been sent */
    int64_t body_left;             /* -1 while the head is incomplete */
    uint32_t carry_length;         /* bytes of an incomplete head in `carry` */
    char *carry;                   /* allocated when first needed */
};

struct ring {
    uint32_t *items, size, head, count;
};

static struct slot *slots;
static char (*cookies)[COOKIE_MAX];            /* "name=value; name=value" by client, or "" */
static const char *target_text = "/shop/catalogue/item/4711?ref=home", *extra_field = "";
static const char *first_cookie = "", *wanted_cookie = "";
static uint32_t slots_count = 64, clients_count, client_first;
static struct ring idle_slots, idle_clients;   /* clients wait only for new connections */
static uint32_t in_flight, in_flight_max;
static uint16_t port;
static bool own_sources, new_connections;
static int poller;
static char sink[SINK];

static uint64_t started, target, completed, bytes, reconnects, errors[CAUSES];
static uint64_t histogram[BUCKETS], rate_interval_ns, next_due_ns;

static void latency_add(uint64_t ns)
{
    int shift = ns >> SUB_BITS ? 63 - __builtin_clzll(ns) - SUB_BITS : 0;
    uint64_t index = ((uint64_t)shift << SUB_BITS) + (ns >> shift);
    histogram[index < BUCKETS ? index : BUCKETS - 1]++;
}

static double latency_us(double fraction)
{
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < BUCKETS; i++)
        total += histogram[i];
    for (uint64_t i = 0; i < BUCKETS; i++) {
        sum += histogram[i];
        if (total && (double)sum >= fraction * (double)total) {
            uint64_t shift = i >> SUB_BITS ? (i >> SUB_BITS) - 1 : 0;
            return (double)((i - (shift << SUB_BITS)) << shift) / 1000.0;
        }
    }
    return 0;
}

/* `text` with the client's id for each "@". */
static void with_id(char *out, const char *text, uint32_t client)
{
    size_t at = 0;
    for (; *text && at < PART_MAX - CLIENT_ID; text++) {
        if (*text == '@') {
            client_id(out + at, client_first + client);
            at += CLIENT_ID - 1;
        } else {
            out[at++] = *text;
        }
    }
    out[at] = 0;
}

static int request_make(char *out, uint32_t client)
{
    char request_target[PART_MAX], extra[PART_MAX];
    const char *cookie = cookies[client];
    bool asks = *wanted_cookie && !*cookie;
    with_id(request_target, target_text, client);
    with_id(extra, extra_field, client);
    return snprintf(out, REQUEST_MAX,
        "GET %s HTTP/1.1\r\n"
        "Host: shop.example.com\r\n"
        "X-Client: %u\r\n"
        "Connection: %s\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n"
        "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Referer: https://shop.example.com/shop/catalogue/\r\n"
        "Upgrade-Insecure-Requests: 1\r\n"
        "Sec-Fetch-Dest: document\r\n"
        "Sec-Fetch-Mode: navigate\r\n"
        "Sec-Fetch-Site: same-origin\r\n"
        "Sec-Fetch-User: ?1\r\n"
        "Priority: u=0, i\r\n"
        "%s%s%s%s%s"
        "Cookie: _ga=GA1.2.1733.%08x; theme=dark; csrf=8f14e45fceea167a5a36; "
        "consent=eyJhIjoxLCJiIjowfQ%s%s\r\n\r\n",
        request_target, client_first + client, new_connections ? "close" : "keep-alive", extra,
        *extra ? "\r\n" : "", asks ? "X-Set-Cookie: " : "", asks ? wanted_cookie : "",
        asks ? "\r\n" : "", client * 2654435761u, *cookie ? "; " : "", cookie);
}

static void ring_put(struct ring *ring, uint32_t item)
{
    ring->items[(ring->head + ring->count++) % ring->size] = item;
}

static uint32_t ring_take(struct ring *ring)
{
    uint32_t item = ring->items[ring->head];
    ring->head = (ring->head + 1) % ring->size;
    ring->count--;
    return item;
}

static void slot_connect(struct slot *slot)
{
    struct sockaddr_in to = loopback(INADDR_LOOPBACK, port);
    int one = 1;
    if (new_connections)
        slot->client = ring_take(&idle_clients);
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (slot->fd < 0)
        die("socket");
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (own_sources) {
        struct sockaddr_in from = loopback(0x7f010001u + client_first + slot->client, 0);
        setsockopt(slot->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(slot->fd, (struct sockaddr *)&from, sizeof from))
            die("source address of client %u", slot->client);
    }
    slot->state = CONNECTING;
    if (connect(slot->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("port %u", port);
    epoll_add(poller, slot->fd, EDGES, slot);
}

/* The connection and the request on it are over. */
static void slot_reset(struct slot *slot)
{
    close(slot->fd);
    slot->fd = -1;
    if (new_connections)
        ring_put(&idle_clients, slot->client);
    slot->carry_length = 0;
    slot->state = CLOSED;
    in_flight--;
    ring_put(&idle_slots, (uint32_t)(slot - slots));
}

static void slot_fail(struct slot *slot, enum cause cause)
{
    errors[cause]++;
    slot_reset(slot);
}

static void request_send(struct slot *slot)
{
    char request[REQUEST_MAX];
    int length = request_make(request, slot->client);
    slot->state = WAITING;
    slot->body_left = -1;
    if (send(slot->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        slot_fail(slot, RESET);
}

/* Takes the cookie of this name, which ends with "=", out of a jar. */
static void cookie_drop(char *jar, const char *name, size_t length)
{
    for (char *at = jar; at; at = strstr(at, "; ")) {
        at += at == jar ? 0 : 2;
        if (strncmp(at, name, length))
            continue;
        char *after = strstr(at, "; ");
        if (after)
            memmove(at, after + 2, strlen(after + 2) + 1);
        else
            at[at == jar ? 0 : -2] = 0;
        return;
    }
}

/* Keeps "name=value" of each Set-Cookie field; what does not fit is lost, as in a browser. */
static void cookies_keep(struct slot *slot, const char *head)
{
    char *jar = cookies[slot->client];
    for (const char *found = head; (found = strcasestr(found, "\nset-cookie:"));) {
        found += 12 + strspn(found + 12, " ");
        size_t name = strcspn(found, "=;\r\n") + 1, length = strcspn(found, ";\r\n");
        if (name > length)
            continue;
        cookie_drop(jar, found, name);
        size_t used = strlen(jar);
        if (used + length + 3 < COOKIE_MAX)
            sprintf(jar + used, "%s%.*s", used ? "; " : "", (int)length, found);
    }
}

static void response_done(struct slot *slot)
{
    latency_add(now_ns() - slot->due_ns);
    completed++;
    if (new_connections) {
        slot->state = ENDING;      /* the proxy closes, and is waited for */
    } else {
        slot->state = IDLE;
        in_flight--;
        ring_put(&idle_slots, (uint32_t)(slot - slots));
    }
}

/* `data` is a whole head and whatever came after it; false: the slot failed. */
static bool head_read(struct slot *slot, char *data, size_t length, size_t head)
{
    char after = data[head - 1];
    data[head - 1] = 0;            /* the last line feed of the empty line */
    const char *size = strcasestr(data, "\ncontent-length:");
    enum cause cause = strncmp(data, "HTTP/1.1 200", 12) ? STATUS : size ? CAUSES : FRAMING;
    if (cause == CAUSES) {
        cookies_keep(slot, data);
        slot->body_left = strtoll(size + 16, NULL, 10) - (int64_t)(length - head);
    }
    data[head - 1] = after;
    if (cause != CAUSES || slot->body_left < 0) {
        slot_fail(slot, cause == CAUSES ? FRAMING : cause);
        return false;
    }
    return true;
}

static bool head_receive(struct slot *slot, char *data, size_t length)
{
    if (slot->carry_length) {
        if (slot->carry_length + length > REQUEST_MAX) {
            slot_fail(slot, FRAMING);
            return false;
        }
        memmove(data + slot->carry_length, data, length);
        memcpy(data, slot->carry, slot->carry_length);
        length += slot->carry_length;
    }
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    slot->carry_length = end ? 0 : (uint32_t)length;
    if (end)
        return head_read(slot, data, length, (size_t)(end - data) + 4);
    if (!slot->carry)
        slot->carry = must_calloc(1, REQUEST_MAX);
    memcpy(slot->carry, data, length < REQUEST_MAX ? length : REQUEST_MAX);
    return true;
}

static void end_of_stream(struct slot *slot, ssize_t got)
{
    if (slot->state == WAITING) {
        slot_fail(slot, got ? RESET : EARLY_EOF);
    } else if (slot->state == ENDING) {
        slot_reset(slot);
    } else {                       /* kept open but unused: it is among the idle slots already */
        close(slot->fd);
        slot->fd = -1;
        slot->state = CLOSED;
        reconnects++;
    }
}

/* One recv after a short read is spared; bodies are dropped in the kernel (MSG_TRUNC). */
static void slot_receive(struct slot *slot, bool ended)
{
    for (;;) {
        bool in_body = slot->state == WAITING && slot->body_left > 0;
        size_t room = in_body ? SINK : SINK / 2;
        ssize_t got = recv(slot->fd, sink, room, in_body ? MSG_TRUNC : 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            end_of_stream(slot, got);
            return;
        }
        bytes += (uint64_t)got;
        if (slot->state != WAITING)
            return slot_fail(slot, FRAMING);
        if (slot->body_left >= 0)
            slot->body_left -= got;
        else if (!head_receive(slot, sink, (size_t)got))
            return;
        if (slot->body_left == 0)
            response_done(slot);
        if ((size_t)got < room && !ended)
            return;
    }
}

static void handle(const struct epoll_event *event)
{
    struct slot *slot = event->data.ptr;
    bool ended = event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (slot->state == CLOSED)
        return;
    if (slot->state == CONNECTING) {
        if (ended)
            slot_fail(slot, CONNECT);
        else
            request_send(slot);
    } else if (event->events & EPOLLIN || ended) {
        slot_receive(slot, ended);
    }
}

static void request_start(uint64_t due_ns)
{
    struct slot *slot = &slots[ring_take(&idle_slots)];
    in_flight++;
    started++;
    slot->due_ns = due_ns;
    if (slot->state == IDLE)
        request_send(slot);
    else
        slot_connect(slot);
}

/* Starts what is due; returns how long nothing else will be. */
static int64_t requests_start(void)
{
    while (started < target && idle_slots.count && in_flight < in_flight_max) {
        uint64_t now = now_ns();
        if (rate_interval_ns && next_due_ns > now)
            return (int64_t)(next_due_ns - now);
        request_start(rate_interval_ns ? next_due_ns : now);
        next_due_ns += rate_interval_ns;
    }
    return 1000000000;
}

static void stalled_fail(uint64_t now)
{
    for (struct slot *slot = slots; slot < slots + slots_count; slot++)
        if (slot->state != IDLE && slot->state != CLOSED && now - slot->due_ns > STALL_NS)
            slot_fail(slot, TIMEOUT);
}

/* Until `requests` or `seconds` (whichever is not 0) and then until all are answered. */
static double run(uint64_t requests, double seconds)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t begin = now_ns(), checked = begin, now = begin;
    uint64_t end = begin + (seconds > 0 ? (uint64_t)(seconds * 1e9) : MAX_NS);
    started = 0;
    target = requests ? requests : UINT64_MAX;
    next_due_ns = begin;
    while (started < target || in_flight) {
        int64_t wait_ns = requests_start();
        struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        int count = epoll_pwait2(poller, events, EVENTS_MAX, &wait, NULL);
        for (int i = 0; i < count; i++)
            handle(&events[i]);
        now = now_ns();
        if (now > end)
            target = started;
        if (now - checked > 1000000000u) {
            stalled_fail(now);
            checked = now;
        }
    }
    return (double)(now - begin) / 1e9;
}

static void slots_make(void)
{
    if (!clients_count)
        clients_count = slots_count;
    if (!slots_count || clients_count % slots_count)
        die("the clients must be a multiple of the slots");
    if (!in_flight_max)
        in_flight_max = slots_count;
    slots = must_calloc(slots_count, sizeof *slots);
    cookies = must_calloc(clients_count, sizeof *cookies);
    for (uint32_t i = 0; *first_cookie && i < clients_count; i++) {
        char id[CLIENT_ID];
        client_id(id, client_first + i);
        snprintf(cookies[i], COOKIE_MAX, "%s=%s", first_cookie, id);
    }
    idle_slots = (struct ring){.size = slots_count};
    idle_slots.items = must_calloc(slots_count, sizeof *idle_slots.items);
    idle_clients = (struct ring){.size = clients_count};
    idle_clients.items = must_calloc(clients_count, sizeof *idle_clients.items);
    for (uint32_t i = 0; new_connections && i < clients_count; i++)
        ring_put(&idle_clients, i);
    for (uint32_t i = 0; i < slots_count; i++) {
        slots[i].fd = -1;
        slots[i].client = i * (clients_count / slots_count);
        ring_put(&idle_slots, i);
    }
}

static void result_print(double seconds)
{
    char head[REQUEST_MAX];
    printf("{\"requests\": %lu, \"seconds\": %.6f, \"bytes\": %lu, \"reconnects\": %lu, "
           "\"head_bytes\": %d, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"errors\": {",
           (unsigned long)completed, seconds, (unsigned long)bytes, (unsigned long)reconnects,
           request_make(head, 0), latency_us(0.5), latency_us(0.99), latency_us(0.999));
    for (int cause = 0, printed = 0; cause < CAUSES; cause++)
        if (errors[cause])
            printf("%s\"%s\": %lu", printed++ ? ", " : "", CAUSE_NAMES[cause], (unsigned long)errors[cause]);
    puts("}}");
}

int main(int argc, char **argv)
{
    double warm_up = 0, seconds = 0;
    uint64_t requests = 0, rate = 0;
    for (int option; (option = getopt(argc, argv, "l:c:k:f:i:r:w:d:n:u:e:J:S:sC")) != -1;) {
        switch (option) {
        case 'l': parse_ports(optarg, &port, 1); break;
        case 'c': slots_count = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'k': clients_count = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'f': client_first = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'i': in_flight_max = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'r': rate = strtoul(optarg, NULL, 10); break;
        case 'w': warm_up = strtod(optarg, NULL); break;
        case 'd': seconds = strtod(optarg, NULL); break;
        case 'n': requests = strtoul(optarg, NULL, 10); break;
        case 'u': target_text = optarg; break;
        case 'e': extra_field = optarg; break;
        case 'J': first_cookie = optarg; break;
        case 'S': wanted_cookie = optarg; break;
        case 's': own_sources = true; break;
        case 'C': new_connections = true; break;
        default: return 2;
        }
    }
    process_prepare();
    prctl(PR_SET_TIMERSLACK, 1);
    slots_make();
    poller = epoll_create1(EPOLL_CLOEXEC);
    run(new_connections ? clients_count : slots_count, 0);     /* each client that will come */
    rate_interval_ns = rate ? 1000000000u / rate : 0;
    if (warm_up > 0)
        run(0, warm_up);
    puts("ready");                 /* errors count from the first request on */
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        memset(histogram, 0, sizeof histogram);
        completed = bytes = reconnects = 0;
        result_print(run(requests, seconds));
        fflush(stdout);
    }
    return 0;
}
