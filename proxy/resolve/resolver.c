/* The asker: when which name is asked about, and what becomes of the answers. */
#include <postern/resolve.h>

#include "resolve_wire.h"

#include <arpa/inet.h>
#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ASKED_MAX = 8,        /* questions at once */
    ANSWER_MS = 60000,    /* a question that is not answered by then has failed */
    REFRESH_MIN_S = 5,    /* whatever an answer's time to live says */
    REFRESH_MAX_S = 300,  /* likewise */
    RETRY_MIN_MS = 1000,  /* after a failure: growing */
    RETRY_MAX_MS = 30000, /* up to this */
};

struct name {
    char *host; /* owned */
    struct net_addr addrs[RESOLVE_ADDRS_MAX];
    size_t n_addrs;
    uint64_t due_ms; /* when to ask, or when to give up waiting */
    uint32_t id;     /* of the question that is out; 0: none is */
    unsigned failures;
    char error[200];
};

struct resolver {
    struct loop *loop;
    const struct resolver_events *events;
    void *arg;
    int fd;
    struct loop_io *io;
    struct loop_timer timer;
    struct name *names; /* sorted */
    size_t n_names;
    size_t n_asked;
    uint32_t last_id;
    struct resolve_state *state;
};

const char *resolver_notice_name(enum resolver_notice n)
{
    static const char *const names[] = {[RESOLVER_FAILED] = "failed",
                                        [RESOLVER_RECOVERED] = "recovered",
                                        [RESOLVER_CHANGED] = "changed",
                                        [RESOLVER_GONE] = "gone"};
    return names[n];
}

/* --- the state -------------------------------------------------------------------------------- */

static size_t count_preferred(const struct net_addr *a, size_t n)
{
    size_t same = 0;
    while (same < n && a[same].sa.sa_family == a[0].sa.sa_family) {
        same++;
    }
    return same;
}

static void publish(struct resolver *r)
{
    struct resolve_state *next = mem_must_new(struct resolve_state);
    atomic_init(&next->refs, 1);
    next->n_hosts = r->n_names;
    next->hosts = (struct resolve_host *)mem_must_calloc(r->n_names + 1, sizeof(*next->hosts));
    for (size_t i = 0; i < r->n_names; i++) {
        const struct name *n = &r->names[i];
        struct resolve_host *h = &next->hosts[i];
        h->host = mem_must_strdup(n->host);
        h->n_addrs = n->n_addrs;
        h->n_preferred = count_preferred(n->addrs, n->n_addrs);
        h->addrs = (struct net_addr *)mem_must_calloc(n->n_addrs + 1, sizeof(*h->addrs));
        memcpy(h->addrs, n->addrs, n->n_addrs * sizeof(*h->addrs));
    }
    resolve_state_unref(r->state);
    r->state = next;
    r->events->on_state(r->arg, next);
}

/* --- asking ----------------------------------------------------------------------------------- */

static void gone(struct resolver *r)
{
    struct err err = ERR_INIT;
    if (r->fd == -1) {
        return;
    }
    r->io = loop_io_free(r->io);
    close(r->fd);
    r->fd = -1;
    loop_timer_disarm(&r->timer);
    err_set(&err, ERR_UNAVAILABLE, "the resolver's helper ended: names keep their addresses");
    err_advise(&err, "restart this process; the system's log says how the helper ended");
    r->events->on_notice(r->arg, RESOLVER_GONE, NULL, &err);
}

static bool ask(struct resolver *r, struct name *n)
{
    struct resolve_question q = {.version = RESOLVE_VERSION};
    q.host_len = (uint32_t)strlen(n->host);
    memcpy(q.host, n->host, q.host_len);
    r->last_id = r->last_id == UINT32_MAX ? 1 : r->last_id + 1;
    q.id = r->last_id;
    switch (ipc_send(r->fd, &q, sizeof(q), -1)) {
    case IPC_OK:
        break;
    case IPC_AGAIN:
        n->due_ms = os_now_ms() + RETRY_MIN_MS;
        return true;
    case IPC_CLOSED:
    case IPC_BAD:
        gone(r);
        return false;
    }
    n->id = q.id;
    n->due_ms = os_now_ms() + ANSWER_MS;
    r->n_asked++;
    return true;
}

static void failed(struct resolver *r, struct name *n, const char *why)
{
    struct err err = ERR_INIT;
    uint64_t pause = RETRY_MIN_MS;
    for (unsigned i = 0; i < n->failures && pause < RETRY_MAX_MS; i++) {
        pause *= 2;
    }
    n->due_ms = os_now_ms() + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
    n->failures++;
    snprintf(n->error, sizeof(n->error), "%s", why);
    if (n->failures > 1) {
        return;
    }
    err_set(&err, ERR_UNAVAILABLE, "cannot resolve %s: %s", n->host, why);
    if (n->n_addrs > 0) {
        err_advise(&err, "the last addresses that were found stay in use");
    } else {
        err_advise(&err, "connections to it wait, then are reset");
    }
    r->events->on_notice(r->arg, RESOLVER_FAILED, n->host, &err);
}

