#include "space_gen.h"

#include <arpa/inet.h>
#include <postern/buf.h>
#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

unsigned space_gen_below(struct space_gen *g, unsigned n)
{
    g->state ^= g->state << 13;
    g->state ^= g->state >> 7;
    g->state ^= g->state << 17;
    return (unsigned)(g->state >> 33) % n;
}

/* --- policies --------------------------------------------------------------------------------- */
/* Few and alike, so that they meet. */
static const char *const targets[] = {"spiffe://a.b/t", "spiffe://a.b/t/u", "spiffe://a.b/*", "*"};
static const char *const ids[] = {"spiffe://a.b/x",
                                  "spiffe://a.b/x*",
                                  "spiffe://a.b/x/*",
                                  "*",
                                  "*/sa/s",
                                  "*s",
                                  "spiffe://c/ns/n/sa/s",
                                  "dns:a.b",
                                  "dns:a*"};
static const char *const globs[] = {"spiffe://a.b/*/s", "spiffe://a.b/x/**", "spiffe://c/ns/*/sa/s",
                                    "spiffe://a.b/**"};
static const char *const names[] = {"n", "s", "n*", "*s", "*"};
static const char *const domains[] = {"a.b", "c"};
static const char *const blocks[] = {"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "fd00::1"};
static const char *const ports[] = {"80", "81", "82"};
static const char *const methods[] = {"GET", "POST"};
static const char *const hosts[] = {"h", "H*", "*.h", "h."};
static const char *const paths[] = {"/a", "/a*", "/a/*", "*/b", "/%61b", "*"};
static const char *const templates[] = {"/a/{}", "/{}/b", "/a/{**}", "/{}/{**}", "/a/{**}/b"};
static const char *const grpc[] = {"S/M", "S/*", "p.S/M"};
static const char *const facts[] = {"k", "l"};
static const char *const values[] = {"v", "v*", "*w", "*"};
static const char *const expires[] = {"2026-01-01", "2027-01-01"};

static void put_list(struct space_gen *g, struct buf *out, const char *key,
                     const char *const *items, size_t n, unsigned rarity, unsigned *filled)
{
    if (space_gen_below(g, rarity) > 0) {
        return;
    }
    buf_printf(out, "%s%s%s: [", *filled > 0 ? ", " : "", space_gen_below(g, 5) == 0 ? "not_" : "",
               key);
    for (unsigned i = 0, k = 1 + space_gen_below(g, 2); i < k; i++) {
        buf_printf(out, "%s\"%s\"", i > 0 ? ", " : "", items[space_gen_below(g, (unsigned)n)]);
    }
    buf_printf(out, "]");
    (*filled)++;
}

static void put_ports(struct space_gen *g, struct buf *out, unsigned *filled)
{
    if (space_gen_below(g, 2) == 0) {
        buf_printf(out, "%s%s: [%s]", *filled > 0 ? ", " : "",
                   space_gen_below(g, 5) == 0 ? "not_ports" : "ports",
                   ports[space_gen_below(g, COUNT(ports))]);
        (*filled)++;
    }
}

/* Headers, parameters or claims: each name once in a positive list. */
static void put_values(struct space_gen *g, struct buf *out, const char *key, unsigned rarity,
                       unsigned *filled)
{
    if (space_gen_below(g, rarity) > 0) {
        return;
    }
    unsigned first = space_gen_below(g, COUNT(facts));
    buf_printf(out, "%s%s%s: [", *filled > 0 ? ", " : "", space_gen_below(g, 4) == 0 ? "not_" : "",
               key);
    for (unsigned i = 0, k = 1 + space_gen_below(g, 2); i < k; i++) {
        buf_printf(out, "%s{name: %s, ", i > 0 ? ", " : "", facts[(first + i) % COUNT(facts)]);
        if (space_gen_below(g, 3) == 0) {
            buf_printf(out, "present: true}");
        } else {
            buf_printf(out, "values: [\"%s\", \"%s\"]}", values[space_gen_below(g, COUNT(values))],
                       values[space_gen_below(g, COUNT(values))]);
        }
    }
    buf_printf(out, "]");
    (*filled)++;
}

static void put_entry(struct space_gen *g, struct buf *out, bool from)
{
    unsigned filled = 0;
    size_t before = buf_len(out);
    while (filled == 0) {
        out->len = before;
        if (from) {
            put_list(g, out, "principals", ids, COUNT(ids), 2, &filled);
            put_list(g, out, "trust_domains", domains, COUNT(domains), 4, &filled);
            put_list(g, out, "ip_blocks", blocks, COUNT(blocks), 4, &filled);
            put_list(g, out, "namespaces", names, COUNT(names), 8, &filled);
            put_list(g, out, "service_accounts", names, COUNT(names), 8, &filled);
            put_values(g, out, "claims", 10, &filled);
            if (filled == 0) {
                put_list(g, out, "principals", globs, COUNT(globs), 2, &filled);
            }
        } else {
            put_ports(g, out, &filled);
            put_list(g, out, "methods", methods, COUNT(methods), 4, &filled);
            put_list(g, out, "hosts", hosts, COUNT(hosts), 6, &filled);
            put_list(g, out, "paths", space_gen_below(g, 3) > 0 ? paths : templates,
                     COUNT(templates), 3, &filled);
            put_list(g, out, "grpc", grpc, COUNT(grpc), 10, &filled);
            put_values(g, out, "headers", 8, &filled);
            put_values(g, out, "query", 10, &filled);
        }
    }
}

/* One rule, as the element of a flow list; owned. */
static char *random_rule(struct space_gen *g, unsigned number)
{
    struct buf out = BUF_INIT(1 << 16);
    buf_printf(&out, "{name: r%u, action: %s", number,
               space_gen_below(g, 4) == 0 ? "DENY" : "ALLOW");
    if (space_gen_below(g, 3) == 0) {
        buf_printf(&out, ", target: {principals: [\"%s\"]}",
                   targets[space_gen_below(g, COUNT(targets))]);
    }
    if (space_gen_below(g, 12) == 0) {
        buf_printf(&out, ", expires: %s", expires[space_gen_below(g, COUNT(expires))]);
    }
    if (space_gen_below(g, 12) == 0) {
        buf_printf(&out, ", mode: dry-run");
    }
    for (unsigned k = 0; k < 2; k++) {
        unsigned n = space_gen_below(g, 3);
        for (unsigned i = 0; i < n; i++) {
            buf_printf(&out, "%s{", i > 0 ? "}, " : k == 0 ? ", from: [" : ", to: [");
            put_entry(g, &out, k == 0);
        }
        buf_printf(&out, "%s", n > 0 ? "}]" : "");
    }
    buf_printf(&out, "}");
    char *text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    buf_reset(&out);
    return text;
}

struct space_rules space_gen_rules(struct space_gen *g)
{
    struct space_rules r = {.n = space_gen_below(g, SPACE_RULES_MAX)};
    for (unsigned i = 0; i < r.n; i++) {
        r.items[i] = random_rule(g, i);
    }
    return r;
}

void space_rules_free(struct space_rules *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        free(r->items[i]);
    }
}

