/* Names are few and alike, so that they meet. */
#include "policy_gen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

uint32_t policy_gen_below(struct policy_gen *g, uint32_t n)
{
    g->state ^= g->state << 13;
    g->state ^= g->state >> 7;
    g->state ^= g->state << 17;
    return (uint32_t)(g->state >> 33) % n;
}

/* Few and alike, so that they meet. */
static const char *const ids[] = {
    "spiffe://a.b/x",
    "spiffe://a.b/xy",
    "spiffe://a.b/x/y",
    "spiffe://a.bc/x",
    "spiffe://a.b/ns/pay",
    "spiffe://a.b/ns/pa",
    "spiffe://c/x",
    "spiffe://c/ns/pay/sa/x",
    "spiffe://a.b/orders",
    "spiffe://a.b",
    "spiffe://",
    "x",
    "spiffe://a.b/ns/pay/sa/x",
    "spiffe://c/ns/pa/sa/y",
    "spiffe://a.b/ns//sa/x",
    "spiffe://a.b/ns/pay/sa/x/z",
    "spiffe://a.b/x/",
    "uri:spiffe://a.b/x",
};
static const char *const id_patterns[] = {
    "*",
    "spiffe://a.b/*",
    "spiffe://a.b*",
    "spiffe://*",
    "*/x",
    "*x",
    "*/sa/x",
    "spiffe://a.b/ns/*",
    "spiffe://a.b/ns/pa*",
    "*y",
    "*/pay",
    "spiffe://a.b/ns/*/sa/x",
    "spiffe://a.b/*/pay",
    "spiffe://a.b/**",
    "spiffe://a.b/*/*/sa/**",
    "spiffe://c/ns/pay/**",
    "spiffe://a.b/*/*",
};
static const char *const namespaces[] = {"pay", "pa", "x"};
static const char *const word_patterns[] = {"*", "p*", "*y", "pa*", "*ay"};
static const char *const accounts[] = {"x", "y", "pay"};
static const char *const methods_of_grpc[] = {"a/b", "a.B/C", "a/bc"};
static const char *const grpc_patterns[] = {"a/*", "a.B/*"};
static const char *const value_names[] = {"a", "b", "ab"};
static const char *const values[] = {"1", "12", "x y", "pay", "pa"};
static const char *const value_patterns[] = {"*", "1*", "*2", "p*", "*y"};
static const char *const queries[] = {
    "",  "a=1", "a=1&a=12", "b=x+y&a=1", "a=%31",     "%61=1&b=pay", "a=1;b=1",
    "a", "a=%", "ab=pay&",  "&&b=",      "a=1&a=pay", "b=1&a=12",    "ab=1&b=12&a=x%20y"};
static const char *const domains[] = {"a.b", "a.bc", "c", "a", "b"};
static const char *const methods[] = {"GET", "HEAD", "POST", "get"};
static const char *const hosts[] = {"orders", "ORDERS", "orders.", "orders.example.org",
                                    "a.b.c.", "B.C",    "[::1]"};
static const char *const host_patterns[] = {"*", "*.org", "Orders*", "*.C", "*c.", "*.b.c", "o*"};
static const char *const paths[] = {"/", "/a",      "/a/",   "/a/b",   "/admin", "/adminx", "/a b",
                                    "*", "/x.html", "/a/bc", "/a.B/C", "/a//b",  "/a/b/c"};
static const char *const path_patterns[] = {
    "*",      "/*",         "/a*",     "/a/*",    "*.html",     "*/b",   "/admin*",
    "/a%20*", "*min",       "/%61",    "/{}",     "/a/{}",      "/{}/b", "/a/{**}",
    "/{**}",  "/{}/{**}/b", "/{**}/b", "/%61/{}", "/{}/{}/{**}"};
static const char *const blocks[] = {"10.0.0.0/8",          "10.1.0.0/16", "10.1.2.3",
                                     "0.0.0.0/0",           "::/0",        "fd00::/8",
                                     "::ffff:10.1.0.0/112", "fd00::1"};
static const char *const addresses[] = {
    "10.1.2.3", "10.2.0.1", "::ffff:10.1.2.3", "11.0.0.1", "::ffff:10.2.0.1", "fd00::1", "fe80::1"};

static const char *pick(struct policy_gen *g, const char *const *a, size_t n_a,
                        const char *const *b, size_t n_b)
{
    uint32_t i = policy_gen_below(g, (uint32_t)(n_a + n_b));
    return i < n_a || b == NULL ? a[i % n_a] : b[i - n_a];
}

#define PICK(a, b) pick(g, a, COUNT(a), b, COUNT(b))

