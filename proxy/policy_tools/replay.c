/* replay: what was decided, decided again by another policy. Logs hold no query, no headers and no
 * claims: what a rule asks about these is not known, which denies. So a second policy that asks
 * nothing about them tells whether it is sure. */
#include <postern/policy_tools.h>

#include <jansson.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "tally.h"

enum { MISS_MAX = 400, KEY_MAX = 16384 };

/* A caller, what it called, and how the verdict changes. */
struct edge {
    char *target, *peer, *method; /* owned; method NULL: a connection */
    char *rule_then, *rule_now;   /* owned; NULL: none */
    char *example;                /* owned: the first path, or NULL */
    char *decision;               /* owned: its id, or NULL */
    char *near_miss;              /* owned: why it is denied now; NULL: it is allowed now */
    uint16_t port;
    bool allowed_now, sure;
    size_t n;
};

struct policy_replay {
    const struct policy *policy; /* lent */
    struct policy *open; /* owned: asks nothing that logs do not hold; NULL: so does policy */
    int64_t now_s;
    struct policy_replay_count count;
    struct tally edges; /* of: struct edge, owned */
};

/* --- the policy that asks less -----------------------------------------------------------------
 */
/* Shallow: what is left is lent. Rules that deny by what is not known are as if they were not. */
static struct policy *make_open(const struct conf_policy *conf, struct err *err)
{
    struct conf_policy less = *conf;
    size_t n_to = 0;
    size_t n_from = 0;
    for (size_t i = 0; i < conf->n_rules; i++) {
        n_to += conf->rules[i].n_to;
        n_from += conf->rules[i].n_from;
    }
    mem_autofree struct conf_rule *rules = mem_must_calloc(conf->n_rules + 1, sizeof(*rules));
    mem_autofree struct conf_policy_to *to = mem_must_calloc(n_to + 1, sizeof(*to));
    mem_autofree struct conf_policy_from *from = mem_must_calloc(n_from + 1, sizeof(*from));
    size_t at_to = 0;
    size_t at_from = 0;
    less.rules = rules;
    less.n_rules = 0;
    for (size_t i = 0; i < conf->n_rules; i++) {
        struct conf_rule r = conf->rules[i];
        bool denies = r.action == CONF_DENY;
        struct conf_policy_to *first_to = to + at_to;
        struct conf_policy_from *first_from = from + at_from;
        for (size_t k = 0; k < r.n_to; k++) {
            struct conf_policy_to t = r.to[k];
            bool asks = t.query.n + t.not_query.n + t.headers.n + t.not_headers.n > 0;
            memset(&t.query, 0, sizeof(t.query));
            memset(&t.not_query, 0, sizeof(t.not_query));
            memset(&t.headers, 0, sizeof(t.headers));
            memset(&t.not_headers, 0, sizeof(t.not_headers));
            if (!asks || !denies) {
                to[at_to++] = t;
            }
        }
        for (size_t k = 0; k < r.n_from; k++) {
            struct conf_policy_from f = r.from[k];
            bool asks = f.claims.n + f.not_claims.n > 0;
            memset(&f.claims, 0, sizeof(f.claims));
            memset(&f.not_claims, 0, sizeof(f.not_claims));
            if (!asks || !denies) {
                from[at_from++] = f;
            }
        }
        size_t left_to = (size_t)(to + at_to - first_to);
        size_t left_from = (size_t)(from + at_from - first_from);
        if ((r.n_to == 0 || left_to > 0) && (r.n_from == 0 || left_from > 0)) {
            r.to = first_to;
            r.n_to = left_to;
            r.from = first_from;
            r.n_from = left_from;
            rules[less.n_rules++] = r;
        }
    }
    return policy_new(&less, err);
}

struct policy_replay *policy_replay_new(const struct conf_policy *conf, const struct policy *p,
                                        int64_t now_s, struct err *err)
{
    struct policy_replay *r = mem_must_new(struct policy_replay);
    struct policy_needs needs = policy_needs(p);
    r->policy = p;
    r->now_s = now_s;
    if (needs.query || needs.headers || needs.claims) {
        r->open = make_open(conf, err);
        if (r->open == NULL) {
            return policy_replay_free(r);
        }
    }
    return r;
}

struct policy_replay *policy_replay_free(struct policy_replay *r)
{
    if (r == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < r->edges.n; i++) {
        struct edge *e = r->edges.items[i].of;
        free(e->target);
        free(e->peer);
        free(e->method);
        free(e->rule_then);
        free(e->rule_now);
        free(e->example);
        free(e->decision);
        free(e->near_miss);
        free(e);
    }
    tally_deinit(&r->edges);
    policy_free(r->open);
    free(r);
    return NULL;
}

void policy_replay_counts(const struct policy_replay *r, struct policy_replay_count *ret)
{
    *ret = r->count;
}

/* --- deciding ----------------------------------------------------------------------------------
 */