/* In a random order, some of them twice under another name. */
struct conf_policy *space_gen_conf(struct space_gen *g, const struct space_rules *r, bool shuffled,
                                   char **ret_text)
{
    struct buf out = BUF_INIT(1 << 20);
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    unsigned start = shuffled && r->n > 0 ? space_gen_below(g, r->n) : 0;
    buf_printf(&out, "kind: Policy\nlevel: 2\nrules: [");
    for (unsigned i = 0; i < r->n; i++) {
        const char *rule = r->items[(start + i) % r->n];
        buf_printf(&out, "%s\n%s", i > 0 ? "," : "", rule);
        if (shuffled && space_gen_below(g, 3) == 0) {
            buf_printf(&out, ",\n{name: again%u%s", i, strchr(rule, ','));
        }
    }
    buf_printf(&out, "]\n");
    if (conf_parse_policy("p", (const char *)buf_head(&out), buf_len(&out), diag, &conf) != 0) {
        fail_msg("%s\n%.*s", conf_diag_get(diag, 0)->what, (int)buf_len(&out),
                 (const char *)buf_head(&out));
    }
    if (ret_text != NULL) {
        *ret_text = mem_must_strndup((const char *)buf_head(&out), buf_len(&out));
    }
    conf_diag_free(diag);
    buf_reset(&out);
    return conf;
}

