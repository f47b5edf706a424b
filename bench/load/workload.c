/*
 * workload: a node's workloads at an agent's socket, as many as are wanted. Made for bench/agent.
 *
 *   workload fetch --socket PATH [--connections N] [--seconds S]
 *   workload sign  --socket PATH [--connections N] [--seconds S]     (Postern's own call)
 *   workload hold  --socket PATH [--connections N] [--streams N] [--processes N --uid FROM]
 *
 * fetch  each connection opens FetchX509SVID, takes the first message, cancels, and opens it again
 * sign   each connection asks SignX509SVID for one key, again and again
 * hold   streams that stay: prints "ready" when each has had a message; then, for each line on
 *        standard input, waits until each has had one more and prints how long that took from the
 *        line on. With --processes each is a process of its own, under uid FROM, FROM+1, ...
 *
 * fetch and sign print one JSON object when they are done.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <postern/grpc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <postern/x509.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONNECT_TRIES = 500 };

enum mode { FETCH, SIGN, HOLD };

struct options {
    enum mode mode;
    const char *socket;
    unsigned connections, streams, processes, uid;
    double seconds;
};

struct bench;
struct conn {
    struct bench *b;
    struct grpc_client *client;
    struct grpc_client_call *call; /* fetch and sign: the one that is open */
    uint64_t begun_ns;
    bool again; /* at the end of the turn */
    struct loop_deferred turn;
};

struct bench {
    const struct options *o;
    struct loop *loop;
    struct conn *conns;
    uint8_t *csr_message; /* sign */
    size_t n_csr_message;
    uint64_t calls, svids, bytes, failed;
    uint64_t messages, waited_for, since_ns; /* hold */
    double *ms;                              /* hold: of each message of a round */
    struct loop_timer end;
    struct loop_io *in;
    int report_fd; /* hold, in a child: one byte a message; -1: none */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const struct err *err)
{
    char text[1200] = "";
    (void)fprintf(stderr, "workload: %s%s%s\n", what, err != NULL ? ": " : "",
                  err != NULL ? err_text(err, text, sizeof(text)) : "");
    _exit(1);
}

/* How many SVIDs a response holds: its fields 1, which are messages. */
static unsigned count_svids(struct str m)
{
    Workload__X509SVIDResponse *r =
        workload__x509_svidresponse__unpack(NULL, m.n, (const uint8_t *)m.p);
    unsigned n = r != NULL ? (unsigned)r->n_svids : 0;
    workload__x509_svidresponse__free_unpacked(r, NULL);
    return n;
}

/* --- fetch and sign --------------------------------------------------------------------------- */

static void start(struct conn *c);

static void on_turn(struct loop_deferred *d)
{
    struct conn *c = (struct conn *)((char *)d - offsetof(struct conn, turn));
    start(c);
}

static void again(struct conn *c)
{
    loop_defer(c->b->loop, &c->turn);
}

static void on_message(void *arg, struct str message)
{
    struct conn *c = arg;
    struct bench *b = c->b;
    b->bytes += message.n;
    if (b->o->mode == FETCH) {
        b->calls++;
        b->svids += count_svids(message);
        grpc_client_cancel(c->call);
        c->call = NULL;
        again(c);
    }
}

static void on_end(void *arg, enum grpc_status status, const char *text)
{
    struct conn *c = arg;
    c->call = NULL;
    if (status != GRPC_OK) {
        if (c->b->failed++ == 0) {
            (void)fprintf(stderr, "workload: %s: %s\n", grpc_status_name(status), text);
        }
    } else {
        c->b->calls++;
        c->b->svids++;
    }
    again(c);
}

static const struct grpc_client_handlers handlers = {on_message, on_end};

static void start(struct conn *c)
{
    static const struct grpc_metadata metadata[] = {{PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE}};
    struct err err = ERR_INIT;
    bool sign = c->b->o->mode == SIGN;
    const struct grpc_request request = {
        .path = sign ? PROTO_SIGN_X509_SVID : PROTO_FETCH_X509_SVID,
        .message =
            sign ? (struct str){(const char *)c->b->csr_message, c->b->n_csr_message} : STR_NONE,
        .metadata = metadata,
        .n_metadata = 1,
        .streaming = !sign};
    c->call = grpc_client_start(c->client, &request, &handlers, c, &err);
    if (c->call == NULL) {
        die("the connection is over", &err);
    }
}

static void on_closed(void *arg, const struct err *why)
{
    (void)arg;
    die("a connection ended", why);
}

static const struct grpc_client_events client_events = {.on_closed = on_closed};

static void on_time(void *arg)
{
    loop_stop(((struct bench *)arg)->loop);
}

