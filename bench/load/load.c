/*
 * load: HTTP/1.1 requests at a proxy, one thread, no library. Made for bench/compare: what is
 * measured must not hang on what measures.
 *
 *   load MODE --to IP:PORT --path PATH [--connections N] [--seconds S] [--rate R] [--losses FILE]
 *             [--streams N]
 *
 * kept   N connections, each asks again as soon as it has its answer (bulk: a large PATH)
 * fresh  N at a time, a connection for each request, closed by the other side
 * rate   R requests a second over N kept connections, whatever the answers do: latency counts from
 *        when a request was due, so a slow answer does not hide the ones behind it
 * idle   N connections, one request on each, then nothing
 *
 * It prints "ready" when every connection has had an answer (fresh: at once), waits for a line on
 * standard input, runs, and prints one JSON object. idle ends at the end of standard input. An
 * answer that says "Connection: close" is the last one on its connection; the next is asked on
 * another, and what was asked for and never answered is an error.
 *
 * With --streams it is HTTP/2 by prior knowledge (kept, rate): so many requests at once on each
 * connection. A stream that is reset, and a session that is told to go away, are errors.
 */
#include "load_h2.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 2048, READ_MAX = 1 << 18, OPENING_MAX = 64, SAMPLES_MAX = 1 << 24 };

enum mode { KEPT, FRESH, RATE, IDLE };

enum state { CLOSED, CONNECTING, WAITING, HEAD, BODY, ENDING };

struct conn {
    int fd;
    enum state state;
    bool answered; /* at least once */
    bool last;     /* the other side closes after this answer */
    uint64_t due_ns;
    uint64_t left; /* of the body */
    size_t head_len;
    char head[HEAD_MAX];
    struct h2 *h2; /* NULL: HTTP/1.1 */
};

struct load {
    enum mode mode;
    struct sockaddr_in to;
    unsigned n, rate;
    unsigned streams; /* a connection; 0: HTTP/1.1 */
    double seconds;
    char request[1024];
    size_t request_len;

    int epoll, timer;
    struct conn *conns;
    unsigned opening, opened, answered;
    bool running;
    uint64_t end_ns;

    /* rate: connections (or streams of them) without a request, and requests without a connection
     */
    unsigned *free_conns;
    unsigned n_free;
    uint64_t next_due_ns, n_due, n_sent;

    uint64_t requests, bytes, errors;
    FILE *losses;
    uint32_t *samples_us;
    size_t n_samples, cap_samples;
    uint64_t start_ns;
    uint32_t longest_us;
    double longest_at_s; /* when it ended, from the start */
};

static uint8_t bytes_read[READ_MAX];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void sample(struct load *l, uint64_t from_ns)
{
    uint64_t now = now_ns();
    uint64_t us = (now - from_ns) / 1000;
    uint32_t short_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    if (short_us > l->longest_us) {
        l->longest_us = short_us;
        l->longest_at_s = (double)(now - l->start_ns) / 1e9;
    }
    if (l->n_samples == l->cap_samples) {
        if (l->cap_samples >= SAMPLES_MAX) {
            return;
        }
        l->cap_samples = l->cap_samples > 0 ? l->cap_samples * 2 : 65536;
        l->samples_us = realloc(l->samples_us, l->cap_samples * sizeof(l->samples_us[0]));
        if (l->samples_us == NULL) {
            die("memory");
        }
    }
    l->samples_us[l->n_samples++] = short_us;
}

/* --- connections -------------------------------------------------------------------------------*/

static void conn_open(struct load *l, struct conn *c)
{
    int one = 1;
    c->last = false;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd == -1) {
        die("socket");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c->state = CONNECTING;
    c->due_ns = now_ns();
    if (connect(c->fd, (const struct sockaddr *)&l->to, sizeof(l->to)) == -1 &&
        errno != EINPROGRESS) {
        die("connect");
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)(c - l->conns)};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e) == -1) {
        die("epoll_ctl");
    }
}

static void conn_watch(struct load *l, struct conn *c, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.u32 = (uint32_t)(c - l->conns)};
    if (epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &e) == -1) {
        die("epoll_ctl");
    }
}