/* Asks what is due, and sleeps until something is. */
static void schedule(struct resolver *r)
{
    uint64_t now = os_now_ms();
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; r->fd != -1 && i < r->n_names; i++) {
        struct name *n = &r->names[i];
        if (n->id != 0 && n->due_ms <= now) {
            n->id = 0;
            r->n_asked--;
            failed(r, n, "the helper did not answer");
        } else if (n->id == 0 && n->due_ms <= now && r->n_asked < ASKED_MAX && !ask(r, n)) {
            return;
        }
        if (n->due_ms > now && n->due_ms < next) {
            next =
                n->due_ms; /* those that are due and found no place go when one answer is there */
        }
    }
    if (r->fd != -1 && next != UINT64_MAX) {
        loop_timer_arm(&r->timer, next - now);
    }
}

static void on_timer(void *arg)
{
    schedule((struct resolver *)arg);
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool take_address(const struct resolve_address *from, struct net_addr *ret)
{
    *ret = (struct net_addr){.len = 0};
    if (from->family == 4) {
        ret->len = sizeof(ret->in4);
        ret->in4.sin_family = AF_INET;
        memcpy(&ret->in4.sin_addr, from->bytes, 4);
        return true;
    }
    if (from->family == 6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, from->bytes, 16);
        return net_addr_from((const struct sockaddr *)&in6, sizeof(in6), ret);
    }
    return false;
}

static bool holds(const struct net_addr *list, size_t n, const struct net_addr *a)
{
    for (size_t i = 0; i < n; i++) {
        if (net_addr_same_host(&list[i], a)) {
            return true;
        }
    }
    return false;
}

/* Name servers turn the order of their answers; the same addresses are no change. */
static bool same_set(const struct name *n, const struct net_addr *next, size_t n_next)
{
    if (n->n_addrs != n_next || (n_next > 0 && n->addrs[0].sa.sa_family != next[0].sa.sa_family)) {
        return false;
    }
    for (size_t i = 0; i < n_next; i++) {
        if (!holds(n->addrs, n->n_addrs, &next[i])) {
            return false;
        }
    }
    return true;
}

static void succeeded(struct resolver *r, struct name *n, const struct resolve_answer *a)
{
    struct net_addr next[RESOLVE_ADDRS_MAX];
    size_t n_next = 0;
    for (size_t i = 0; i < a->n; i++) {
        if (take_address(&a->addrs[i], &next[n_next]) && !holds(next, n_next, &next[n_next])) {
            n_next++;
        }
    }
    if (n_next == 0) {
        failed(r, n, "the helper's answer holds no address");
        return;
    }
    uint32_t ttl_s = a->ttl_s < REFRESH_MIN_S   ? REFRESH_MIN_S
                     : a->ttl_s > REFRESH_MAX_S ? REFRESH_MAX_S
                                                : a->ttl_s;
    n->due_ms = os_now_ms() + (uint64_t)ttl_s * 1000;
    bool recovered = n->failures > 0;
    n->failures = 0;
    n->error[0] = '\0';
    if (recovered) {
        r->events->on_notice(r->arg, RESOLVER_RECOVERED, n->host, NULL);
    }
    if (!same_set(n, next, n_next)) {
        bool first = n->n_addrs == 0;
        memcpy(n->addrs, next, n_next * sizeof(next[0]));
        n->n_addrs = n_next;
        if (!first) {
            r->events->on_notice(r->arg, RESOLVER_CHANGED, n->host, NULL);
        }
        publish(r);
    }
}

static void take_answer(struct resolver *r, const struct resolve_answer *a)
{
    static const char *const reasons[RESOLVE_N_RESULTS] = {
        [RESOLVE_NO_NAME] = "there is no such name",
        [RESOLVE_NO_ADDRESS] = "the name has no address",
        [RESOLVE_FAILURE] = "no name server gave an answer",
        [RESOLVE_BROKEN] = "the resolver cannot work: /etc/resolv.conf cannot be read",
    };
    for (size_t i = 0; i < r->n_names; i++) {
        struct name *n = &r->names[i];
        if (n->id != a->id) {
            continue;
        }
        n->id = 0;
        r->n_asked--;
        if (a->result == RESOLVE_OK) {
            succeeded(r, n, a);
        } else {
            failed(r, n, reasons[a->result]);
        }
        return;
    }
    /* Of a question that was given up, or of a name that is not needed any more. */
}