/* 0 to 3 items, most often none. */
static void pick_list(struct policy_gen *g, const char **list, const char *const *a, size_t n_a,
                      const char *const *b, size_t n_b, uint32_t rarity)
{
    uint32_t n = policy_gen_below(g, rarity) == 0 ? 1 + policy_gen_below(g, 3) : 0;
    for (uint32_t i = 0; i < n; i++) {
        list[i] = pick(g, a, n_a, b, n_b);
    }
}

static void pick_values(struct policy_gen *g, struct row_value *list, uint32_t rarity, bool once)
{
    uint32_t n = policy_gen_below(g, rarity) == 0 ? 1 + policy_gen_below(g, NAMED_MAX - 1) : 0;
    uint32_t first = policy_gen_below(g, COUNT(value_names));
    for (uint32_t i = 0; i < n; i++) {
        list[i].name =
            once ? value_names[(first + i) % COUNT(value_names)] : PICK(value_names, value_names);
        list[i].present = policy_gen_below(g, 4) == 0;
        for (uint32_t k = 0, some = 1 + policy_gen_below(g, 2); k < some; k++) {
            list[i].values[k] = PICK(values, value_patterns);
        }
    }
}

/* What came with level 2. */
static void random_row_more(struct policy_gen *g, struct row *r)
{
    pick_list(g, r->namespaces, namespaces, COUNT(namespaces), word_patterns, COUNT(word_patterns),
              6);
    pick_list(g, r->not_namespaces, namespaces, COUNT(namespaces), word_patterns,
              COUNT(word_patterns), 12);
    pick_list(g, r->accounts, accounts, COUNT(accounts), word_patterns, COUNT(word_patterns), 8);
    pick_list(g, r->not_accounts, accounts, COUNT(accounts), NULL, 0, 12);
    pick_list(g, r->grpc, methods_of_grpc, COUNT(methods_of_grpc), grpc_patterns,
              COUNT(grpc_patterns), 8);
    pick_list(g, r->not_grpc, methods_of_grpc, COUNT(methods_of_grpc), grpc_patterns,
              COUNT(grpc_patterns), 12);
    pick_values(g, r->claims, 8, true);
    pick_values(g, r->not_claims, 12, false);
    pick_values(g, r->query, 6, true);
    pick_values(g, r->not_query, 10, false);
    pick_values(g, r->headers, 6, true);
    pick_values(g, r->not_headers, 10, false);
}

static void random_row(struct policy_gen *g, struct row *r, uint32_t density, bool more)
{
    if (more) {
        random_row_more(g, r);
    }
    pick_list(g, r->principals, ids, COUNT(ids), id_patterns, COUNT(id_patterns), density);
    pick_list(g, r->not_principals, ids, COUNT(ids), id_patterns, COUNT(id_patterns), 8);
    pick_list(g, r->domains, domains, COUNT(domains), NULL, 0, 4);
    pick_list(g, r->not_domains, domains, COUNT(domains), NULL, 0, 10);
    pick_list(g, r->blocks, blocks, COUNT(blocks), NULL, 0, 4);
    pick_list(g, r->not_blocks, blocks, COUNT(blocks), NULL, 0, 10);
    pick_list(g, r->methods, methods, COUNT(methods), NULL, 0, 4);
    pick_list(g, r->not_methods, methods, COUNT(methods), NULL, 0, 10);
    pick_list(g, r->hosts, hosts, COUNT(hosts), host_patterns, COUNT(host_patterns), 4);
    pick_list(g, r->not_hosts, hosts, COUNT(hosts), host_patterns, COUNT(host_patterns), 10);
    pick_list(g, r->paths, paths, COUNT(paths), path_patterns, COUNT(path_patterns), density);
    pick_list(g, r->not_paths, paths, COUNT(paths), path_patterns, COUNT(path_patterns), 10);
    for (uint32_t i = 0, n = policy_gen_below(g, 3) == 0 ? 1 + policy_gen_below(g, 3) : 0; i < n;
         i++) {
        r->ports[i] = (uint16_t)(80 + policy_gen_below(g, 4));
    }
    if (policy_gen_below(g, 10) == 0) {
        r->not_ports[0] = (uint16_t)(80 + policy_gen_below(g, 4));
    }
    r->from = policy_gen_below(g, 5) > 0;
    r->to = policy_gen_below(g, 5) > 0;
}