/* --- questions -------------------------------------------------------------------------------- */
static size_t random_values(struct space_gen *g, struct policy_header *items)
{
    static const char *const said[] = {"v", "vw", "w", "x"};
    size_t n = space_gen_below(g, 3) > 0 ? 0 : space_gen_below(g, 4);
    for (size_t i = 0; i < n; i++) {
        items[i] = (struct policy_header){str_of(facts[space_gen_below(g, COUNT(facts))]),
                                          str_of(said[space_gen_below(g, COUNT(said))])};
    }
    return n;
}

static void add_values(struct space_gen *g, struct policy_query *q, struct space_gen_room *room)
{
    static const char *const queries[] = {"",    "k=v", "k=vw&l=x", "k=w&k=x", "l=v&l=vw&l=x",
                                          "m=v", "k",   "%",        NULL};
    q->query = str_of(queries[space_gen_below(g, COUNT(queries))]);
    room->headers = (struct policy_headers){random_values(g, room->items[0]), room->items[0]};
    room->claims = (struct policy_claims){random_values(g, room->items[1]), room->items[1]};
    q->headers = &room->headers;
    q->claims = space_gen_below(g, 2) == 0 ? &room->claims : NULL;
    q->grpc = space_gen_below(g, 4) == 0;
}

struct policy_query space_gen_question(struct space_gen *g, struct space_gen_room *room,
                                       int64_t now_s)
{
    static const char *const who[] = {"spiffe://a.b/x",
                                      "spiffe://a.b/xy",
                                      "spiffe://a.b/x/s",
                                      "spiffe://c/ns/n/sa/s",
                                      "spiffe://d/y",
                                      "dns:a.b",
                                      "dns:axs",
                                      "dns:b",
                                      "cn:x",
                                      ""};
    static const char *const own[] = {"spiffe://a.b/t", "spiffe://a.b/t/u", "spiffe://c/t", ""};
    static const char *const from[] = {"10.1.2.3", "10.1.9.9", "10.9.9.9", "1.1.1.1",
                                       "fd00::1",  "fd00::2",  ""};
    static const char *const at[] = {"h", "hx", "x.h", "other", ""};
    static const char *const which[] = {"/a", "/ab",    "/a/",    "/a/b", "/b",     "/x/b", "/",
                                        "*",  "/a/c/d", "/a/x/b", "/S/M", "/p.S/M", "/S/N"};
    static const char *const how[] = {"GET", "POST", "PUT"};
    struct policy_query q = {.target = str_of(own[space_gen_below(g, COUNT(own))]),
                             .peer = str_of(who[space_gen_below(g, COUNT(who))]),
                             .port = (uint16_t)(80 + space_gen_below(g, 4)),
                             .now_s = now_s};
    const char *address = from[space_gen_below(g, COUNT(from))];
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_storage *source = &room->source;
    *source = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
        memcpy(source, &v4, sizeof(v4));
    } else if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1) {
        memcpy(source, &v6, sizeof(v6));
    }
    q.source = source->ss_family != 0 ? (const struct sockaddr *)source : NULL;
    if (space_gen_below(g, 3) > 0) {
        q.http = true;
        q.method = str_of(how[space_gen_below(g, COUNT(how))]);
        q.host = str_of(at[space_gen_below(g, COUNT(at))]);
        q.path = str_of(which[space_gen_below(g, COUNT(which))]);
        add_values(g, &q, room);
    }
    return q;
}
