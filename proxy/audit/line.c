/* What a line says; numbering and chaining. */
#include "audit_priv.h"

#include <postern/jsonl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    FORMAT_VERSION = 1,
    SHORT_TEXT_MAX = 256, /* where a line would not fit with all of its texts */
};

int audit_chain_init(struct audit_chain *c, bool on, struct err *err)
{
    *c = (struct audit_chain){.on = on};
    c->md = EVP_MD_fetch(NULL, "SHA256", NULL);
    c->digest = EVP_MD_CTX_new();
    if (c->md == NULL || c->digest == NULL) {
        audit_chain_deinit(c);
        return err_set(err, ERR_SYSTEM, "there is no SHA-256");
    }
    return 0;
}

void audit_chain_deinit(struct audit_chain *c)
{
    EVP_MD_CTX_free(c->digest);
    EVP_MD_free(c->md);
    c->digest = NULL;
    c->md = NULL;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static void put_ts(struct jsonl_writer *w, uint64_t ms)
{
    char whole[32], text[40];
    os_time_text((int64_t)(ms / 1000), whole, sizeof(whole));
    whole[strlen(whole) - 1] = '\0'; /* the Z comes after the milliseconds */
    (void)snprintf(text, sizeof(text), "%s.%03uZ", whole, (unsigned)(ms % 1000));
    jsonl_put_text(w, "ts", str_of(text), sizeof(text));
}

static void put_text(struct jsonl_writer *w, const char *key, struct str value, size_t max)
{
    if (value.n > 0) {
        jsonl_put_text(w, key, value, max);
    }
}

static void put_true(struct jsonl_writer *w, const char *key, bool value)
{
    if (value) {
        jsonl_put_bool(w, key, true);
    }
}

static void put_some(struct jsonl_writer *w, const char *key, uint64_t value)
{
    if (value != 0) {
        jsonl_put_uint(w, key, value);
    }
}

static void put_address(struct jsonl_writer *w, const char *key, const struct net_addr *a)
{
    char text[NET_ADDR_TEXT_MAX];
    if (a->len > 0) {
        jsonl_put_text(w, key, str_of(net_addr_text(a, text)), sizeof(text));
    }
}

static void begin(struct jsonl_writer *w, const struct audit_chain *c, char *space, uint64_t ts_ms,
                  const char *event)
{
    jsonl_begin(w, space, AUDIT_LINE_MAX - 1);
    jsonl_put_uint(w, "seq", c->seq + 1);
    if (c->on) {
        jsonl_put_hex(w, "prev", c->head, sizeof(c->head));
    }
    put_ts(w, ts_ms);
    jsonl_put_text(w, "event", str_of(event), 32);
}

static size_t end(struct audit_chain *c, const struct jsonl_writer *w)
{
    unsigned n = AUDIT_HASH_SIZE;
    bool ok = EVP_DigestInit_ex2(c->digest, c->md, NULL) == 1 &&
              EVP_DigestUpdate(c->digest, w->text, w->len) == 1 &&
              EVP_DigestFinal_ex(c->digest, c->head, &n) == 1;
    POSTERN_ASSERT(ok && n == AUDIT_HASH_SIZE);
    c->seq++;
    w->text[w->len] = '\n';
    return w->len + 1;
}

/* --- lines ------------------------------------------------------------------------------------ */

static bool try_decision(const struct audit_chain *c, const struct audit_decision *d, size_t max,
                         struct jsonl_writer *w, char *space)
{
    static const char *const events[] = {
        [AUDIT_CONNECTION] = "connection", [AUDIT_REQUEST] = "request", [AUDIT_ENDED] = "ended"};
    char conn[48];
    (void)snprintf(conn, sizeof(conn), "%u-%llu", d->worker, (unsigned long long)d->conn);
    begin(w, c, space, d->ts_ms, events[d->kind]);
    jsonl_put_uint(w, "worker", d->worker);
    jsonl_put_uint(w, "n", d->number);
    put_text(w, "decision", d->decision, max);
    jsonl_put_text(w, "conn", str_of(conn), sizeof(conn));
    jsonl_put_text(w, "direction", str_of(d->outbound ? "outbound" : "inbound"), 16);
    put_text(w, "listener", d->listener, max);
    put_true(w, "hbone", d->hbone);
    put_true(w, "resumed", d->resumed);
    jsonl_put_uint(w, "generation", d->generation);
    put_some(w, "state_generation", d->state_generation);
    put_text(w, "own_id", d->own_id, max);
    put_text(w, "peer_id", d->peer_id, max);
    put_address(w, "source", &d->source);
    put_address(w, "via", &d->via);
    put_some(w, "port", d->port);
    put_text(w, "protocol", d->protocol, max);
    put_text(w, "method", d->method, max);
    put_text(w, "host", d->host, max);
    put_text(w, "path", d->path, max);
    jsonl_put_text(w, "verdict", str_of(d->allow ? "allow" : "deny"), 8);
    put_text(w, "reason", d->reason, max);
    put_text(w, "rule", d->rule, max);
    put_text(w, "rule_reason", d->rule_reason, max);
    put_text(w, "near_miss", d->near_miss, max);
    put_text(w, "audit_rule", d->audit_rule, max);
    put_text(w, "shadow", d->shadow, max);
    put_text(w, "shadow_rule", d->shadow_rule, max);
    put_some(w, "sampled", d->sampled > 1 ? d->sampled : 0);
    return jsonl_end(w);
}

size_t audit_line_decision(struct audit_chain *c, const struct audit_decision *d, char *space)
{
    struct jsonl_writer w;
    if (!try_decision(c, d, AUDIT_TEXT_MAX, &w, space)) {
        bool ok = try_decision(c, d, SHORT_TEXT_MAX, &w, space);
        POSTERN_ASSERT(ok);
    }
    return end(c, &w);
}

size_t audit_line_lost(struct audit_chain *c, const struct audit_lost *lost, char *space)
{
    struct jsonl_writer w;
    begin(&w, c, space, os_wall_ms(), "lost");
    jsonl_put_uint(&w, "worker", lost->worker);
    jsonl_put_uint(&w, "count", lost->count);
    jsonl_put_uint(&w, "first", lost->first);
    jsonl_put_uint(&w, "last", lost->first + lost->count - 1);
    bool ok = jsonl_end(&w);
    POSTERN_ASSERT(ok);
    return end(c, &w);
}

size_t audit_line_begin(struct audit_chain *c, const struct audit_begin *b, char *space)
{
    struct jsonl_writer w;
    begin(&w, c, space, os_wall_ms(), "begin");
    jsonl_put_uint(&w, "version", FORMAT_VERSION);
    jsonl_put_text(&w, "why", str_of(b->why), 32);
    put_text(&w, "name", str_of(b->name), AUDIT_TEXT_MAX);
    put_text(&w, "role", str_of(b->role), 32);
    jsonl_put_uint(&w, "pid", (uint64_t)getpid());
    put_some(&w, "file", b->file);
    if (b->torn > 0) {
        jsonl_put_uint(&w, "torn_bytes", b->torn);
        jsonl_put_hex(&w, "torn_sha256", b->torn_hash, sizeof(b->torn_hash));
    }
    bool ok = jsonl_end(&w);
    POSTERN_ASSERT(ok);
    return end(c, &w);
}
