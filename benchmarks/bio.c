/* What memory BIOs cost beside descriptors, at the server's side of a TLS 1.3 connection.
 *
 *   bio CERTIFICATE KEY fd|ahead|memory REQUESTS HANDSHAKES
 *
 *   fd      the library reads and writes the socket (SSL_set_fd)
 *   ahead   the same, and it reads as much as there is (read ahead)
 *   memory  recv, BIO_write, SSL_read; SSL_write, BIO_read, send
 *
 * A child is the client, at the other end of a socketpair. Requests have 420 bytes, answers
 * 1,024; a server waits with poll and reads until the library says that there is no more, as an
 * event loop has to. Prints ns of CPU time and calls on the socket per request and per handshake. */
#define _GNU_SOURCE
#include "net.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { REQUEST = 420, ANSWER = 1024, ROOM = 1 << 15, WANT_READ = 2, FILE_PEM = 1 };
enum { SET_MIN_VERSION = 123, SET_GROUPS = 92, SET_READ_AHEAD = 41 };
enum mode { FD, AHEAD, MEMORY };

#define TLS_FUNCTIONS(F) \
    F(const void *, TLS_client_method, (void)) \
    F(const void *, TLS_server_method, (void)) \
    F(void *, SSL_CTX_new, (const void *)) \
    F(long, SSL_CTX_ctrl, (void *, int, long, void *)) \
    F(int, SSL_CTX_set_ciphersuites, (void *, const char *)) \
    F(int, SSL_CTX_use_certificate_chain_file, (void *, const char *)) \
    F(int, SSL_CTX_use_PrivateKey_file, (void *, const char *, int)) \
    F(void *, SSL_new, (void *)) \
    F(void, SSL_free, (void *)) \
    F(int, SSL_set_fd, (void *, int)) \
    F(void, SSL_set_bio, (void *, void *, void *)) \
    F(const void *, BIO_s_mem, (void)) \
    F(void *, BIO_new, (const void *)) \
    F(int, BIO_write, (void *, const void *, int)) \
    F(int, BIO_read, (void *, void *, int)) \
    F(int, SSL_connect, (void *)) \
    F(int, SSL_accept, (void *)) \
    F(int, SSL_read, (void *, void *, int)) \
    F(int, SSL_write, (void *, const void *, int)) \
    F(int, SSL_get_error, (const void *, int)) \
    F(void, ERR_clear_error, (void))

#define DECLARED(type, name, arguments) static type (*name) arguments;
TLS_FUNCTIONS(DECLARED)

static uint64_t calls;
static enum mode mode;
static char cipher_text[ROOM], text[ROOM];

/* The library's calls end up here, too: the program exports its symbols (-rdynamic). */
ssize_t read(int fd, void *into, size_t count)
{
    calls++;
    return syscall(SYS_read, fd, into, count);
}

ssize_t write(int fd, const void *from, size_t count)
{
    calls++;
    return syscall(SYS_write, fd, from, count);
}

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

static void *context_make(const void *method)
{
    char groups[] = "X25519:P-256";
    void *context = SSL_CTX_new(method);
    SSL_CTX_ctrl(context, SET_MIN_VERSION, 0x0304, NULL);
    SSL_CTX_ctrl(context, SET_GROUPS, 0, groups);
    if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256"))
        die("no such cipher");
    return context;
}

struct server {
    int fd;
    bool fresh;                    /* the first request may have come with the handshake's end */
    void *ssl, *in, *out;
};

static void server_open(struct server *s, void *context, int fd)
{
    s->fd = fd;
    s->ssl = SSL_new(context);
    if (mode == MEMORY) {
        s->in = BIO_new(BIO_s_mem());
        s->out = BIO_new(BIO_s_mem());
        SSL_set_bio(s->ssl, s->in, s->out);
    } else {
        SSL_set_fd(s->ssl, fd);
    }
}

static void server_flush(struct server *s)
{
    int count;
    while (mode == MEMORY && (count = BIO_read(s->out, cipher_text, ROOM)) > 0)
        if (write(s->fd, cipher_text, (size_t)count) != count)
            die("a socket that takes less than an answer");
}

