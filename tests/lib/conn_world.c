/* Whole connections in a test. */
#include "conn_world.h"

#include "held_port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <postern/limit.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* --- one side --------------------------------------------------------------------------------- */

static void write_in(const char *dir, const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

void side_write(const struct side *s, const char *name, const char *text)
{
    write_in(s->dir, name, text);
}

struct snapshot_files *side_load(struct side *s)
{
    char path[160];
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    struct snapshot_files *files = NULL;
    struct err err = ERR_INIT;
    snprintf(path, sizeof(path), "%s/proxy.yaml", s->dir);
    if (conf_load_proxy(path, diag, &conf) == -1 ||
        snapshot_files_new(conf, ++s->generation, diag, &files, &err) == -1) {
        char text[1000] = "";
        if (conf_diag_count(diag) > 0) {
            err_text(conf_diag_get(diag, 0), text, sizeof(text));
        }
        fail_msg("%s %s", err.what, text);
    }
    conf_diag_free(diag);
    return files;
}

static struct snapshot *make_snapshot(struct side *s)
{
    struct balance_state *b =
        snapshot_balance(s->balance, s->files, NULL, s->resolved, os_now_ms());
    struct snapshot *snap =
        snapshot_new(++s->generation, &(const struct snapshot_parts){.files = s->files,
                                                                     .identity = s->identity,
                                                                     .balance = b,
                                                                     .claims = s->claims,
                                                                     .strict = s->strict});
    balance_state_unref(b);
    return snap;
}

void side_post(struct side *s)
{
    struct snapshot *snap = make_snapshot(s);
    conn_worker_post_snapshot(s->worker, snap);
    snapshot_unref(snap);
}

static void reload(struct side *s)
{
    snapshot_files_unref(s->files);
    s->files = side_load(s);
    side_post(s);
}

void side_policy(struct side *s, const char *policy)
{
    side_write(s, "policy.yaml", policy);
    reload(s);
}

void side_settled(struct side *s)
{
    const struct conn_counters *n = conn_worker_counters(s->worker);
    uint64_t end = os_now_ms() + WAIT_MS;
    while (atomic_load((_Atomic uint64_t *)(uintptr_t)&n->generation) != s->generation) {
        assert_true(os_now_ms() < end);
        (void)poll(NULL, 0, 2);
    }
}

void side_mesh(struct side *s, const char *mesh)
{
    side_write(s, "mesh.yaml", mesh);
    reload(s);
    side_settled(s);
}

void side_start(struct side *s, const char *conf, const char *policy)
{
    struct err err = ERR_INIT;
    strcpy(s->dir, "/tmp/postern-test-conn-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    write_in(s->dir, "proxy.yaml", conf);
    if (policy != NULL) {
        write_in(s->dir, "policy.yaml", policy);
    }
    if (s->mesh != NULL) {
        write_in(s->dir, "mesh.yaml", s->mesh);
    }
    s->balance = balance_new();
    s->files = side_load(s);
    s->log_wake = eventfd(0, EFD_NONBLOCK);
    snprintf(s->log_path, sizeof(s->log_path), "%s/log", s->dir);
    FILE *f = fopen(s->log_path, "w+");
    s->log_fd = dup(fileno(f));
    fclose(f);
    struct snapshot *snap = make_snapshot(s);
    s->shared.rates = limit_table_new(64);
    struct conn_worker_spec spec = {.role = "proxy",
                                    .n_workers = 1,
                                    .shared = &s->shared,
                                    .first = snap,
                                    .log_wake_fd = s->log_wake};
    if (conn_worker_new(&spec, &s->worker, &err) == -1 ||
        conn_worker_start(s->worker, &err) == -1) {
        fail_msg("%s", err.what);
    }
    snapshot_unref(snap);
}

void side_stop(struct side *s)
{
    char path[160];
    conn_worker_stop(s->worker);
    conn_worker_free(s->worker);
    snapshot_files_unref(s->files);
    snapshot_identity_unref(s->identity);
    balance_free(s->balance);
    assert_int_equal(s->shared.open, 0);
    s->shared.rates = limit_table_free(s->shared.rates);
    close(s->log_wake);
    close(s->log_fd);
    static const char *const names[] = {"proxy.yaml", "policy.yaml", "mesh.yaml", "log"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", s->dir, names[i]);
        unlink(path);
    }
    rmdir(s->dir);
}

/* Waits until a line of the log holds all of the words, and returns it. */
char *log_line(struct side *s, const char *a, const char *b)
{
    static char text[1 << 20];
    uint64_t end = os_now_ms() + WAIT_MS;
    while (os_now_ms() < end) {
        log_drain(conn_worker_log(s->worker), s->log_fd);
        ssize_t n = pread(s->log_fd, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        char *save = NULL;
        for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save)) {
            if (strstr(l, a) != NULL && strstr(l, b) != NULL) {
                return l;
            }
        }
        struct pollfd p = {.fd = s->log_wake, .events = POLLIN};
        poll(&p, 1, 20);
        uint64_t drop;
        (void)!read(s->log_wake, &drop, sizeof(drop));
    }
    fail_msg("no line with %s and %s", a, b);
    return NULL;
}

/* --- the world -------------------------------------------------------------------------------- */

static int listen_any(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

struct snapshot_identity *make_identity(struct world *w, const char *id)
{
    struct certs_spec spec = certs_leaf(id);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + 3600;
    struct certs_pair leaf = certs_make(&spec, &w->root);
    size_t len = 0;
    uint8_t *der = certs_der(&leaf.cert, 1, &len);
    struct x509_svid *svid = NULL;
    struct snapshot_identity *i = NULL;
    struct err err = ERR_INIT;
    if (x509_svid_new((struct str){(char *)der, len}, leaf.key, &svid, &err) == -1 ||
        snapshot_identity_new(svid, w->trust, NULL, &i, &err) == -1) {
        fail_msg("%s", err.what);
    }
    x509_svid_free(svid);
    free(der);
    certs_free(&leaf);
    return i;
}

static struct world *make_world(int workload, uint16_t backend, const char *listener,
                                const char *client, const char *policy, bool identities)
{
    struct world *w = calloc(1, sizeof(*w));
    struct certs_spec spec = certs_ca("spiffe://a.b");
    spec.not_before_s = os_wall_s() - 3600;
    spec.not_after_s = os_wall_s() + 86400;
    w->root = certs_make(&spec, NULL);
    w->trust = x509_trust_new();
    size_t len = 0;
    uint8_t *der = certs_der(&w->root.cert, 1, &len);
    assert_int_equal(x509_trust_add(w->trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    free(der);
    w->workload = workload;
    w->backend = backend;
    w->held[0] = held_port(&w->port);
    w->held[1] = held_port(&w->tls);
    if (identities) {
        w->client.identity = make_identity(w, "spiffe://a.b/client");
        w->server.identity = make_identity(w, "spiffe://a.b/server");
    }
    char conf[2000];
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: server\nidentity:\n  socket: unix:/nowhere\n%s"
             "listeners:\n  - name: in\n    direction: inbound\n"
             "    address: 127.0.0.1:%u\n%s\n%s",
             policy != NULL ? "policy: policy.yaml\n" : "", w->tls, listener,
             strstr(listener, "\ntimeouts:") == NULL
                 ? "timeouts:\n  handshake: 2s\n  request_head: 1s\n"
                 : "");
    side_start(&w->server, conf, policy);
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: client\nidentity:\n  socket: unix:/nowhere\n"
             "  wait: 2s\nlisteners:\n  - name: out\n    direction: outbound\n"
             "    capture: explicit\n    address: 127.0.0.1:%u\n    to: 127.0.0.1:%u\n"
             "    identities: [\"spiffe://a.b/server\"]\n    protocol: tcp\n%s",
             w->port, w->tls, client);
    side_start(&w->client, conf, NULL);
    return w;
}

static struct world *make_explicit(const char *protocol, const char *client, const char *policy,
                                   bool identities)
{
    char listener[1600];
    uint16_t backend = 0;
    int fd = listen_any(&backend);
    snprintf(listener, sizeof(listener),
             "    capture: explicit\n    to: 127.0.0.1:%u\n    protocol: %s", backend, protocol);
    return make_world(fd, backend, listener, client, policy, identities);
}

struct world *world_new_both(const char *protocol, const char *client, const char *policy)
{
    return make_explicit(protocol, client, policy, true);
}

struct world *world_new_explicit(const char *protocol, const char *policy, bool identities)
{
    return make_explicit(protocol, "", policy, identities);
}

struct world *world_new(const char *listener, const char *policy, bool identities)
{
    uint16_t backend = 0;
    int fd = listen_any(&backend);
    return make_world(fd, backend, listener, "", policy, identities);
}

void world_free(struct world *w)
{
    side_stop(&w->client);
    side_stop(&w->server);
    close(w->workload);
    close(w->held[0]);
    close(w->held[1]);
    certs_free(&w->root);
    x509_trust_unref(w->trust);
    free(w);
}

static void set_timeouts(int fd)
{
    struct timeval t = {.tv_sec = WAIT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

int dial(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    set_timeouts(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

int take(struct world *w)
{
    struct pollfd p = {.fd = w->workload, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    int fd = accept(w->workload, NULL, NULL);
    assert_int_not_equal(fd, -1);
    set_timeouts(fd);
    return fd;
}

bool nobody_came(struct world *w)
{
    struct pollfd p = {.fd = w->workload, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

void hear(int fd, const char *text)
{
    char got[4096];
    size_t n = 0;
    while (n < strlen(text)) {
        ssize_t r = recv(fd, got + n, strlen(text) - n, 0);
        if (r <= 0) {
            fail_msg("instead of '%s': %s", text, r == 0 ? "the end" : strerror(errno));
        }
        n += (size_t)r;
    }
    got[n] = '\0';
    assert_string_equal(got, text);
}

void hear_end(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, 0);
    if (n != 0) {
        fail_msg("instead of the end: %s", n > 0 ? "a byte" : strerror(errno));
    }
}

void hear_reset(int fd)
{
    char c;
    ssize_t n;
    while ((n = recv(fd, &c, 1, 0)) > 0) {
    }
    if (n != -1 || errno != ECONNRESET) {
        fail_msg("instead of a reset: %s", n == 0 ? "the end" : strerror(errno));
    }
    close(fd);
}

/* Everything until the end, or until the text has come. */
const char *hear_until(int fd, const char *text)
{
    static char got[65536];
    size_t n = 0;
    for (;;) {
        ssize_t r = recv(fd, got + n, sizeof(got) - 1 - n, 0);
        n += r > 0 ? (size_t)r : 0;
        got[n] = '\0';
        if (r <= 0 || strstr(got, text) != NULL) {
            return got;
        }
    }
}

void expect_in(const char *text, const char *part)
{
    assert_non_null(text);
    assert_non_null(part);
    if (strstr(text, part) == NULL) {
        fail_msg("no '%s' in '%s'", part, text);
    }
}
