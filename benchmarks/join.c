/* What sending an edited head costs: six pieces by sendmsg(), or joined and sent with send().
 *
 *   cc -O2 -o join benchmarks/join.c && ./join
 *
 * The pieces have a request's sizes, 700 bytes in all. Both ways take turns on one loopback
 * connection, so that whatever else the machine does meets both alike; only the call that
 * sends (and the copy before it) is timed. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum { TURNS = 60000, PIECES = 6, TOTAL = 700 };

static long took_ns[2][TURNS];

static long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return x < y ? -1 : x > y;
}

static void connect_pair(int *from, int *to)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&at, sizeof at) < 0 || listen(listener, 1) < 0
        || getsockname(listener, (void *)&at, &size) < 0)
        exit(1);
    *from = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(*from, (void *)&at, sizeof at) < 0)
        exit(1);
    *to = accept(listener, NULL, NULL);
    setsockopt(*from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static long send_pieces(int fd, struct iovec *pieces)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = PIECES};
    long begin = now_ns();
    if (sendmsg(fd, &message, MSG_NOSIGNAL) != TOTAL)
        exit(1);
    return now_ns() - begin;
}

static long send_joined(int fd, const struct iovec *pieces)
{
    static char joined[4096];
    long begin = now_ns();
    char *at = joined;
    for (int i = 0; i < PIECES; i++) {
        memcpy(at, pieces[i].iov_base, pieces[i].iov_len);
        at += pieces[i].iov_len;
    }
    if (send(fd, joined, TOTAL, MSG_NOSIGNAL) != TOTAL)
        exit(1);
    return now_ns() - begin;
}

int main(void)
{
    static char head[4096], sink[8192];
    struct iovec pieces[PIECES] = {{head, 200},       {head + 230, 120}, {head + 400, 180},
                                   {head + 700, 90},  {head + 900, 70},  {head + 1000, 40}};
    int from, to;
    connect_pair(&from, &to);
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        long ns = turn % 2 ? send_joined(from, pieces) : send_pieces(from, pieces);
        took_ns[turn % 2][turn / 2] = ns;
        for (ssize_t got = 0, part; got < TOTAL; got += part)
            if ((part = recv(to, sink, sizeof sink, 0)) <= 0)
                exit(1);
    }
    for (int way = 0; way < 2; way++) {
        qsort(took_ns[way], TURNS, sizeof(long), compare);
        printf("%-16s median %ld ns, p10 %ld ns\n", way ? "joined, send" : "six by sendmsg",
               took_ns[way][TURNS / 2], took_ns[way][TURNS / 10]);
    }
    return 0;
}