/* Waits for bytes, and gives them to the library where it does not read itself. */
static void server_await(struct server *s)
{
    struct pollfd waits = {s->fd, POLLIN, 0};
    ssize_t got;
    if (poll(&waits, 1, 10000) != 1)
        die("the client does not answer");
    if (mode != MEMORY)
        return;
    got = read(s->fd, cipher_text, ROOM);
    if (got <= 0 || BIO_write(s->in, cipher_text, (int)got) != got)
        die("the client is gone");
}

static void server_check(struct server *s, int result)
{
    if (SSL_get_error(s->ssl, result) != WANT_READ)
        die("TLS failed");
    ERR_clear_error();
}

static void server_accept(struct server *s)
{
    for (int result = 0; result != 1;) {
        server_await(s);
        result = SSL_accept(s->ssl);
        server_flush(s);
        if (result != 1)
            server_check(s, result);
    }
    s->fresh = true;
}

static void server_answer(struct server *s)
{
    int got, total = 0;
    while (total < REQUEST) {
        if (!s->fresh)
            server_await(s);
        s->fresh = false;
        while ((got = SSL_read(s->ssl, text, ROOM)) > 0)
            total += got;
        server_check(s, got);
    }
    if (SSL_write(s->ssl, text, ANSWER) != ANSWER)
        die("an answer that is not taken");
    server_flush(s);
}

static void client_run(void *context, int fd, uint32_t requests)
{
    void *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1)
        die("no handshake");
    for (uint32_t i = 0; i < requests; i++) {
        if (SSL_write(ssl, text, REQUEST) != REQUEST)
            die("a request that is not taken");
        for (int got, total = 0; total < ANSWER; total += got)
            if ((got = SSL_read(ssl, text, ROOM)) <= 0)
                die("no answer");
    }
    SSL_free(ssl);
    close(fd);
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void result_print(const char *name, uint64_t ns, uint64_t count, const char *behind)
{
    printf("\"%s\": {\"ns\": %.1f, \"calls\": %.2f}%s", name, (double)ns / (double)count,
           (double)calls / (double)count, behind);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        die("bio CERTIFICATE KEY fd|ahead|memory REQUESTS HANDSHAKES");
    mode = !strcmp(argv[3], "memory") ? MEMORY : !strcmp(argv[3], "ahead") ? AHEAD : FD;
    uint32_t requests = (uint32_t)atoi(argv[4]), handshakes = (uint32_t)atoi(argv[5]);
    int(*pairs)[2] = must_calloc(handshakes + 1, sizeof *pairs);
    library_open();
    for (uint32_t i = 0; i <= handshakes; i++)
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]))
            die("socketpair");
    pid_t child = fork();
    if (!child) {
        void *context = context_make(TLS_client_method());
        for (uint32_t i = 0; i <= handshakes; i++)
            client_run(context, pairs[i][1], i ? 1 : requests + 100);
        _exit(0);
    }
    void *context = context_make(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1
        || SSL_CTX_use_PrivateKey_file(context, argv[2], FILE_PEM) != 1)
        die("certificate or key");
    SSL_CTX_ctrl(context, SET_READ_AHEAD, mode == AHEAD, NULL);
    struct server s;
    uint64_t begin, ns = 0;
    fcntl(pairs[0][0], F_SETFL, O_NONBLOCK);
    server_open(&s, context, pairs[0][0]);
    server_accept(&s);
    for (int i = 0; i < 100; i++)
        server_answer(&s);
    calls = 0;
    begin = cpu_ns();
    for (uint32_t i = 0; i < requests; i++)
        server_answer(&s);
    printf("{");
    result_print("request", cpu_ns() - begin, requests, ", ");
    SSL_free(s.ssl);
    calls = 0;
    for (uint32_t i = 1; i <= handshakes; i++) {
        uint64_t before;
        fcntl(pairs[i][0], F_SETFL, O_NONBLOCK);
        begin = cpu_ns();
        server_open(&s, context, pairs[i][0]);
        server_accept(&s);
        ns += cpu_ns() - begin;
        before = calls;
        server_answer(&s);
        calls = before;
        SSL_free(s.ssl);
    }
    result_print("handshake", ns, handshakes, "}\n");
    waitpid(child, NULL, 0);
    return 0;
}
