/*
 * What was denied, for whoever comes with its id: the facts that the policy was asked about, and of
 * headers, parameters and claims those that its rules speak of.
 *
 * Credentials are not kept: not the value of a field that is called like one, that the file says
 * tokens come in, or that looks like one. It is kept that it was there.
 */
#include "conn_priv.h"

#include <postern/os.h>
#include <postern/policy_asked.h>
#include <stdio.h>
#include <string.h>

/* --- what is nobody's business ---------------------------------------------------------------- */

static bool has_word(struct str name, struct str word)
{
    bool found = false;
    for (size_t i = 0; !found && i + word.n <= name.n; i++) {
        found = str_has_prefix_nocase((struct str){name.p + i, name.n - i}, word);
    }
    return found;
}

static bool is_called_secret(struct str name)
{
    static const char *const words[] = {"auth",      "token",  "secret",  "passw",
                                        "pwd",       "cookie", "session", "credential",
                                        "signature", "key",    "jwt",     "assertion"};
    static const char *const names[] = {"sig", "code", "otp", "pin"};
    bool secret = false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        secret = secret || has_word(name, str_of(words[i]));
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        secret = secret || str_eq_nocase(name, str_of(names[i]));
    }
    return secret;
}

/* RFC 9110 11.4; a JWT begins with {" in base64. */
static bool looks_secret(struct str value)
{
    return str_has_prefix_nocase(value, STR_LIT("bearer ")) ||
           str_has_prefix_nocase(value, STR_LIT("basic ")) ||
           str_has_prefix_nocase(value, STR_LIT("negotiate ")) ||
           str_has_prefix_nocase(value, STR_LIT("digest ")) ||
           str_has_prefix(value, STR_LIT("eyJ"));
}

static bool brings_tokens(const struct conn *c, struct str name)
{
    const struct conf_jwts *jwt = &conn_conf(c)->jwt;
    for (size_t i = 0; i < jwt->n; i++) {
        if (jwt->items[i].header != NULL && str_eq_nocase(name, str_of(jwt->items[i].header))) {
            return true;
        }
    }
    return false;
}

/* --- fields ----------------------------------------------------------------------------------- */

struct gathered {
    const struct policy *first, *second;
    struct denial_field fields[DENIALS_FIELDS_MAX];
    size_t n;
    bool cut;
    char query[DENIALS_SLOT];
    size_t query_len;
};

static void gather(struct gathered *g, const struct denial_field *field)
{
    if (g->n == DENIALS_FIELDS_MAX) {
        g->cut = true;
    } else {
        g->fields[g->n++] = *field;
    }
}

static void gather_headers(struct gathered *g, const struct conn *c,
                           const struct policy_headers *headers)
{
    for (size_t i = 0; headers != NULL && i < headers->n; i++) {
        const struct policy_header *h = &headers->items[i];
        if (policy_asks_header(g->first, h->name) || policy_asks_header(g->second, h->name)) {
            gather(g, &(const struct denial_field){.kind = DENIAL_HEADER,
                                                   .name = h->name,
                                                   .value = h->value,
                                                   .withheld = is_called_secret(h->name) ||
                                                               looks_secret(h->value) ||
                                                               brings_tokens(c, h->name)});
        }
    }
}

static void gather_claims(struct gathered *g, const struct policy_claims *claims)
{
    for (size_t i = 0; claims != NULL && i < claims->n; i++) {
        const struct policy_header *h = &claims->items[i];
        if (policy_asks_claim(g->first, h->name) || policy_asks_claim(g->second, h->name)) {
            gather(g, &(const struct denial_field){.kind = DENIAL_CLAIM,
                                                   .name = h->name,
                                                   .value = h->value,
                                                   .withheld = is_called_secret(h->name) ||
                                                               looks_secret(h->value)});
        }
    }
}

/* As they came, with & between them. False: something of it is not kept. */
static bool gather_query(struct gathered *g, struct str query)
{
    bool whole = query.p != NULL;
    struct str one, name, value;
    while (whole && policy_query_take(&query, &one, &name, &value)) {
        if (!policy_asks_parameter(g->first, name) && !policy_asks_parameter(g->second, name)) {
            continue;
        }
        if (is_called_secret(name) || looks_secret(value)) {
            gather(g, &(const struct denial_field){
                          .kind = DENIAL_PARAMETER, .name = name, .withheld = true});
            whole = false;
        } else if (one.n + 1 > sizeof(g->query) - g->query_len) {
            g->cut = true;
            whole = false;
        } else {
            memcpy(g->query + g->query_len, one.p, one.n);
            g->query_len += one.n;
            g->query[g->query_len++] = '&';
        }
    }
    g->query_len -= g->query_len > 0;
    return whole;
}

/* --- a denial --------------------------------------------------------------------------------- */

void conn_denied(struct conn *c, const struct conn_denied *d)
{
    const struct snapshot *s = conn_snapshot(c);
    const struct policy_query *q = d->query;
    struct gathered g;
    char source[NET_ADDR_TEXT_MAX];
    if (d->decision[0] == '\0') {
        conn_decision_new(c->worker, d->decision);
    }
    if (!denials_wanted(c->worker->denials)) {
        return;
    }
    g.n = g.query_len = 0;
    g.cut = false;
    (void)snapshot_policies(s, &g.first, &g.second);
    gather_headers(&g, c, q->headers);
    gather_claims(&g, q->claims);
    bool query_known = gather_query(&g, q->query);
    const struct denial x = {
        .ts_ms = os_wall_ms(),
        .conn = c->number,
        .generation = s->generation,
        .files_generation = s->files->generation,
        .state_generation = s->state != NULL ? s->state->generation : 0,
        .port = q->port,
        .request = q->http,
        .grpc = q->grpc,
        .query_known = query_known,
        .headers_known = q->headers != NULL,
        .claims_known = q->claims != NULL,
        .other_reading = d->other_reading,
        .fields_cut = g.cut,
        .decision = str_of(d->decision),
        .protocol = str_of(d->protocol),
        .reason = str_of(d->reason != NULL ? d->reason : conn_verdict_word(d->verdict)),
        .listener = str_of(conn_listener(c)->conf->name),
        .own_id = q->target,
        .peer_id = q->peer,
        .source = q->source != NULL ? str_of(net_addr_text(&c->source, source)) : STR_NONE,
        .rule = str_of(d->verdict->rule),
        .method = q->method,
        .host = q->host,
        .path = q->path,
        .query = {g.query, g.query_len},
        .fields = g.fields,
        .n_fields = g.n};
    denials_put(c->worker->denials, &x);
}
