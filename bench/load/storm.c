/*
 * storm: so many workloads whose SVIDs are all renewed again and again. For tests/handles/storm.
 *
 *   storm --socket PATH --processes N --uid FROM --seconds S
 *
 * N processes under uid FROM, FROM+1, ..., each with one FetchX509SVID stream that stays open for S
 * seconds. Each looks at every message: whether its leaf is another one than before, and how long
 * that one would still have lasted. Prints one JSON object; the status is 1 if a stream was lost, a
 * message repeated an SVID, or came when the one before had ended.
 */
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <postern/grpc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <postern/x509.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct options {
    const char *socket;
    unsigned processes, uid, seconds;
};

enum { SERIAL_SIZE = 20 };

enum report_kind { REPORT_MESSAGE, REPORT_REPEATED, REPORT_LOST };

/* One write of a child, short enough to be one read of the parent's. */
struct report {
    uint32_t child, kind;
    int64_t not_after_s; /* of the new leaf */
};

struct child {
    unsigned index;
    int report_fd;
    struct grpc_client *client;
    int serial_len;
    uint8_t serial[SERIAL_SIZE];
};

struct storm {
    unsigned n;
    uint64_t *messages;   /* of each child */
    int64_t *not_after_s; /* of each child's newest leaf */
    uint64_t all, repeated, lost, late;
    int64_t least_left_s; /* of a leaf, when the next one came */
    uint64_t n_begun, first_ms;
};

static void die(const char *what, const struct err *err)
{
    char text[1200] = "";

    (void)fprintf(stderr, "storm: %s%s%s\n", what, err != NULL ? ": " : "",
                  err != NULL ? err_text(err, text, sizeof(text)) : "");
    _exit(1);
}

/* --- a workload ------------------------------------------------------------------------------- */
static void report(const struct child *c, enum report_kind kind, int64_t not_after_s)
{
    struct report r = {.child = c->index, .kind = (uint32_t)kind, .not_after_s = not_after_s};

    if (write(c->report_fd, &r, sizeof(r)) != sizeof(r)) {
        _exit(1); /* the parent is gone */
    }
}

static void lost(const struct child *c, const char *why)
{
    (void)fprintf(stderr, "storm: stream %u is lost: %s\n", c->index, why);
    report(c, REPORT_LOST, 0);
    _exit(1);
}

/* True: another serial than that of the leaf before; it is remembered. */
static bool take_serial(struct child *c, X509 *leaf)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(leaf);
    int n = ASN1_STRING_length(serial);
    bool same;

    if (n <= 0 || n > SERIAL_SIZE) {
        lost(c, "a serial of a strange length");
    }
    same = n == c->serial_len && memcmp(ASN1_STRING_get0_data(serial), c->serial, (size_t)n) == 0;
    memcpy(c->serial, ASN1_STRING_get0_data(serial), (size_t)n);
    c->serial_len = n;
    return !same;
}

static void on_message(void *arg, struct str message)
{
    struct child *c = arg;
    struct err err = ERR_INIT;
    Workload__X509SVIDResponse *r =
        workload__x509_svidresponse__unpack(NULL, message.n, (const uint8_t *)message.p);
    STACK_OF(X509) * chain;
    X509 *leaf;

    if (r == NULL || r->n_svids == 0) {
        lost(c, "a message without an SVID");
    }
    chain = x509_chain_from_der(
        (struct str){(const char *)r->svids[0]->x509_svid.data, r->svids[0]->x509_svid.len}, &err);
    if (chain == NULL) {
        lost(c, "a message without a chain");
    }
    leaf = sk_X509_value(chain, 0);
    report(c, take_serial(c, leaf) ? REPORT_MESSAGE : REPORT_REPEATED, x509_not_after_s(leaf));
    sk_X509_pop_free(chain, X509_free);
    workload__x509_svidresponse__free_unpacked(r, NULL);
}

static void on_end(void *arg, enum grpc_status status, const char *text)
{
    char why[300];

    (void)snprintf(why, sizeof(why), "%s: %s", grpc_status_name(status), text);
    lost(arg, why);
}

static void on_closed(void *arg, const struct err *why)
{
    (void)why;
    lost(arg, "the connection ended");
}

static void be_workload(const struct options *o, unsigned index, int report_fd)
{
    static const struct grpc_client_events events = {.on_closed = on_closed};
    static const struct grpc_client_handlers handlers = {on_message, on_end};
    static const struct grpc_metadata metadata[] = {{PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE}};
    const struct grpc_request request = {
        .path = PROTO_FETCH_X509_SVID, .metadata = metadata, .n_metadata = 1, .streaming = true};
    struct child c = {.index = index, .report_fd = report_fd};
    struct err err = ERR_INIT;
    uid_t uid = o->uid + index;
    struct loop *loop;

    if (setresgid(uid, uid, uid) == -1 || setresuid(uid, uid, uid) == -1) {
        die("cannot change the user", NULL);
    }
    loop = loop_new(&err);
    if (loop == NULL) {
        die("a loop", &err);
    }
    c.client = grpc_client_connect(loop, o->socket, NULL, &events, &c, &err);
    if (c.client == NULL || grpc_client_start(c.client, &request, &handlers, &c, &err) == NULL) {
        lost(&c, err.what);
    }
    loop_run(loop);
    _exit(1);
}