static void connect_all(struct bench *b, unsigned n)
{
    struct err err = ERR_INIT;
    b->conns = mem_must_calloc(n, sizeof(*b->conns));
    for (unsigned i = 0; i < n; i++) {
        struct conn *c = &b->conns[i];
        c->b = b;
        c->turn.fn = on_turn;
        /* A thousand at once may find the queue of the socket full. */
        for (int tries = 0; c->client == NULL; tries++) {
            err = (struct err)ERR_INIT;
            c->client = grpc_client_connect(b->loop, b->o->socket, NULL, &client_events, c, &err);
            if (c->client == NULL && tries == CONNECT_TRIES) {
                die("cannot connect", &err);
            }
            (void)poll(NULL, 0, c->client == NULL ? 20 : 0);
        }
    }
}

static void make_request(struct bench *b)
{
    struct err err = ERR_INIT;
    uint8_t *csr = NULL;
    size_t n = 0;
    EVP_PKEY *key = x509_key_new(&err);
    if (key == NULL || x509_csr_new(key, &csr, &n, &err) == -1) {
        die("a key", &err);
    }
    Postern__V1__SignX509SVIDRequest r;
    postern__v1__sign_x509_svidrequest__init(&r);
    r.csr = (ProtobufCBinaryData){n, csr};
    b->n_csr_message = postern__v1__sign_x509_svidrequest__get_packed_size(&r);
    b->csr_message = mem_must_calloc(1, b->n_csr_message);
    (void)postern__v1__sign_x509_svidrequest__pack(&r, b->csr_message);
}