static void lost(struct load *l, const struct conn *c, const char *what)
{
    struct sockaddr_in own = {0};
    socklen_t len = sizeof(own);
    struct timespec t;
    l->errors += c->h2 != NULL && c->h2->n_asked > 1 ? c->h2->n_asked : 1;
    if (l->losses == NULL) {
        return;
    }
    getsockname(c->fd, (struct sockaddr *)&own, &len);
    clock_gettime(CLOCK_REALTIME, &t);
    fprintf(l->losses, "%lld %u %s\n", (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000,
            ntohs(own.sin_port), what);
    fflush(l->losses);
    if (c->state == CONNECTING) { /* nobody listens: not as fast as can be */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* `what`: how it failed, or NULL. */
static void conn_end(struct load *l, struct conn *c, const char *what)
{
    if (what != NULL) {
        lost(l, c, what);
    }
    close(c->fd);
    if (!c->answered && l->mode != FRESH && !l->running) {
        fprintf(stderr, "load: a connection failed before its first answer: %s\n",
                what != NULL ? what : "it ended");
        exit(1);
    }
    c->state = CLOSED;
    if (now_ns() < l->end_ns || !l->running) {
        conn_open(l, c);
    }
}

/* Sends what HTTP/2 has gathered. False: the connection is gone. */
static bool conn_flush(struct load *l, struct conn *c)
{
    size_t len = c->h2->out_len;
    c->h2->out_len = 0;
    if (len > 0 && send(c->fd, c->h2->out, len, MSG_NOSIGNAL) != (ssize_t)len) {
        conn_end(l, c, "not sent");
        return false;
    }
    return true;
}

/* Of HTTP/2 it is gathered only: conn_flush sends it. */
static void conn_send(struct load *l, struct conn *c, uint64_t due_ns)
{
    c->due_ns = due_ns;
    c->state = HEAD;
    c->head_len = 0;
    if (c->h2 != NULL) {
        if (!h2_ask(c->h2, (const uint8_t *)l->request, l->request_len, due_ns)) {
            errno = ENOBUFS;
            die("too many streams");
        }
        return;
    }
    ssize_t n = send(c->fd, l->request, l->request_len, MSG_NOSIGNAL);
    if (n != (ssize_t)l->request_len) {
        conn_end(l, c, "not sent");
    }
}

static void conn_answered(struct load *l, struct conn *c)
{
    if (l->running) {
        l->requests++;
        sample(l, c->due_ns);
    }
    if (!c->answered) {
        c->answered = true;
        l->answered++;
        l->opening--;
    }
    if (c->last) {
        c->state = ENDING;
        return;
    }
    switch (l->mode) {
    case KEPT:
        if (l->running) {
            conn_send(l, c, now_ns());
        } else {
            c->state = WAITING;
        }
        break;
    case FRESH:
        c->state = ENDING; /* the other side closes first and keeps TIME_WAIT */
        break;
    case RATE:
        c->state = WAITING;
        if (c->h2 == NULL || l->running) {
            l->free_conns[l->n_free++] = (unsigned)(c - l->conns);
        }
        break;
    case IDLE:
        c->state = WAITING;
        break;
    }
}

/* The end of the head: takes Content-Length, and whether it is the last one. False: not an answer
 * that we asked for. */
static bool conn_head(struct conn *c, const char *end)
{
    static const char length[] = "\r\ncontent-length:", last[] = "\r\nconnection: close\r\n";
    bool found = false;
    if (memcmp(c->head, "HTTP/1.1 200", 12) != 0) {
        return false;
    }
    for (const char *p = c->head; p + sizeof(length) < end; p++) {
        if (*p != '\r') {
            continue;
        }
        if (!found && strncasecmp(p, length, sizeof(length) - 1) == 0) {
            c->left = strtoull(p + sizeof(length) - 1, NULL, 10);
            found = true;
        }
        c->last = c->last || strncasecmp(p, last, sizeof(last) - 1) == 0;
    }
    return found;
}

/* Takes n bytes at bytes_read. False: it is not HTTP as we asked for it. */
static bool conn_take(struct load *l, struct conn *c, size_t n)
{
    const uint8_t *p = bytes_read;
    if (l->running) {
        l->bytes += n;
    }
    if (c->state == HEAD) {
        size_t room = HEAD_MAX - 1 - c->head_len;
        size_t part = n < room ? n : room;
        memcpy(c->head + c->head_len, p, part);
        c->head[c->head_len + part] = '\0';
        char *end = strstr(c->head, "\r\n\r\n");
        if (end == NULL) {
            c->head_len += part;
            return part == n && c->head_len < HEAD_MAX - 1;
        }
        if (!conn_head(c, end + 2)) {
            return false;
        }
        size_t used = (size_t)(end + 4 - c->head) - c->head_len;
        p += used;
        n -= used;
        c->state = BODY;
    }
    if (c->state != BODY || n > c->left) {
        return n == 0;
    }
    c->left -= n;
    if (c->left == 0) {
        conn_answered(l, c);
    }
    return true;
}

/* The same of HTTP/2. */
static bool conn_take_h2(struct load *l, struct conn *c, size_t n)
{
    const uint8_t *p = bytes_read;
    enum h2_event e;
    if (l->running) {
        l->bytes += n;
    }
    do {
        uint64_t due_ns = 0;
        e = h2_take(c->h2, &p, &n, &due_ns);
        if (e == H2_ANSWER) {
            c->due_ns = due_ns;
            conn_answered(l, c);
        }
    } while (e == H2_ANSWER);
    return e == H2_MORE;
}

static void conn_event(struct load *l, struct conn *c, uint32_t events)
{
    if (c->state == CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
        int error = 0;
        socklen_t len = sizeof(error);
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error != 0) {
            conn_end(l, c, error == ECONNREFUSED ? "refused" : "not connected");
            return;
        }
        conn_watch(l, c, EPOLLIN);
        if (c->h2 != NULL) {
            h2_begin(c->h2);
        }
        conn_send(l, c, c->due_ns);
        for (unsigned i = 1; i < l->streams && l->running && l->mode == KEPT; i++) {
            conn_send(l, c, c->due_ns);
        }
        if (c->h2 != NULL) {
            (void)conn_flush(l, c);
        }
        return;
    }
    for (int turn = 0; turn < 4 && c->state != CLOSED; turn++) {
        ssize_t n = recv(c->fd, bytes_read, sizeof(bytes_read), 0);
        if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            conn_end(l, c, n < 0 ? "reset" : c->state != ENDING ? "ended" : NULL);
            return;
        }
        if (!(c->h2 != NULL ? conn_take_h2 : conn_take)(l, c, (size_t)n)) {
            conn_end(l, c, "another answer");
            return;
        }
        if (c->h2 != NULL && !conn_flush(l, c)) {
            return;
        }
        if (n < READ_MAX) {
            return;
        }
    }
}

/* --- running -----------------------------------------------------------------------------------*/

static void open_some(struct load *l)
{
    while (l->opened < l->n && l->opening < OPENING_MAX) {
        l->opening++;
        conn_open(l, &l->conns[l->opened++]);
    }
}

static void send_due(struct load *l)
{
    uint64_t step_ns = 1000000000U / l->rate;
    uint64_t now = now_ns();
    while (l->next_due_ns + l->n_due * step_ns <= now) {
        l->n_due++;
    }
    while (l->n_sent < l->n_due && l->n_free > 0) {
        struct conn *c = &l->conns[l->free_conns[--l->n_free]];
        conn_send(l, c, l->next_due_ns + l->n_sent++ * step_ns);
        if (c->h2 != NULL && !conn_flush(l, c)) {
            return;
        }
    }
}

static void turn(struct load *l, int timeout_ms)
{
    struct epoll_event events[256];
    int n = epoll_wait(l->epoll, events, 256, timeout_ms);
    if (n == -1 && errno != EINTR) {
        die("epoll_wait");
    }
    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == UINT32_MAX) {
            uint64_t ticks;
            (void)!read(l->timer, &ticks, sizeof(ticks));
            continue;
        }
        conn_event(l, &l->conns[events[i].data.u32], events[i].events);
    }
    if (l->running && l->mode == RATE) {
        send_due(l);
    }
}

