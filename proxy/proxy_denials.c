/*
 * What `postern policy explain --proxy` asks of a running data plane: whom its workers have denied
 * last, and what the policies say that decide. docs/policy-tools.md.
 *
 * A denial is a line as the audit log has it, with the fields that rules speak of beside; texts are
 * strangers', and what is no UTF-8 in them is told as logs tell it.
 */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/denials.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_asked.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LISTED_MAX = 200,          /* denials in one answer */
    POLICY_TEXT_MAX = 8 << 20, /* of a file, in one answer */
};

/* --- a denial --------------------------------------------------------------------------------- */

/* What is no UTF-8 becomes U+0080 to U+00FF, and *inexact. */
static json_t *outside(struct str s, bool *inexact)
{
    json_t *j = json_stringn(s.n > 0 ? s.p : "", s.n);
    if (j != NULL) {
        return j;
    }
    size_t n = 0;
    mem_autofree char *wide = mem_must_calloc(2 * s.n + 1, 1);
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c >= 0x80) {
            wide[n++] = (char)(0xc0 | c >> 6);
            c = 0x80 | (c & 0x3fU);
        }
        wide[n++] = (char)c;
    }
    *inexact = true;
    return json_stringn(wide, n);
}

static void put(json_t *o, const char *key, struct str s, bool *inexact)
{
    if (s.n > 0) {
        json_object_set_new(o, key, outside(s, inexact));
    }
}

static json_t *time_of(uint64_t ms)
{
    char whole[32], text[48];
    os_time_text((int64_t)(ms / 1000), whole, sizeof(whole));
    whole[strcspn(whole, "Z")] = '\0';
    (void)snprintf(text, sizeof(text), "%s.%03uZ", whole, (unsigned)(ms % 1000));
    return json_string(text);
}

static json_t *summary(const struct denial *d, unsigned worker, bool *inexact)
{
    char conn[40];
    (void)snprintf(conn, sizeof(conn), "%u-%llu", worker, (unsigned long long)d->conn);
    json_t *o = json_object();
    json_object_set_new(o, "ts", time_of(d->ts_ms));
    json_object_set_new(o, "event", json_string(d->request ? "request" : "connection"));
    put(o, "decision", d->decision, inexact);
    json_object_set_new(o, "conn", json_string(conn));
    json_object_set_new(o, "direction", json_string("inbound"));
    put(o, "listener", d->listener, inexact);
    json_object_set_new(o, "generation", json_integer((json_int_t)d->generation));
    put(o, "own_id", d->own_id, inexact);
    put(o, "peer_id", d->peer_id, inexact);
    put(o, "source", d->source, inexact);
    json_object_set_new(o, "port", json_integer(d->port));
    put(o, "protocol", d->protocol, inexact);
    put(o, "method", d->method, inexact);
    put(o, "host", d->host, inexact);
    put(o, "path", d->path, inexact);
    json_object_set_new(o, "verdict", json_string("deny"));
    put(o, "reason", d->reason, inexact);
    put(o, "rule", d->rule, inexact);
    return o;
}

/* Of one kind; NULL: not all are kept with their values. */
static json_t *fields(const struct denial *d, enum denial_field_kind kind, json_t *withheld,
                      bool *inexact)
{
    json_t *a = json_array();
    bool whole = true;
    for (size_t i = 0; i < d->n_fields; i++) {
        const struct denial_field *f = &d->fields[i];
        if (f->kind != kind) {
            continue;
        }
        if (f->withheld) {
            json_array_append_new(withheld, outside(f->name, inexact));
            whole = false;
        } else {
            json_array_append_new(
                a, json_pack("[o,o]", outside(f->name, inexact), outside(f->value, inexact)));
        }
    }
    if (!whole) {
        json_decref(a);
        a = NULL;
    }
    return a;
}

static json_t *whole(const struct proxy *p, const struct denial *d, unsigned worker)
{
    bool inexact = false;
    json_t *o = summary(d, worker, &inexact);
    json_t *withheld = json_array();
    json_t *headers = fields(d, DENIAL_HEADER, withheld, &inexact);
    json_t *claims = fields(d, DENIAL_CLAIM, withheld, &inexact);
    json_decref(fields(d, DENIAL_PARAMETER, withheld, &inexact));
    if (d->query_known) {
        json_object_set_new(o, "query", outside(d->query, &inexact));
    }
    if (d->headers_known && headers != NULL && !d->fields_cut) {
        json_object_set(o, "headers", headers);
    }
    if (d->claims_known && claims != NULL && !d->fields_cut) {
        json_object_set(o, "claims", claims);
    }
    json_decref(headers);
    json_decref(claims);
    if (d->grpc) {
        json_object_set_new(o, "grpc", json_true());
    }
    if (json_array_size(withheld) > 0) {
        json_object_set(o, "withheld", withheld);
    }
    json_decref(withheld);
    json_object_set_new(o, "cut", json_boolean(d->path_cut || d->fields_cut));
    json_object_set_new(o, "inexact", json_boolean(inexact));
    json_object_set_new(o, "other_reading", json_boolean(d->other_reading));
    bool changed = d->files_generation != p->files->generation ||
                   d->state_generation != (p->state != NULL ? p->state->generation : 0);
    json_object_set_new(o, "policy_changed", json_boolean(changed));
    return o;
}

