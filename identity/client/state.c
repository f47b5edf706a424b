/*
 * Identity states, names for log lines, and where the agent's socket is.
 */
#include <postern/identity_client.h>

#include "identity_client_priv.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/un.h>

/* What is behind a struct identity_state. */
struct counted_state {
    struct identity_state public;
    struct x509_svid *svid;   /* owned */
    struct x509_trust *trust; /* one reference */
    char **offered;           /* owned; may be NULL */
    atomic_uint refs;
};

static struct counted_state *counted(const struct identity_state *state)
{
    /* The count is the one thing that changes in what is otherwise immutable. */
    return (struct counted_state *)((uintptr_t)state - offsetof(struct counted_state, public));
}

char **client_offered_dup(char *const *offered)
{
    size_t n = 0;
    if (offered == NULL) {
        return NULL;
    }
    while (offered[n] != NULL) {
        n++;
    }
    char **dup = mem_must_calloc(n + 1, sizeof(*dup));
    for (size_t i = 0; i < n; i++) {
        dup[i] = mem_must_strdup(offered[i]);
    }
    return dup;
}

void client_offered_free(char **offered)
{
    for (size_t i = 0; offered != NULL && offered[i] != NULL; i++) {
        free(offered[i]);
    }
    free(offered);
}

struct identity_state *client_state_new(struct x509_svid *svid, struct x509_trust *trust,
                                        char **offered, const struct identity_state *what)
{
    struct counted_state *c = mem_must_new(struct counted_state);
    c->svid = svid;
    c->trust = trust;
    c->offered = offered;
    atomic_init(&c->refs, 1);
    c->public = *what;
    c->public.svid = svid;
    c->public.trust = trust;
    c->public.offered = offered;
    return &c->public;
}

struct identity_state *identity_state_ref(const struct identity_state *state)
{
    struct counted_state *c = counted(state);
    unsigned before = atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    POSTERN_ASSERT(before > 0);
    return &c->public;
}

struct identity_state *identity_state_unref(struct identity_state *state)
{
    if (state != NULL) {
        struct counted_state *c = counted(state);
        if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) {
            x509_svid_free(c->svid);
            x509_trust_unref(c->trust);
            client_offered_free(c->offered);
            free(c);
        }
    }
    return NULL;
}

const char *identity_notice_name(enum identity_notice notice)
{
    static const char *const names[] = {
        [IDENTITY_RENEWED] = "renewed",       [IDENTITY_TRUST_CHANGED] = "trust_changed",
        [IDENTITY_FELL_BACK] = "fell_back",   [IDENTITY_AGENT_AWAY] = "agent_away",
        [IDENTITY_AGENT_BACK] = "agent_back", [IDENTITY_DENIED] = "denied",
        [IDENTITY_GAVE_UP] = "gave_up",       [IDENTITY_BAD_ANSWER] = "bad_answer",
        [IDENTITY_EXPIRED] = "expired",
    };
    return (size_t)notice < sizeof(names) / sizeof(names[0]) ? names[notice] : "?";
}

/* SPIFFE_Workload_Endpoint.md section 4: "unix:///abs/path", no authority, query or fragment;
 * clients in the wild also write "unix:/abs/path". */
static int path_of(struct str text, struct str *ret, struct err *err)
{
    struct str rest = text;
    if (str_has_prefix(text, STR_LIT("tcp:"))) {
        err_set(err, ERR_UNSUPPORTED, "'%.*s': agents are reached by Unix sockets only",
                STR_ARG(text));
        return err_expected(err, "unix:/path/of/the/agent.sock");
    }
    if (str_has_prefix(text, STR_LIT("unix:"))) {
        rest = (struct str){text.p + 5, text.n - 5};
        if (str_has_prefix(rest, STR_LIT("//"))) {
            rest = (struct str){rest.p + 2, rest.n - 2};
        }
    }
    if (rest.n == 0 || rest.p[0] != '/' || memchr(rest.p, '?', rest.n) != NULL ||
        memchr(rest.p, '#', rest.n) != NULL) {
        err_set(err, ERR_CONFIG, "'%.*s' is not the address of an agent", STR_ARG(text));
        return err_expected(err, "unix:/path/of/the/agent.sock");
    }
    *ret = rest;
    return 0;
}

int identity_socket_path(const char *text, char *ret_path, size_t size, struct err *err)
{
    struct str path = STR_NONE;

    const char *from = text;
    if (from == NULL) {
        /* Read at start, before there is a second thread that could change it. */
        from = getenv("SPIFFE_ENDPOINT_SOCKET"); /* NOLINT(concurrency-mt-unsafe) */
    }
    if (from == NULL || from[0] == '\0') {
        err_set(err, ERR_CONFIG, "no agent is named");
        return err_advise(err, "name its socket, or set SPIFFE_ENDPOINT_SOCKET");
    }
    if (path_of(str_of(from), &path, err) == -1 || path.p == NULL) {
        return -1;
    }
    if (path.n >= size || path.n >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        return err_set(err, ERR_CONFIG, "'%.100s...': longer than a socket's path can be", from);
    }
    memcpy(ret_path, path.p, path.n);
    ret_path[path.n] = '\0';
    return 0;
}