static void run_calls(struct bench *b)
{
    struct rusage used;
    if (b->o->mode == SIGN) {
        make_request(b);
    }
    connect_all(b, b->o->connections);
    for (unsigned i = 0; i < b->o->connections; i++) {
        start(&b->conns[i]);
    }
    loop_timer_init(&b->end, b->loop, on_time, b);
    loop_timer_arm(&b->end, (uint64_t)(b->o->seconds * 1000));
    uint64_t begun_ns = now_ns();
    loop_run(b->loop);
    double took_s = (double)(now_ns() - begun_ns) / 1e9;
    (void)getrusage(RUSAGE_SELF, &used);
    (void)printf("{\"calls\":%" PRIu64 ",\"svids\":%" PRIu64 ",\"failed\":%" PRIu64
                 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f,\"svids_per_s\":%.1f,\"calls_per_s\":%.1f"
                 ",\"client_cpu_s\":%.3f}\n",
                 b->calls, b->svids, b->failed, b->bytes, took_s, (double)b->svids / took_s,
                 (double)b->calls / took_s,
                 (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                     (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
}

/* --- hold ------------------------------------------------------------------------------------- */

static void hold_on_message(void *arg, struct str message)
{
    struct bench *b = ((struct conn *)arg)->b;
    (void)message;
    if (b->report_fd != -1) {
        (void)!write(b->report_fd, "m", 1);
        return;
    }
    if (b->messages < b->waited_for) {
        b->ms[b->messages] = (double)(now_ns() - b->since_ns) / 1e6;
    }
    if (++b->messages == b->waited_for) {
        loop_stop(b->loop);
    }
}

static void hold_on_end(void *arg, enum grpc_status status, const char *text)
{
    (void)arg;
    (void)fprintf(stderr, "workload: a stream ended: %s: %s\n", grpc_status_name(status), text);
    _exit(1);
}

static const struct grpc_client_handlers hold_handlers = {hold_on_message, hold_on_end};

static void hold_start(struct conn *c)
{
    static const struct grpc_metadata metadata[] = {{PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE}};
    const struct grpc_request request = {
        .path = PROTO_FETCH_X509_SVID, .metadata = metadata, .n_metadata = 1, .streaming = true};
    struct err err = ERR_INIT;
    if (grpc_client_start(c->client, &request, &hold_handlers, c, &err) == NULL) {
        die("cannot open a stream", &err);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_round(struct bench *b, uint64_t n)
{
    qsort(b->ms, n, sizeof(*b->ms), by_value);
    (void)printf("{\"streams\":%" PRIu64
                 ",\"first_ms\":%.1f,\"p50_ms\":%.1f,\"p99_ms\":%.1f,\"last_ms\":%.1f}\n",
                 n, b->ms[0], b->ms[n / 2], b->ms[n * 99 / 100], b->ms[n - 1]);
    (void)fflush(stdout);
}

static bool next_line(void)
{
    char line[64];
    return fgets(line, sizeof(line), stdin) != NULL;
}

static void on_line(void *arg, unsigned ready)
{
    struct bench *b = arg;
    (void)ready;
    if (!next_line()) {
        _exit(0);
    }
    b->messages = 0;
    b->since_ns = now_ns();
}

static void hold_here(struct bench *b)
{
    uint64_t n = b->o->streams;
    struct err err = ERR_INIT;
    connect_all(b, b->o->connections);
    b->ms = mem_must_calloc(n, sizeof(*b->ms));
    b->waited_for = n;
    b->since_ns = now_ns();
    for (uint64_t i = 0; i < n; i++) {
        hold_start(&b->conns[i % b->o->connections]);
    }
    loop_run(b->loop);
    (void)printf("ready\n");
    print_round(b, n);
    b->in = loop_io_new(b->loop, STDIN_FILENO, on_line, b);
    if (b->in == NULL) {
        die("standard input", &err);
    }
    loop_io_want(b->in, LOOP_READ);
    for (;;) {
        loop_run(b->loop);
        print_round(b, n);
    }
}

static void child(const struct options *o, unsigned i, int report_fd)
{
    uid_t uid = o->uid + i;
    struct err err = ERR_INIT;
    if (setresgid(uid, uid, uid) == -1 || setresuid(uid, uid, uid) == -1) {
        die("cannot change the user", NULL);
    }
    struct bench b = {.o = o, .report_fd = report_fd};
    b.loop = loop_new(&err);
    if (b.loop == NULL) {
        die("a loop", &err);
    }
    connect_all(&b, 1);
    hold_start(&b.conns[0]);
    loop_run(b.loop);
    _exit(1);
}

/* Reads n reports, one byte each. False: no more come. */
static bool take_reports(struct bench *b, int fd, uint64_t n)
{
    uint8_t bytes[512];
    for (uint64_t got = 0; got < n;) {
        size_t most = n - got < sizeof(bytes) ? (size_t)(n - got) : sizeof(bytes);
        ssize_t r = read(fd, bytes, most);
        if (r <= 0) {
            return false;
        }
        for (ssize_t k = 0; k < r; k++) {
            b->ms[got++] = (double)(now_ns() - b->since_ns) / 1e6;
        }
    }
    return true;
}

/* The children end with the pipe that holds their parent's end, or by its kill. */
static void hold_apart(struct bench *b)
{
    int fds[2];
    uint64_t n = b->o->processes;
    if (pipe2(fds, O_CLOEXEC) == -1) {
        die("a pipe", NULL);
    }
    b->ms = mem_must_calloc(n, sizeof(*b->ms));
    pid_t *pids = mem_must_calloc(n, sizeof(*pids));
    b->since_ns = now_ns();
    for (unsigned i = 0; i < n; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            (void)close(fds[0]);
            child(b->o, i, fds[1]);
        }
    }
    (void)close(fds[1]);
    bool ok = take_reports(b, fds[0], n);
    if (ok) {
        (void)printf("ready\n");
        print_round(b, n);
    }
    while (ok && next_line()) {
        b->since_ns = now_ns();
        ok = take_reports(b, fds[0], n);
        print_round(b, n);
    }
    for (unsigned i = 0; i < n; i++) {
        (void)kill(pids[i], SIGKILL);
        (void)waitpid(pids[i], NULL, 0);
    }
    _exit(ok ? 0 : 1);
}

/* --- the command line ------------------------------------------------------------------------- */

static unsigned number(const char *text)
{
    uint64_t n = 0;
    if (!str_to_u64(str_of(text), 1000000, &n)) {
        die("an option wants a number", NULL);
    }
    return (unsigned)n;
}

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"socket", required_argument, NULL, 's'},
                                          {"connections", required_argument, NULL, 'c'},
                                          {"seconds", required_argument, NULL, 't'},
                                          {"streams", required_argument, NULL, 'n'},
                                          {"processes", required_argument, NULL, 'p'},
                                          {"uid", required_argument, NULL, 'u'},
                                          {NULL, 0, NULL, 0}};
    static const char *const modes[] = {"fetch", "sign", "hold"};
    *o = (struct options){.connections = 8, .seconds = 5};
    int mode = argc > 1 ? 3 : 4;
    for (int i = 0; argc > 1 && i < 3; i++) {
        mode = strcmp(argv[1], modes[i]) == 0 ? i : mode;
    }
    if (mode > 2) {
        die("usage: workload fetch|sign|hold --socket PATH [...]", NULL);
    }
    o->mode = (enum mode)mode;
    for (int c = 0;
         (c = getopt_long(argc - 1, argv + 1, "", longs, NULL)) != -1;) { /* one thread */
        switch (c) {
        case 's':
            o->socket = optarg;
            break;
        case 'c':
            o->connections = number(optarg);
            break;
        case 't':
            o->seconds = number(optarg);
            break;
        case 'n':
            o->streams = number(optarg);
            break;
        case 'p':
            o->processes = number(optarg);
            break;
        case 'u':
            o->uid = number(optarg);
            break;
        default:
            die("unknown option", NULL);
        }
    }
    if (o->socket == NULL || o->connections == 0) {
        die("--socket PATH is needed", NULL);
    }
    o->streams = o->streams > 0 ? o->streams : o->connections;
}

int main(int argc, char **argv)
{
    struct options o;
    struct err err = ERR_INIT;
    parse(argc, argv, &o);
    struct bench b = {.o = &o, .report_fd = -1};
    if (o.mode == HOLD && o.processes > 0) {
        hold_apart(&b); /* before there is a loop: it is not for two processes */
    }
    b.loop = loop_new(&err);
    if (b.loop == NULL) {
        die("a loop", &err);
    }
    if (o.mode == HOLD) {
        hold_here(&b);
    } else {
        run_calls(&b);
    }
    (void)fflush(stdout);
    _exit(0); /* what is open goes with the process */
}