static bool write_out(json_t *o, struct buf *out)
{
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    bool ok = text != NULL && buf_printf(out, "%s\n", text);
    free(text);
    json_decref(o);
    return ok;
}

bool proxy_report_denial(void *arg, struct str id, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    mem_autofree struct denial_copy *copy = mem_must_new(struct denial_copy);
    for (unsigned i = 0; i < p->n_workers; i++) {
        const struct denials *d = conn_worker_denials(p->workers[i]);
        for (size_t back = 0; back < denials_count(d); back++) {
            if (denials_read(d, back, copy) && str_eq(copy->denial.decision, id)) {
                return write_out(whole(p, &copy->denial, i), out);
            }
        }
    }
    return write_out(json_pack("{s:s}", "event", "none"), out);
}

/* --- the last ones ---------------------------------------------------------------------------- */

struct cursor {
    struct denial_copy copy;
    size_t back;
    bool there;
};

static void advance(struct cursor *c, const struct denials *d)
{
    size_t n = denials_count(d);
    for (c->there = false; !c->there && c->back < n; c->back++) {
        c->there = denials_read(d, c->back, &c->copy);
    }
}

bool proxy_report_denials(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    mem_autofree struct cursor *cursors = mem_must_calloc(p->n_workers + 1, sizeof(*cursors));
    json_t *list = json_array();
    size_t kept = 0;
    bool inexact = false;
    for (unsigned i = 0; i < p->n_workers; i++) {
        kept += denials_count(conn_worker_denials(p->workers[i]));
        advance(&cursors[i], conn_worker_denials(p->workers[i]));
    }
    while (json_array_size(list) < LISTED_MAX) {
        struct cursor *last = NULL;
        unsigned worker = 0;
        for (unsigned i = 0; i < p->n_workers; i++) {
            struct cursor *c = &cursors[i];
            if (c->there && (last == NULL || c->copy.denial.ts_ms > last->copy.denial.ts_ms)) {
                last = c;
                worker = i;
            }
        }
        if (last == NULL) {
            break;
        }
        json_array_append_new(list, summary(&last->copy.denial, worker, &inexact));
        advance(last, conn_worker_denials(p->workers[worker]));
    }
    return write_out(json_pack("{s:o,s:I}", "denials", list, "kept", (json_int_t)kept), out);
}

/* --- the policies ----------------------------------------------------------------------------- */

static json_t *policy_json(const char *from, const char *path, const struct policy *policy,
                           struct str text, const char *why)
{
    char print[24];
    (void)snprintf(print, sizeof(print), "%016llx", (unsigned long long)policy_fingerprint(policy));
    json_t *o = json_pack("{s:s,s:s}", "from", from, "fingerprint", print);
    json_object_set_new(o, "path", report_text_or_null(path));
    json_t *t = text.p != NULL ? json_stringn(text.p, text.n) : NULL;
    json_object_set_new(o, "text", t != NULL ? t : json_null());
    if (t == NULL) {
        json_object_set_new(o, "why", report_text_or_null(why));
    }
    return o;
}

/* As it is now, which need not be as it was loaded: its asker compares the fingerprint. */
static json_t *file_json(const struct proxy *p)
{
    const char *path = p->files->conf->policy_path;
    struct err err = ERR_INIT;
    mem_autofree char *text = NULL;
    size_t len = 0;
    bool there = os_read_file(path, POLICY_TEXT_MAX, false, &text, &len, &err) == 0;
    json_t *o = policy_json("file", path, p->files->policy,
                            there ? (struct str){text, len} : STR_NONE, err.what);
    json_object_set_new(o, "for", proxy_policy_for(p));
    return o;
}

static json_t *state_json(const struct snapshot_state *s)
{
    const struct snapshot_state *own = s->documents != NULL ? s->documents : s;
    return policy_json("agent", NULL, s->policy,
                       (struct str){own->policy_text, own->policy_text_len},
                       "it is longer than what a proxy keeps");
}

bool proxy_report_policies(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    const struct policy *asked[2] = {NULL, NULL};
    json_t *list = json_array();
    bool none = snapshot_policies(p->snapshot, &asked[0], &asked[1]);
    for (size_t i = 0; i < 2 && !none; i++) {
        if (asked[i] == NULL) {
            continue;
        }
        bool told = p->state != NULL && asked[i] == p->state->policy;
        json_array_append_new(list, told ? state_json(p->state) : file_json(p));
    }
    return write_out(json_pack("{s:o,s:b}", "policies", list, "all_allowed", none), out);
}