static void on_readable(void *arg, unsigned ready)
{
    struct resolver *r = (struct resolver *)arg;
    struct resolve_answer a;
    (void)ready;
    for (unsigned i = 0; i < ASKED_MAX && r->fd != -1; i++) {
        size_t len = 0;
        int passed = -1;
        enum ipc_outcome o = ipc_recv(r->fd, &a, sizeof(a), &len, &passed);
        if (passed != -1) {
            close(passed);
        }
        if (o == IPC_AGAIN) {
            break;
        }
        if (o != IPC_OK || passed != -1 || len != sizeof(a) || a.version != RESOLVE_VERSION ||
            a.id == 0 || a.result >= RESOLVE_N_RESULTS || a.n > RESOLVE_ADDRS_MAX) {
            gone(r); /* what breaks the protocol is not listened to any more */
            return;
        }
        take_answer(r, &a);
    }
    schedule(r);
}

/* --- names ------------------------------------------------------------------------------------ */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->host, ((const struct name *)b)->host);
}

static struct name *find_name(struct name *names, size_t n, const char *host)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i].host, host) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

void resolver_set_names(struct resolver *r, const char *const *names, size_t n)
{
    struct name *next = (struct name *)mem_must_calloc(n + 1, sizeof(*next));
    size_t n_next = 0;
    for (size_t i = 0; i < n; i++) {
        if (find_name(next, n_next, names[i]) != NULL) {
            continue;
        }
        struct name *old = find_name(r->names, r->n_names, names[i]);
        if (old != NULL) {
            next[n_next] = *old;
        }
        next[n_next++].host = mem_must_strdup(names[i]);
    }
    qsort(next, n_next, sizeof(*next), compare_names);
    for (size_t i = 0; i < r->n_names; i++) {
        if (r->names[i].id != 0 && find_name(next, n_next, r->names[i].host) == NULL) {
            r->n_asked--;
        }
        free(r->names[i].host);
    }
    free(r->names);
    r->names = next;
    r->n_names = n_next;
    publish(r);
    schedule(r);
}

bool resolver_alive(const struct resolver *r)
{
    return r->fd != -1;
}

size_t resolver_count(const struct resolver *r)
{
    return r->n_names;
}

void resolver_get_status(const struct resolver *r, size_t i, struct resolver_status *ret)
{
    const struct name *n = &r->names[i];
    *ret = (struct resolver_status){.host = n->host,
                                    .n_addrs = n->n_addrs,
                                    .failures_in_row = n->failures,
                                    .next_ms = n->due_ms};
    memcpy(ret->error, n->error, sizeof(ret->error));
}

/* --- life ------------------------------------------------------------------------------------- */

struct resolver *resolver_new_on(struct loop *loop, int fd, const struct resolver_events *events,
                                 void *arg, struct err *err)
{
    struct resolver *r = mem_must_new(struct resolver);
    r->loop = loop;
    r->events = events;
    r->arg = arg;
    r->fd = fd;
    loop_timer_init(&r->timer, loop, on_timer, r);
    r->io = loop_io_new(loop, fd, on_readable, r);
    if (r->io == NULL) {
        err_set(err, ERR_SYSTEM, "no memory for the resolver");
        return resolver_free(r);
    }
    loop_io_want(r->io, LOOP_READ);
    return r;
}

struct resolver *resolver_new(struct loop *loop, const struct resolver_events *events, void *arg,
                              struct err *err)
{
    static const char *const kept[] = {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    static const char name[] = "postern-resolver";
    const char *argv[] = {name, NULL};
    const char *env[sizeof(kept) / sizeof(kept[0]) + 1] = {NULL};
    char *store[sizeof(kept) / sizeof(kept[0])] = {NULL};
    char path[4096];
    int pair[2];
    if (proc_helper_path(name, path, sizeof(path), err) == -1 || ipc_pair(pair, err) == -1) {
        return NULL;
    }
    size_t n_env = 0;
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        const char *value = secure_getenv(kept[i]);
        if (value != NULL) {
            store[n_env] = mem_must_printf("%s=%s", kept[i], value);
            env[n_env] = store[n_env];
            n_env++;
        }
    }
    struct proc_spec spec = {.path = path,
                             .argv = argv,
                             .env = env,
                             .fds = {pair[1]},
                             .n_fds = 1,
                             .parent_death_signal = SIGKILL};
    pid_t pid = 0;
    int pidfd = -1;
    int rc = proc_spawn(&spec, &pid, &pidfd, err);
    for (size_t i = 0; i < n_env; i++) {
        free(store[i]);
    }
    close(pair[1]);
    if (rc == -1) {
        close(pair[0]);
        return NULL;
    }
    close(pidfd); /* its channel says when it has ended */
    return resolver_new_on(loop, pair[0], events, arg, err);
}

struct resolver *resolver_free(struct resolver *r)
{
    if (r == NULL) {
        return NULL;
    }
    loop_timer_disarm(&r->timer);
    r->io = loop_io_free(r->io);
    if (r->fd != -1) {
        close(r->fd); /* the helper ends at that; nobody waits for it */
    }
    for (size_t i = 0; i < r->n_names; i++) {
        free(r->names[i].host);
    }
    free(r->names);
    resolve_state_unref(r->state);
    free(r);
    return NULL;
}