static char *dup_or_null(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

static void note(struct policy_replay *r, const struct policy_record *record,
                 const struct policy_verdict *now, bool sure)
{
    const struct policy_query *q = &record->query;
    struct buf key = BUF_INIT(KEY_MAX);
    bool fits = buf_append_str(&key, q->target) && buf_append(&key, "", 1) &&
                buf_append_str(&key, q->peer) &&
                buf_printf(&key, "%c%u %d %d %d%c", 0, q->port, q->http, now->allow, sure, 0) &&
                buf_append_str(&key, q->method) &&
                buf_printf(&key, "%c%s%c%s", 0, record->rule != NULL ? record->rule : "", 0,
                           now->rule != NULL ? now->rule : "");
    size_t at = fits ? tally_take(&r->edges, buf_str(&key)) : SIZE_MAX;
    buf_reset(&key);
    if (at == SIZE_MAX) {
        r->count.too_many = true;
        return;
    }
    struct edge *e = r->edges.items[at].of;
    if (e == NULL) {
        e = mem_must_new(struct edge);
        r->edges.items[at].of = e;
        e->target = mem_must_strndup(q->target.p, q->target.n);
        e->peer = mem_must_strndup(q->peer.n > 0 ? q->peer.p : "", q->peer.n);
        e->method = q->http ? mem_must_strndup(q->method.p, q->method.n) : NULL;
        e->rule_then = dup_or_null(record->rule);
        e->rule_now = dup_or_null(now->rule);
        e->example = q->http ? mem_must_strndup(q->path.p, q->path.n) : NULL;
        e->decision = dup_or_null(record->decision);
        e->port = q->port;
        e->allowed_now = now->allow;
        e->sure = sure;
        if (!now->allow) {
            char text[MISS_MAX];
            policy_near_miss(r->policy, q, text, sizeof(text));
            e->near_miss = mem_must_strdup(text);
        }
    }
    e->n++;
}

void policy_replay_add(struct policy_replay *r, const struct policy_record *record)
{
    struct policy_query q = record->query;
    struct policy_verdict now = {.allow = false};
    struct policy_verdict open = {.allow = false};
    q.now_s = r->now_s;
    policy_decide(r->policy, &q, &now);
    open = now;
    if (r->open != NULL && !now.allow && q.http) {
        policy_decide(r->open, &q, &open);
    }
    bool sure = now.allow == open.allow && !record->path_cut;
    bool same = now.allow == record->allowed;
    r->count.decisions++;
    if (same && sure) {
        return;
    }
    if (same && record->path_cut && now.allow == open.allow) {
        return; /* by what is known of the path it stays as it is */
    }
    if (sure) {
        r->count.changed++;
    } else {
        r->count.maybe++;
    }
    note(r, record, &now, sure);
}

/* --- telling -----------------------------------------------------------------------------------
 */
/* Most often first, then by name. */
static int compare_edges(const void *pa, const void *pb)
{
    const struct edge *a = *(const struct edge *const *)pa;
    const struct edge *b = *(const struct edge *const *)pb;
    if (a->n != b->n) {
        return a->n > b->n ? -1 : 1;
    }
    int r = strcmp(a->target, b->target);
    r = r != 0 ? r : strcmp(a->peer, b->peer);
    return r != 0 ? r : a->port < b->port ? -1 : a->port > b->port;
}

static const char *change_word(const struct edge *e)
{
    if (!e->sure) {
        return e->allowed_now ? "may be allowed" : "may be denied";
    }
    return e->allowed_now ? "would be allowed" : "would be denied";
}

static bool print_edge(const struct edge *e, struct buf *out)
{
    bool ok = buf_printf(out, "%s  %zu  %s -> %s port %u %s", change_word(e), e->n,
                         e->peer[0] != '\0' ? e->peer : "(no identity)", e->target, e->port,
                         e->method != NULL ? e->method : "connection");
    if (e->rule_then != NULL) {
        ok = ok && buf_printf(out, "\n    then by rule \"%s\"", e->rule_then);
    }
    if (e->rule_now != NULL) {
        ok = ok && buf_printf(out, "\n    now by rule \"%s\"", e->rule_now);
    } else if (e->near_miss != NULL) {
        ok = ok && buf_printf(out, "\n    now by none: %s", e->near_miss);
    }
    if (e->example != NULL) {
        ok = ok && buf_printf(out, "\n    such as %s", e->example);
    }
    if (e->decision != NULL) {
        ok = ok && buf_printf(out, "%s decision %s", e->example != NULL ? "," : "\n    such as",
                              e->decision);
    }
    return ok && buf_printf(out, "\n");
}

static json_t *edge_json(const struct edge *e)
{
    return json_pack("{s:b, s:b, s:I, s:s, s:s, s:i, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}",
                     "allowed_now", e->allowed_now, "sure", e->sure, "count", (json_int_t)e->n,
                     "target", e->target, "peer", e->peer, "port", (int)e->port, "method",
                     e->method, "rule_then", e->rule_then, "rule_now", e->rule_now, "path",
                     e->example, "decision", e->decision, "near_miss", e->near_miss);
}

static int write_json(const char *text, size_t n, void *out)
{
    return buf_append(out, text, n) ? 0 : -1;
}

bool policy_replay_print(const struct policy_replay *r, bool json, struct buf *out)
{
    mem_autofree struct edge **edges = mem_must_calloc(r->edges.n + 1, sizeof(*edges));
    for (size_t i = 0; i < r->edges.n; i++) {
        edges[i] = r->edges.items[i].of;
    }
    qsort(edges, r->edges.n, sizeof(*edges), compare_edges);
    if (json) {
        json_t *list = json_array();
        for (size_t i = 0; i < r->edges.n; i++) {
            json_array_append_new(list, edge_json(edges[i]));
        }
        json_t *doc = json_pack("{s:I, s:I, s:I, s:o}", "decisions", (json_int_t)r->count.decisions,
                                "changed", (json_int_t)r->count.changed, "maybe",
                                (json_int_t)r->count.maybe, "changes", list);
        bool ok =
            json_dump_callback(doc, write_json, out, JSON_INDENT(2)) == 0 && buf_printf(out, "\n");
        json_decref(doc);
        return ok;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < r->edges.n; i++) {
        ok = print_edge(edges[i], out);
    }
    return ok && buf_printf(out, "%zu decisions, %zu would change, %zu may\n", r->count.decisions,
                            r->count.changed, r->count.maybe);
}