static void run(struct load *l)
{
    uint64_t start = now_ns();
    l->start_ns = start;
    l->end_ns = start + (uint64_t)(l->seconds * 1e9);
    l->running = true;
    if (l->mode == RATE) {
        struct itimerspec t = {.it_interval.tv_nsec = 250000, .it_value.tv_nsec = 250000};
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
        l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (l->timer == -1 || timerfd_settime(l->timer, 0, &t, NULL) == -1 ||
            epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->timer, &e) == -1) {
            die("timerfd");
        }
        l->next_due_ns = start;
    }
    for (unsigned i = 0; i < l->n && l->mode != RATE; i++) {
        struct conn *c = &l->conns[i];
        if (l->mode == FRESH) {
            conn_open(l, c);
            continue;
        }
        for (unsigned s = 0; s < (c->h2 != NULL ? l->streams : 1); s++) {
            conn_send(l, c, now_ns());
        }
        if (c->h2 != NULL) {
            (void)conn_flush(l, c);
        }
    }
    for (unsigned i = 0; i < l->n * l->streams && l->mode == RATE; i++) {
        l->free_conns[l->n_free++] = i % l->n;
    }
    while (now_ns() < l->end_ns) {
        turn(l, 10);
    }
    l->running = false;
    l->seconds = (double)(now_ns() - start) / 1e9;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t percentile(const struct load *l, double part)
{
    return l->n_samples > 0 ? l->samples_us[(size_t)((double)(l->n_samples - 1) * part)] : 0;
}

