/* The generator for HTTPS: requests on kept connections, or new connections with handshakes.
 *
 *   https_load -l PORT -c SLOTS (-n COUNT | -d SECONDS) [-m keep|full|resume] [-t 12|13] [-N]
 *              [-r RATE]
 *
 *   -m  `keep`: COUNT requests on SLOTS connections that stay open. `full`: COUNT new
 *       connections, each with a full handshake, one request and an end. `resume`: the
 *       same, but each slot brings the session of its connection before
 *   -t  the version: TLS 1.2 (ECDHE, X25519) or 1.3, AES-128-GCM both
 *   -N  no tickets: TLS 1.2 resumes by session id
 *   -r  of `keep`: requests/s by the clock; a latency counts from when its request was due
 *
 * It speaks to "ready" and "go" as load.c does. `reused` are handshakes that resumed. The
 * TLS library is opened at run time, with the few functions of it declared here: that
 * which Debian's HAProxy and nginx need is there, its headers need not be. Certificates
 * are not verified. */
#define _GNU_SOURCE
#include "net.h"
#include <dlfcn.h>

enum { EVENTS_MAX = 256, ROOM = 1 << 16, SUB_BITS = 7, BUCKETS = (64 - SUB_BITS) << SUB_BITS };
enum { SET_MIN_VERSION = 123, SET_MAX_VERSION = 124, SET_GROUPS = 92, SET_HOST = 55 };
enum { WANT_READ = 2, WANT_WRITE = 3, OP_NO_TICKET = 1 << 14 };
enum state { CLOSED, CONNECTING, HANDSHAKING, IDLE, WAITING };
enum mode { KEEP, FULL, RESUME };
enum cause { CONNECT, HANDSHAKE, EARLY_END, FORMAT, TIMEOUT, CAUSES };
static const char *const CAUSE_NAMES[] = {"connect", "handshake", "early end", "format", "timeout"};
static const uint64_t STALL_NS = 10u * 1000000000u, MAX_NS = 300u * 1000000000ull;

#define TLS_FUNCTIONS(F) \
    F(const void *, TLS_client_method, (void)) \
    F(void *, SSL_CTX_new, (const void *)) \
    F(long, SSL_CTX_ctrl, (void *, int, long, void *)) \
    F(uint64_t, SSL_CTX_set_options, (void *, uint64_t)) \
    F(int, SSL_CTX_set_cipher_list, (void *, const char *)) \
    F(int, SSL_CTX_set_ciphersuites, (void *, const char *)) \
    F(void *, SSL_new, (void *)) \
    F(void, SSL_free, (void *)) \
    F(int, SSL_set_fd, (void *, int)) \
    F(long, SSL_ctrl, (void *, int, long, void *)) \
    F(int, SSL_connect, (void *)) \
    F(int, SSL_read, (void *, void *, int)) \
    F(int, SSL_write, (void *, const void *, int)) \
    F(int, SSL_shutdown, (void *)) \
    F(int, SSL_get_error, (const void *, int)) \
    F(int, SSL_session_reused, (const void *)) \
    F(void *, SSL_get1_session, (void *)) \
    F(int, SSL_set_session, (void *, void *)) \
    F(void, SSL_SESSION_free, (void *)) \
    F(void, ERR_clear_error, (void))

#define DECLARED(type, name, arguments) static type (*name) arguments;
TLS_FUNCTIONS(DECLARED)

struct slot {
    int fd;
    enum state state;
    void *ssl, *session;
    uint64_t due_ns;
    int64_t body_left;             /* -1 while the head is incomplete */
    uint32_t head_length;
    char head[4096];
};

static struct slot *slots;
static uint32_t slots_count = 32, in_flight;
static uint32_t *idle, idle_count; /* slots without a request, a stack */
static enum mode mode = KEEP;
static uint16_t port;
static int poller;
static void *context;
static char sink[ROOM];
static uint64_t started, target, completed, reused, bytes, errors[CAUSES];
static uint64_t histogram[BUCKETS], rate_interval_ns, next_due_ns;