struct conf_policy *policy_gen_conf(struct policy_gen *g)
{
    enum { ROWS_MAX = 60 };
    struct row *rows = policy_rows_must(calloc(ROWS_MAX, sizeof(*rows)));
    char names[ROWS_MAX][16];
    uint32_t n =
        policy_gen_below(g, 4) == 0 ? policy_gen_below(g, ROWS_MAX) : policy_gen_below(g, 8);
    uint32_t density = 1 + policy_gen_below(g, 4);
    bool more = policy_gen_below(g, 2) == 0;
    for (uint32_t i = 0; i < n; i++) {
        bool same = i > 0 && policy_gen_below(g, 4) == 0;
        random_row(g, &rows[i], density, more);
        if (same) {
            rows[i].name = rows[i - 1].name;
            continue;
        }
        snprintf(names[i], sizeof(names[i]), "r%u", i);
        rows[i].name = names[i];
        rows[i].action = policy_gen_below(g, 4) == 0 ? CONF_DENY : CONF_ALLOW;
        if (more) {
            rows[i].action = policy_gen_below(g, 8) == 0 ? CONF_AUDIT : rows[i].action;
            rows[i].mode = policy_gen_below(g, 6) == 0 ? CONF_DRY_RUN : CONF_ENFORCE;
            rows[i].expires_s = policy_gen_below(g, 6) == 0 ? 100 + policy_gen_below(g, 3) : 0;
        }
        pick_list(g, rows[i].target, ids, COUNT(ids), id_patterns, COUNT(id_patterns), 3);
    }
    struct conf_policy *conf = policy_rows_conf(rows, n);
    free(rows);
    return conf;
}

static void random_alike(struct policy_gen *g, struct row *r)
{
    r->from = r->to = true;
    if (policy_gen_below(g, 100) > 0) {
        r->blocks[0] = "192.168.0.0/16"; /* where no question comes from */
    }
    switch (policy_gen_below(g, 5)) {
    case 0:
        r->principals[0] = PICK(ids, id_patterns);
        r->ports[0] = (uint16_t)(80 + policy_gen_below(g, 4));
        break;
    case 1: /* holds for hardly anyone */
        r->not_principals[0] = policy_gen_below(g, 50) > 0 ? "*" : PICK(ids, id_patterns);
        break;
    case 2:
        r->paths[0] = PICK(paths, path_patterns);
        r->not_methods[0] = PICK(methods, methods);
        break;
    case 3:
        pick_values(g, r->headers, 1, true);
        pick_values(g, r->not_headers, 2, false);
        break;
    default:
        random_row(g, r, 2, true);
        break;
    }
}

struct conf_policy *policy_gen_large(struct policy_gen *g, uint32_t n)
{
    struct row *all = policy_rows_must(calloc(n, sizeof(*all)));
    char(*names)[16] = policy_rows_must(calloc(n, sizeof(*names)));
    for (uint32_t i = 0; i < n; i++) {
        random_alike(g, &all[i]);
        snprintf(names[i], sizeof(names[i]), "r%u", i);
        all[i].name = names[i];
        all[i].action = policy_gen_below(g, 3) == 0 ? CONF_DENY : CONF_ALLOW;
        all[i].target[0] = PICK(ids, ids);
        all[i].expires_s = policy_gen_below(g, 6) == 0 ? 100 + policy_gen_below(g, 3) : 0;
    }
    struct conf_policy *conf = policy_rows_conf(all, n);
    free(all);
    free(names);
    return conf;
}

static size_t random_headers(struct policy_gen *g, struct policy_header *items)
{
    size_t n = policy_gen_below(g, 5);
    for (size_t i = 0; i < n; i++) {
        items[i].name = str_of(PICK(value_names, value_names));
        items[i].value = policy_gen_below(g, 8) == 0 ? STR_NONE : str_of(PICK(values, values));
    }
    return n;
}

struct question policy_gen_question(struct policy_gen *g, struct policy_gen_room *room)
{
    room->headers =
        (struct policy_headers){random_headers(g, room->header_items), room->header_items};
    room->claims = (struct policy_claims){random_headers(g, room->claim_items), room->claim_items};
    return (struct question){
        .peer = policy_gen_below(g, 8) == 0 ? NULL : PICK(ids, ids),
        .source = policy_gen_below(g, 8) == 0 ? NULL : PICK(addresses, addresses),
        .method = policy_gen_below(g, 3) == 0 ? NULL : PICK(methods, methods),
        .host = policy_gen_below(g, 8) == 0 ? NULL : PICK(hosts, hosts),
        .path = PICK(paths, paths),
        .port = (uint16_t)(79 + policy_gen_below(g, 6)),
        .target = policy_gen_below(g, 10) == 0 ? "" : PICK(ids, ids),
        .query = policy_gen_below(g, 8) == 0 ? NULL : PICK(queries, queries),
        .grpc = policy_gen_below(g, 2) == 0,
        .headers = policy_gen_below(g, 8) == 0 ? NULL : &room->headers,
        .claims = policy_gen_below(g, 4) == 0 ? NULL : &room->claims,
        .now_s = policy_gen_below(g, 4) == 0 ? 0 : 99 + policy_gen_below(g, 4),
    };
}