/* --- all of them ------------------------------------------------------------------------------ */
static void take_report(struct storm *s, const struct report *r, uint64_t begun_ms)
{
    int64_t left_s;

    if (r->child >= s->n) {
        die("a report of nobody", NULL);
    }
    if (r->kind == REPORT_LOST) {
        s->lost++;
        return;
    }
    s->repeated += r->kind == REPORT_REPEATED;
    s->all++;
    if (s->messages[r->child]++ == 0) {
        if (++s->n_begun == s->n) {
            s->first_ms = os_now_ms() - begun_ms;
        }
    } else {
        left_s = s->not_after_s[r->child] - os_wall_s();
        s->late += left_s < 0;
        s->least_left_s = left_s < s->least_left_s ? left_s : s->least_left_s;
    }
    s->not_after_s[r->child] = r->not_after_s;
}

static void watch(struct storm *s, int fd, unsigned seconds)
{
    uint64_t begun_ms = os_now_ms(), end_ms = begun_ms + (uint64_t)seconds * 1000;
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (uint64_t now_ms = begun_ms; now_ms < end_ms; now_ms = os_now_ms()) {
        struct report r;
        ssize_t n;

        if (poll(&p, 1, (int)(end_ms - now_ms)) != 1) {
            continue;
        }
        n = read(fd, &r, sizeof(r));
        if (n == 0) {
            return; /* nobody is left */
        }
        if (n != sizeof(r)) {
            die("half a report", NULL);
        }
        take_report(s, &r, begun_ms);
    }
}

static void print(struct storm *s)
{
    uint64_t fewest = UINT64_MAX, most = 0, ended = 0;

    for (unsigned i = 0; i < s->n; i++) {
        fewest = s->messages[i] < fewest ? s->messages[i] : fewest;
        most = s->messages[i] > most ? s->messages[i] : most;
        ended += s->not_after_s[i] < os_wall_s();
    }
    (void)printf(
        "{\"streams\":%u,\"messages\":%llu,\"fewest\":%llu,\"most\":%llu,\"all_begun_ms\":%llu"
        ",\"lost\":%llu,\"repeated\":%llu,\"late\":%llu,\"expired\":%llu,\"least_left_s\":%lld}\n",
        s->n, (unsigned long long)s->all, (unsigned long long)fewest, (unsigned long long)most,
        (unsigned long long)s->first_ms, (unsigned long long)s->lost,
        (unsigned long long)s->repeated, (unsigned long long)s->late, (unsigned long long)ended,
        (long long)(s->least_left_s == INT64_MAX ? 0 : s->least_left_s));
    (void)fflush(stdout);
    s->late += ended;
}

static void run(const struct options *o)
{
    struct storm s = {.n = o->processes, .least_left_s = INT64_MAX};
    pid_t *pids = mem_must_calloc(o->processes, sizeof(*pids));
    int fds[2];

    s.messages = mem_must_calloc(s.n, sizeof(*s.messages));
    s.not_after_s = mem_must_calloc(s.n, sizeof(*s.not_after_s));
    if (pipe2(fds, O_CLOEXEC) == -1) {
        die("a pipe", NULL);
    }
    for (unsigned i = 0; i < s.n; i++) {
        pids[i] = fork();
        if (pids[i] == -1) {
            die("cannot fork", NULL);
        }
        if (pids[i] == 0) {
            (void)close(fds[0]);
            be_workload(o, i, fds[1]);
        }
    }
    (void)close(fds[1]);
    watch(&s, fds[0], o->seconds);
    print(&s);
    for (unsigned i = 0; i < s.n; i++) {
        (void)kill(pids[i], SIGKILL);
        (void)waitpid(pids[i], NULL, 0);
    }
    _exit(s.lost == 0 && s.repeated == 0 && s.late == 0 && s.n_begun == s.n ? 0 : 1);
}

static unsigned number(const char *text)
{
    uint64_t n = 0;

    if (!str_to_u64(str_of(text), 4000000000U, &n)) {
        die("an option wants a number", NULL);
    }
    return (unsigned)n;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"socket", required_argument, NULL, 's'},
                                          {"processes", required_argument, NULL, 'p'},
                                          {"uid", required_argument, NULL, 'u'},
                                          {"seconds", required_argument, NULL, 't'},
                                          {NULL, 0, NULL, 0}};
    struct options o = {.seconds = 30};
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) { /* one thread */
        switch (c) {
        case 's':
            o.socket = optarg;
            break;
        case 'p':
            o.processes = number(optarg);
            break;
        case 'u':
            o.uid = number(optarg);
            break;
        case 't':
            o.seconds = number(optarg);
            break;
        default:
            die("unknown option", NULL);
        }
    }
    if (o.socket == NULL || o.processes == 0 || o.uid == 0) {
        die("usage: storm --socket PATH --processes N --uid FROM --seconds S", NULL);
    }
    run(&o);
}