static void library_open(void)
{
    void *library = dlopen("libssl.so.3", RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        die("%s", dlerror());
#define FOUND(type, name, arguments) \
    if (!(*(void **)&name = dlsym(library, #name))) \
        die("libssl.so.3 has no %s", #name);
    TLS_FUNCTIONS(FOUND)
}

static void context_make(int version, bool tickets)
{
    char groups[] = "X25519:P-256";     /* the first is used, ECDSA needs the other */
    context = SSL_CTX_new(TLS_client_method());
    if (!context)
        die("no TLS context");
    SSL_CTX_ctrl(context, SET_MIN_VERSION, version, NULL);
    SSL_CTX_ctrl(context, SET_MAX_VERSION, version, NULL);
    SSL_CTX_ctrl(context, SET_GROUPS, 0, groups);
    if (!tickets)
        SSL_CTX_set_options(context, OP_NO_TICKET);
    if (!SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
        || !SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256"))
        die("no such ciphers");
}

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

static void slot_close(struct slot *slot)
{
    if (slot->fd < 0)
        return;
    SSL_free(slot->ssl);
    close(slot->fd);
    slot->ssl = NULL;
    slot->fd = -1;
    slot->state = CLOSED;
}

/* The slot's request is over, well or not. */
static void slot_rests(struct slot *slot)
{
    in_flight--;
    idle[idle_count++] = (uint32_t)(slot - slots);
}

static void slot_fail(struct slot *slot, enum cause cause)
{
    bool running = slot->state != IDLE;
    errors[cause] += running;
    slot_close(slot);
    if (slot->session)
        SSL_SESSION_free(slot->session);
    slot->session = NULL;
    if (running)
        slot_rests(slot);
}

static void slot_connect(struct slot *slot)
{
    struct sockaddr_in to = loopback(INADDR_LOOPBACK, port);
    struct sockaddr_in from = loopback(0x7f010001u + (uint32_t)(slot - slots), 0);
    int one = 1;
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (slot->fd < 0)
        die("socket");
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(slot->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(slot->fd, (struct sockaddr *)&from, sizeof from))
        die("a source address");
    slot->state = CONNECTING;
    if (connect(slot->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("port %u", port);
    epoll_add(poller, slot->fd, EDGES, slot);
}

/* Whether the call is to be repeated at the next event; else the slot has failed. */
static void slot_wait(struct slot *slot, int result, enum cause cause)
{
    int why = SSL_get_error(slot->ssl, result);
    ERR_clear_error();
    if (why != WANT_READ && why != WANT_WRITE)
        slot_fail(slot, cause);
}

static void request_send(struct slot *slot)
{
    char request[1024];
    int length = snprintf(request, sizeof request,
        "GET /shop/catalogue/item/4711?ref=home HTTP/1.1\r\n"
        "Host: shop.example.com\r\n"
        "X-Client: %u\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n"
        "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Cookie: theme=dark; csrf=8f14e45fceea167a5a36; consent=eyJhIjoxLCJiIjowfQ\r\n\r\n",
        (uint32_t)(slot - slots));
    slot->state = WAITING;
    slot->body_left = -1;
    slot->head_length = 0;
    if (SSL_write(slot->ssl, request, length) != length)
        slot_fail(slot, EARLY_END);
}

static void handshake_drive(struct slot *slot)
{
    int result = SSL_connect(slot->ssl);
    if (result != 1)
        return slot_wait(slot, result, HANDSHAKE);
    reused += SSL_session_reused(slot->ssl) == 1;
    request_send(slot);
}

static void handshake_begin(struct slot *slot)
{
    char host[] = "shop.example.com";
    slot->ssl = SSL_new(context);
    if (!slot->ssl || !SSL_set_fd(slot->ssl, slot->fd))
        die("no TLS connection");
    SSL_ctrl(slot->ssl, SET_HOST, 0, host);
    if (mode == RESUME && slot->session)
        SSL_set_session(slot->ssl, slot->session);
    slot->state = HANDSHAKING;
    handshake_drive(slot);
}

static void response_done(struct slot *slot)
{
    latency_add(now_ns() - slot->due_ns);
    completed++;
    slot->state = IDLE;
    if (mode != KEEP) {
        if (mode == RESUME) {
            if (slot->session)
                SSL_SESSION_free(slot->session);
            slot->session = SSL_get1_session(slot->ssl);
        }
        SSL_shutdown(slot->ssl);
        slot_close(slot);
    }
    slot_rests(slot);
}

/* Takes the head's bytes; false: it is none. */
static bool head_take(struct slot *slot, const char *data, size_t length)
{
    if (slot->head_length + length >= sizeof slot->head)
        length = sizeof slot->head - 1 - slot->head_length;
    memcpy(slot->head + slot->head_length, data, length);
    slot->head_length += (uint32_t)length;
    slot->head[slot->head_length] = 0;
    char *end = strstr(slot->head, "\r\n\r\n");
    if (!end)
        return slot->head_length + 1 < sizeof slot->head;
    const char *size = strcasestr(slot->head, "\ncontent-length:");
    if (strncmp(slot->head, "HTTP/1.1 200", 12) || !size || size > end)
        return false;
    slot->body_left = strtoll(size + 16, NULL, 10) + (end + 4 - slot->head);
    return true;
}

static void response_receive(struct slot *slot)
{
    while (slot->state == WAITING) {
        int got = SSL_read(slot->ssl, sink, ROOM);
        if (got <= 0)
            return slot_wait(slot, got, EARLY_END);
        bytes += (uint64_t)got;
        if (slot->body_left < 0) {
            uint32_t before = slot->head_length;
            if (!head_take(slot, sink, (size_t)got))
                return slot_fail(slot, FORMAT);
            if (slot->body_left >= 0)
                slot->body_left -= before + got;
        } else {
            slot->body_left -= got;
        }
        if (slot->body_left == 0)
            response_done(slot);
    }
}

static void handle(const struct epoll_event *event)
{
    struct slot *slot = event->data.ptr;
    bool ended = event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (slot->state == CONNECTING && ended)
        slot_fail(slot, CONNECT);
    else if (slot->state == CONNECTING)
        handshake_begin(slot);
    else if (slot->state == HANDSHAKING)
        handshake_drive(slot);
    if (slot->state == WAITING)
        response_receive(slot);
    if (slot->state == IDLE && ended)
        slot_fail(slot, EARLY_END);
}

/* Starts what is due; returns how long nothing else will be. */
static int64_t requests_start(void)
{
    while (started < target && idle_count) {
        uint64_t now = now_ns();
        if (rate_interval_ns && next_due_ns > now)
            return (int64_t)(next_due_ns - now);
        struct slot *slot = &slots[idle[--idle_count]];
        slot->due_ns = rate_interval_ns ? next_due_ns : now;
        next_due_ns += rate_interval_ns;
        in_flight++;
        started++;
        if (slot->state == IDLE)
            request_send(slot);
        else
            slot_connect(slot);
    }
    return 1000000000;
}

static void stalled_fail(uint64_t now)
{
    for (struct slot *slot = slots; slot < slots + slots_count; slot++)
        if (slot->state != IDLE && slot->state != CLOSED && now - slot->due_ns > STALL_NS)
            slot_fail(slot, TIMEOUT);
}

static double run(uint64_t count, double seconds)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t begin = now_ns(), now = begin, checked = begin;
    uint64_t end = begin + (seconds > 0 ? (uint64_t)(seconds * 1e9) : MAX_NS);
    started = completed = reused = bytes = 0;
    target = count ? count : UINT64_MAX;
    next_due_ns = begin;
    while (started < target || in_flight) {
        int64_t wait_ns = requests_start();
        struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        int found = epoll_pwait2(poller, events, EVENTS_MAX, &wait, NULL);
        for (int i = 0; i < found; i++)
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

static void result_print(double seconds)
{
    printf("{\"count\": %lu, \"seconds\": %.6f, \"bytes\": %lu, \"reused\": %lu, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"errors\": {",
           (unsigned long)completed, seconds, (unsigned long)bytes, (unsigned long)reused,
           latency_us(0.5), latency_us(0.99), latency_us(0.999));
    for (int cause = 0, printed = 0; cause < CAUSES; cause++)
        if (errors[cause])
            printf("%s\"%s\": %lu", printed++ ? ", " : "", CAUSE_NAMES[cause], (unsigned long)errors[cause]);
    puts("}}");
    fflush(stdout);
}

static enum mode mode_named(const char *name)
{
    static const char *const names[] = {"keep", "full", "resume"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i]))
            return (enum mode)i;
    die("no such mode: %s", name);
}

int main(int argc, char **argv)
{
    uint64_t count = 0, rate = 0;
    double seconds = 0;
    int version = 0x0304;
    bool tickets = true;
    for (int option; (option = getopt(argc, argv, "l:c:n:d:m:t:r:N")) != -1;) {
        switch (option) {
        case 'l': parse_ports(optarg, &port, 1); break;
        case 'c': slots_count = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'n': count = strtoul(optarg, NULL, 10); break;
        case 'd': seconds = strtod(optarg, NULL); break;
        case 'm': mode = mode_named(optarg); break;
        case 't': version = strcmp(optarg, "12") ? 0x0304 : 0x0303; break;
        case 'r': rate = strtoul(optarg, NULL, 10); break;
        case 'N': tickets = false; break;
        default: return 2;
        }
    }
    process_prepare();
    prctl(PR_SET_TIMERSLACK, 1);
    library_open();
    context_make(version, tickets);
    slots = must_calloc(slots_count, sizeof *slots);
    idle = must_calloc(slots_count, sizeof *idle);
    for (uint32_t i = 0; i < slots_count; i++) {
        slots[i].fd = -1;
        idle[idle_count++] = i;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    run(slots_count, 0);           /* each slot is connected, or has its session */
    rate_interval_ns = rate ? 1000000000u / rate : 0;
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        memset(histogram, 0, sizeof histogram);
        result_print(run(count, seconds));
    }
    return 0;
}