static void report(struct load *l)
{
    qsort(l->samples_us, l->n_samples, sizeof(l->samples_us[0]), compare_u32);
    printf(
        "{\"seconds\": %.6f, \"requests\": %" PRIu64 ", \"bytes\": %" PRIu64
        ", \"errors\": %" PRIu64 ", \"unsent\": %" PRIu64
        ", \"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u, \"max_at_s\": %.3f}\n",
        l->seconds, l->requests, l->bytes, l->errors, l->n_due - l->n_sent, percentile(l, 0.5),
        percentile(l, 0.99), percentile(l, 0.999), l->longest_us, l->longest_at_s);
}

/* --- the command line --------------------------------------------------------------------------*/

static bool parse_to(const char *text, struct sockaddr_in *ret)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof(host)) {
        return false;
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    ret->sin_family = AF_INET;
    ret->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    return inet_pton(AF_INET, host, &ret->sin_addr) == 1;
}

static int usage(void)
{
    fprintf(stderr, "usage: load kept|fresh|rate|idle --to IP:PORT --path PATH [--connections N] "
                    "[--seconds S] [--rate R] [--losses FILE] [--streams N]\n");
    return 2;
}

static bool parse(struct load *l, int argc, char **argv)
{
    static const char *const modes[] = {"kept", "fresh", "rate", "idle"};
    const char *path = "/";
    unsigned mode = 0;
    while (argc > 1 && mode < 4 && strcmp(argv[1], modes[mode]) != 0) {
        mode++;
    }
    if (argc < 2 || mode == 4 || argc % 2 != 0) {
        return false;
    }
    l->mode = (enum mode)mode;
    for (int i = 2; i + 1 < argc; i += 2) {
        const char *v = argv[i + 1];
        if (strcmp(argv[i], "--to") == 0) {
            if (!parse_to(v, &l->to)) {
                return false;
            }
        } else if (strcmp(argv[i], "--path") == 0) {
            path = v;
        } else if (strcmp(argv[i], "--connections") == 0) {
            l->n = (unsigned)strtoul(v, NULL, 10);
        } else if (strcmp(argv[i], "--seconds") == 0) {
            l->seconds = strtod(v, NULL);
        } else if (strcmp(argv[i], "--rate") == 0) {
            l->rate = (unsigned)strtoul(v, NULL, 10);
        } else if (strcmp(argv[i], "--streams") == 0) {
            l->streams = (unsigned)strtoul(v, NULL, 10);
        } else if (strcmp(argv[i], "--losses") == 0) {
            l->losses = fopen(v, "ae");
            if (l->losses == NULL) {
                die(v);
            }
        } else {
            return false;
        }
    }
    if (l->streams > 0) {
        l->request_len = h2_fields(path, (uint8_t *)l->request, sizeof(l->request));
        return l->to.sin_port != 0 && l->n > 0 && l->rate > 0 && l->seconds > 0 &&
               l->streams <= H2_STREAMS_MAX && l->request_len > 0 &&
               (l->mode == KEPT || l->mode == RATE);
    }
    l->request_len =
        (size_t)snprintf(l->request, sizeof(l->request), "GET %s HTTP/1.1\r\nHost: bench\r\n%s\r\n",
                         path, l->mode == FRESH ? "Connection: close\r\n" : "");
    return l->to.sin_port != 0 && l->n > 0 && l->rate > 0 && l->seconds > 0 &&
           l->request_len < sizeof(l->request);
}

int main(int argc, char **argv)
{
    struct load l = {.n = 1, .rate = 1000, .seconds = 1};
    char line[16];
    if (!parse(&l, argc, argv)) {
        return usage();
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.conns = calloc(l.n, sizeof(l.conns[0]));
    l.free_conns = calloc(l.streams > 0 ? (size_t)l.n * l.streams : l.n, sizeof(l.free_conns[0]));
    struct h2 *h2 = l.streams > 0 ? calloc(l.n, sizeof(*h2)) : NULL;
    if (l.epoll == -1 || l.conns == NULL || l.free_conns == NULL || (l.streams > 0 && h2 == NULL)) {
        die("start");
    }
    for (unsigned i = 0; i < l.n && h2 != NULL; i++) {
        l.conns[i].h2 = &h2[i];
    }
    while (l.mode != FRESH && l.answered < l.n) {
        open_some(&l);
        turn(&l, 100);
    }
    puts("ready");
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL || l.mode == IDLE) {
        return 0;
    }
    run(&l);
    report(&l);
    return 0;
}
